//! Leads the workers, here or at agents, through the plan together: no segment that must begin calmly begins before all have their answers.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{Crew, DriveError, Driven, Event, Finished, Frame, Part, Progress, Setup, Stretch};
use crate::{
    agents::{Fleet, Seat},
    plan::{Load, Plan, Segment},
};

/// From the order to the first request: threads wake up meanwhile.
const LEAD: Duration = Duration::from_millis(2);
/// The same where the order has a network to cross.
const LEAD_TO_AGENTS: Duration = Duration::from_millis(200);

/// The workers of a run, connected and waiting.
pub(crate) struct Driver {
    hands: Hands,
    events: mpsc::Receiver<Event>,
    progress: Arc<Progress>,
    /// By agent: seals, failures, in flight.
    counts: Vec<[u64; 3]>,
    /// When each stretch began.
    starts: Vec<(usize, Instant)>,
    workers: usize,
    plan: Plan,
}

/// Who does the work.
enum Hands {
    Here(Crew),
    Agents(Vec<Seat>),
}

impl Hands {
    /// How many say that they are done.
    fn len(&self) -> usize {
        match self {
            Self::Here(crew) => crew.len(),
            Self::Agents(seats) => seats.len(),
        }
    }

    fn order(&self, stretch: &Stretch) -> Result<(), DriveError> {
        match self {
            Self::Here(crew) => crew.order(stretch),
            Self::Agents(seats) => seats.iter().try_for_each(|seat| seat.order(stretch)),
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts the workers, here or at the agents of a fleet, and waits until every connection stands.
    pub(crate) fn start(
        setup: &Setup,
        plan: Plan,
        progress: &Arc<Progress>,
        fleet: Option<&Fleet>,
    ) -> Result<Self, DriveError> {
        let (report, events) = mpsc::channel();
        let frame = Frame {
            measured: plan.segments.iter().map(|segment| segment.measured).collect(),
            length: plan.segments.iter().map(|segment| segment.duration).sum::<Duration>() + setup.drain,
        };
        let (hands, workers) = match fleet {
            None => {
                let part = Part {
                    first: 0,
                    of: setup.workers,
                };
                (
                    Hands::Here(Crew::start(setup, &frame, part, progress, &report)?),
                    setup.workers,
                )
            }
            Some(fleet) => {
                let seats = fleet.take_seats(setup, &frame, &report)?;
                let workers = seats.len() * setup.workers;
                (Hands::Agents(seats), workers)
            }
        };
        let driver = Self {
            counts: vec![[0; 3]; hands.len()],
            hands,
            events,
            progress: progress.clone(),
            starts: Vec::new(),
            workers,
            plan,
        };
        let mut waiting = driver.hands.len();
        while waiting > 0 {
            match driver.events.recv() {
                Ok(Event::Connected(result)) => {
                    result?;
                    waiting -= 1;
                }
                Ok(Event::Progress(..)) => {}
                Ok(other) => return Err(driver.failure(other)),
                Err(_) => return Err(DriveError::Gone),
            }
        }
        Ok(driver)
    }

    /// Runs the plan. `tick` is called about ten times a second and at both ends of each stretch, with the index of the segment that runs;
    /// it may end the run by answering false.
    pub(crate) fn run(mut self, mut tick: impl FnMut(usize, &Segment) -> bool) -> Result<Driven, DriveError> {
        let outcome = self.lead(&mut tick);
        if outcome.is_err() {
            self.progress.give_up();
        }
        let segments = outcome?;
        self.finish(segments)
    }

    fn lead(&mut self, tick: &mut impl FnMut(usize, &Segment) -> bool) -> Result<Vec<Segment>, DriveError> {
        let mut segments = std::mem::take(&mut self.plan.segments);
        let (mut at, mut peak) = (0, 0.0_f64);
        while at < segments.len() {
            let end = (at + 1..segments.len())
                .find(|index| segments[*index].settle)
                .unwrap_or(segments.len());
            for segment in &mut segments[at..end] {
                resolve(segment, peak);
            }
            if !tick(at, &segments[at]) {
                return Err(DriveError::Interrupted);
            }
            let lead = match self.hands {
                Hands::Here(_) => LEAD,
                Hands::Agents(_) => LEAD_TO_AGENTS,
            };
            let start = Instant::now() + lead;
            self.starts.push((at, start));
            self.hands.order(&Stretch {
                first: at,
                segments: segments[at..end].iter().map(|s| (s.load.clone(), s.duration)).collect(),
                start,
            })?;
            let sealed = self.wait(at, &segments[at..end], start, tick)?;
            tick(end - 1, &segments[end - 1]);
            for (segment, sealed) in segments[at..end].iter().zip(&sealed) {
                if segment.measured {
                    peak = peak.max(*sealed as f64 / segment.duration.as_secs_f64());
                }
            }
            at = end;
        }
        Ok(segments)
    }

    /// Waits until all have done a stretch; answers the seals in time by segment.
    fn wait(
        &mut self,
        at: usize,
        stretch: &[Segment],
        start: Instant,
        tick: &mut impl FnMut(usize, &Segment) -> bool,
    ) -> Result<Vec<u64>, DriveError> {
        let mut sealed = vec![0; stretch.len()];
        let mut waiting = self.hands.len();
        let mut ticked = Instant::now();
        while waiting > 0 {
            match self.events.recv_timeout(Duration::from_millis(100)) {
                Ok(Event::Done(counts)) => {
                    waiting -= 1;
                    sealed.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                }
                Ok(Event::Progress(agent, counts)) => self.count(agent, counts),
                Ok(other) => return Err(self.failure(other)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(DriveError::Gone),
            }
            if ticked.elapsed() >= Duration::from_millis(90) {
                ticked = Instant::now();
                let index = running(stretch, start.elapsed());
                if !tick(at + index, &stretch[index]) {
                    return Err(DriveError::Interrupted);
                }
            }
        }
        Ok(sealed)
    }

    fn count(&mut self, agent: usize, counts: [u64; 3]) {
        if let Some(known) = self.counts.get_mut(agent) {
            *known = counts;
        }
        let sum = |at: usize| self.counts.iter().map(|counts| counts[at]).sum();
        self.progress.set(sum(0), sum(1), sum(2));
    }

    /// What an event that should not come now means.
    fn failure(&self, event: Event) -> DriveError {
        match (event, &self.hands) {
            (Event::Lost(agent, why), Hands::Agents(seats)) => DriveError::Agent(
                seats.get(agent).map_or_else(String::new, |seat| seat.name().to_owned()),
                why,
            ),
            (Event::Connected(Err(error)), _) => error,
            _ => DriveError::Gone,
        }
    }

    fn finish(mut self, segments: Vec<Segment>) -> Result<Driven, DriveError> {
        match &mut self.hands {
            Hands::Here(crew) => crew.dismiss(),
            Hands::Agents(seats) => seats.iter().try_for_each(Seat::finish)?,
        }
        let mut all: Option<Finished> = None;
        let mut agents = Vec::new();
        for _ in 0..self.hands.len() {
            let finished = loop {
                match self.events.recv() {
                    Ok(Event::Finished(agent, finished)) => {
                        if let (Some(agent), Hands::Agents(seats)) = (agent, &self.hands) {
                            agents.push((seats[agent].name().to_owned(), finished.recorder.clone()));
                        }
                        break finished;
                    }
                    Ok(Event::Progress(..)) => {}
                    Ok(other) => return Err(self.failure(other)),
                    Err(_) => return Err(DriveError::Gone),
                }
            };
            match &mut all {
                None => all = Some(*finished),
                Some(sum) => sum.merge(*finished),
            }
        }
        let mut all = all.ok_or(DriveError::Gone)?;
        self.lay_on_this_clock(&mut all, &segments);
        if let Hands::Here(crew) = self.hands {
            crew.join()?;
        }
        Ok(Driven {
            recorder: all.recorder,
            segments,
            samples: all.samples,
            samples_dropped: all.samples_dropped,
            workers: self.workers,
            agents,
        })
    }

    /// What an agent recorded counts from the start that it was given; here that start has its time on this clock.
    fn lay_on_this_clock(&self, all: &mut Finished, segments: &[Segment]) {
        let Some((_, origin)) = self.starts.first() else {
            return;
        };
        all.recorder.origin = *origin;
        for (stretch, (first, start)) in self.starts.iter().enumerate() {
            let end = self.starts.get(stretch + 1).map_or(segments.len(), |(next, _)| *next);
            let mut at = *start;
            for (record, segment) in all.recorder.segments[*first..end]
                .iter_mut()
                .zip(&segments[*first..end])
            {
                record.started = Some(at);
                at += segment.duration;
                record.ended = Some(at);
            }
        }
    }
}

/// A share of the peak becomes the rate that it now means.
fn resolve(segment: &mut Segment, peak: f64) {
    if let Load::ShareOfPeak(share) = segment.load {
        let rate = (peak * share).floor().max(1.0);
        segment.load = Load::Open(crate::plan::Arrivals::Constant { rate });
    }
}

/// Which of these segments runs after `elapsed`.
fn running(segments: &[Segment], elapsed: Duration) -> usize {
    let mut end = Duration::ZERO;
    segments
        .iter()
        .position(|segment| {
            end += segment.duration;
            elapsed < end
        })
        .unwrap_or(segments.len() - 1)
}
