//! Sends what the plan asks for and takes the answers.
//!
//! What comes in: a [`Target`], branches, a workload and a [`Plan`]. What goes out: what was recorded, and the answers that
//! were sampled for verification. A worker is one thread with its own connections, its own generator and its own recorder; nothing
//! is shared between workers but two counters for the progress line. This room decides *nothing* about when (the plan does) and judges no
//! answer beyond sealed or refused.
//!
//! One thread is enough for more than an HSM carries; more are for machines where the harness is alone.

mod alarm;
mod connection;
mod lane;
mod wire;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{Answer, Priority, SealResponse};
use tokio::sync::mpsc;

pub use self::connection::ConnectError;
pub(crate) use self::connection::Connection;
use crate::{
    generator::{Document, Workload},
    plan::{Load, Plan, Segment},
    recorder::Recorder,
    target::{Identity, Target},
};

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Mode {
    /// `SealStream`: one long call per connection, answers in any order.
    Stream,
    /// `Seal`: a call per document.
    Unary,
    /// `SealBatch`: a call per batch of documents.
    Batch,
}

impl Mode {
    /// As the command line and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Unary => "unary",
            Self::Batch => "batch",
        }
    }
}

/// A part of the load with a client certificate of its own.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Whose certificate.
    pub identity: Identity,
    /// Part of the requests, relative to the other branches.
    pub share: f64,
    /// Of every request of the branch.
    pub priority: Priority,
}

/// All that the driver needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the load goes.
    pub target: Target,
    /// At least one.
    pub branches: Vec<Branch>,
    /// What is sent.
    pub workload: Workload,
    /// How it is sent.
    pub mode: Mode,
    /// What is asked for in answer.
    pub answer: Answer,
    /// Connections per branch and worker.
    pub connections: usize,
    /// Documents per batch in [`Mode::Batch`].
    pub batch: usize,
    /// Threads.
    pub workers: usize,
    /// Requests that may be in flight at once, in total; what the plan wants beyond is counted as missed.
    pub max_in_flight: usize,
    /// Share of the answers kept for verification, 0 to 1.
    pub sample: f64,
    /// Bytes of kept answers and their requests, in total.
    pub sample_bytes: usize,
    /// How long to wait for answers after a stretch of the plan has ended.
    pub drain: Duration,
}

/// An answer kept for verification.
#[derive(Debug)]
pub struct Sample {
    /// What was sent.
    pub document: Document,
    /// What came back.
    pub answer: SealResponse,
}

/// What the run has done so far, for a progress line.
#[derive(Debug, Default)]
pub struct Progress {
    sealed: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
}

impl Progress {
    /// Seals, failures and missed sends, requests in flight.
    pub fn read(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.sealed), read(&self.failed), read(&self.in_flight))
    }
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) recorder: Recorder,
    /// The segments as they were run: a share of the peak has become a rate.
    pub(crate) segments: Vec<Segment>,
    pub(crate) samples: Vec<Sample>,
    /// Answers that were to be kept and were not, because [`Setup::sample_bytes`] was full.
    pub(crate) samples_dropped: u64,
}

/// The driver cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// No connection at the start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A branch's certificate or key.
    #[error(transparent)]
    Target(#[from] crate::target::TargetError),
    /// The operating system refused a thread or an event loop.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] std::io::Error),
    /// The workers went away, which is a bug of the harness.
    #[error("a worker of the harness ended before its time")]
    Gone,
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// What the coordinator tells a worker: segments that follow each other without a pause.
#[derive(Clone, Debug)]
struct Stretch {
    first: usize,
    segments: Vec<(Load, Duration)>,
    start: Instant,
}

/// The threads of a run, connected and waiting.
pub(crate) struct Driver {
    orders: Vec<mpsc::UnboundedSender<Stretch>>,
    events: std::sync::mpsc::Receiver<Event>,
    threads: Vec<thread::JoinHandle<()>>,
    plan: Plan,
}

/// What a worker tells the coordinator.
enum Event {
    Connected(Result<(), DriveError>),
    /// A stretch is over and answered. Seals in time by segment of the stretch.
    Done(Vec<u64>),
    Finished(Box<worker::Finished>),
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("workers", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts the workers and waits until every connection stands.
    pub(crate) fn start(setup: &Setup, plan: Plan, progress: &Arc<Progress>) -> Result<Self, DriveError> {
        let (report, events) = std::sync::mpsc::channel();
        let length = plan.segments.iter().map(|segment| segment.duration).sum::<Duration>() + setup.drain;
        let origin = Instant::now();
        let measured: Vec<bool> = plan.segments.iter().map(|segment| segment.measured).collect();
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for index in 0..setup.workers {
            let recorder = Recorder::new(origin, length, measured.clone(), setup.branches.len());
            let (order, ordered) = mpsc::unbounded_channel();
            let (setup, progress, report) = (setup.clone(), progress.clone(), report.clone());
            threads.push(
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn(move || worker::run(index, setup, recorder, progress, ordered, &report))?,
            );
            orders.push(order);
        }
        let driver = Self {
            orders,
            events,
            threads,
            plan,
        };
        for _ in 0..setup.workers {
            match driver.events.recv() {
                Ok(Event::Connected(result)) => result?,
                _ => return Err(DriveError::Gone),
            }
        }
        Ok(driver)
    }

    /// Runs the plan. `tick` is called about ten times a second and at both ends of each stretch, with the index of the segment that runs;
    /// it may end the run by answering false.
    pub(crate) fn run(mut self, mut tick: impl FnMut(usize, &Segment) -> bool) -> Result<Driven, DriveError> {
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
            let start = Instant::now() + Duration::from_millis(2);
            let stretch = Stretch {
                first: at,
                segments: segments[at..end].iter().map(|s| (s.load.clone(), s.duration)).collect(),
                start,
            };
            for order in &self.orders {
                order.send(stretch.clone()).map_err(|_| DriveError::Gone)?;
            }
            let mut sealed = vec![0; end - at];
            let mut waiting = self.orders.len();
            while waiting > 0 {
                match self.events.recv_timeout(Duration::from_millis(100)) {
                    Ok(Event::Done(counts)) => {
                        waiting -= 1;
                        sealed.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        let index = running(&segments[at..end], start.elapsed()) + at;
                        if !tick(index, &segments[index]) {
                            return Err(DriveError::Interrupted);
                        }
                    }
                    _ => return Err(DriveError::Gone),
                }
            }
            tick(end - 1, &segments[end - 1]);
            for (segment, sealed) in segments[at..end].iter().zip(&sealed) {
                if segment.measured {
                    peak = peak.max(*sealed as f64 / segment.duration.as_secs_f64());
                }
            }
            at = end;
        }
        self.finish(&segments)
    }

    fn finish(mut self, segments: &[Segment]) -> Result<Driven, DriveError> {
        // Without orders the workers end.
        self.orders.clear();
        let mut all: Option<Driven> = None;
        for _ in 0..self.threads.len() {
            let Ok(Event::Finished(finished)) = self.events.recv() else {
                return Err(DriveError::Gone);
            };
            let worker::Finished {
                recorder,
                samples,
                samples_dropped,
            } = *finished;
            match &mut all {
                None => {
                    all = Some(Driven {
                        recorder,
                        segments: segments.to_vec(),
                        samples,
                        samples_dropped,
                    });
                }
                Some(sum) => {
                    sum.recorder.merge(&recorder);
                    sum.samples.extend(samples);
                    sum.samples_dropped += samples_dropped;
                }
            }
        }
        for thread in self.threads {
            thread.join().map_err(|_| DriveError::Gone)?;
        }
        all.ok_or(DriveError::Gone)
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
