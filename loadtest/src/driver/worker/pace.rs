//! When: a stretch of the plan is kept here, whatever the answers do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Closed, State, Worker};
use crate::{
    driver::{Mode, Part, Stretch, alarm::Alarm},
    machine,
    plan::{Arrivals, Load},
    recorder::Failure,
};

/// Overdue requests that are sent before the answers get their turn.
const BURST: usize = 32;
/// A closed loop waits so long after a failure before its caller tries again, as callers do.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// Who waits for the end of a segment looks up so often.
const LOOK_UP: Duration = Duration::from_millis(250);

impl Worker {
    /// Runs segments that follow each other, waits for their answers, and says how many seals each got in time.
    pub(super) async fn stretch(self: &Arc<Self>, stretch: &Stretch, alarm: &mut Alarm) -> Vec<u64> {
        let mut start = stretch.start;
        if stretch.first == 0 {
            // The clock of the report begins with the load, not with the handshakes.
            self.lock().recorder.origin = start;
        }
        self.wait(start, alarm).await;
        for (nth, (load, duration)) in stretch.segments.iter().enumerate() {
            let segment = stretch.first + nth;
            let end = start + *duration;
            let (cpu, waited) = (machine::thread_cpu(), machine::thread_waited());
            {
                let record = &mut self.lock().recorder.segments[segment];
                (record.started, record.ended) = (Some(start), Some(end));
            }
            match load {
                Load::Closed { concurrency } => self.closed(segment, *concurrency, end, alarm).await,
                Load::Open(arrivals) => self.open(segment, arrivals, start, *duration, alarm).await,
                Load::ShareOfPeak(_) => {
                    unreachable!("the driver resolves a share of the peak before it orders a stretch")
                }
            }
            let record = &mut self.lock().recorder.segments[segment];
            record.generator_cpu = machine::thread_cpu().saturating_sub(cpu);
            record.busiest_cpu = record.generator_cpu;
            record.generator_waited = machine::thread_waited().saturating_sub(waited);
            start = end;
        }
        self.drain().await;
        let state = self.lock();
        (0..stretch.segments.len())
            .map(|nth| state.recorder.segments[stretch.first + nth].sealed_in_time)
            .collect()
    }

    async fn closed(self: &Arc<Self>, segment: usize, concurrency: usize, end: Instant, alarm: &mut Alarm) {
        {
            let mut state = self.lock();
            let Part { first, of } = self.part;
            let calls = concurrency / of + usize::from(first < concurrency % of);
            let callers = calls * self.call_size();
            state.closed = Some(Closed {
                segment,
                until: end,
                callers,
            });
            // Callers that still wait for an answer from the segment before stay callers of this one.
            for _ in 0..calls {
                self.call_again(&mut state, Instant::now());
            }
        }
        self.wait(end, alarm).await;
        self.lock().closed = None;
    }

    async fn open(
        self: &Arc<Self>,
        segment: usize,
        arrivals: &Arrivals,
        start: Instant,
        duration: Duration,
        alarm: &mut Alarm,
    ) {
        let mut burst = 0;
        for offset in arrivals.schedule(duration, self.part.first, self.part.of, self.setup.workload.seed) {
            if self.progress.is_over() {
                return;
            }
            let due = start + offset;
            let mut now = Instant::now();
            while now < due {
                let _ = alarm.until(due).await;
                now = Instant::now();
                burst = 0;
            }
            self.send(&mut self.lock(), segment, due, now, true);
            burst += 1;
            if burst >= BURST {
                burst = 0;
                tokio::task::yield_now().await;
            }
        }
        {
            let mut state = self.lock();
            for branch in 0..state.batches.len() {
                self.flush(&mut state, branch);
            }
        }
        let end = start + duration;
        self.wait(end, alarm).await;
    }

    /// Waits until the end of a segment, or of the run where that is given up.
    async fn wait(&self, end: Instant, alarm: &mut Alarm) {
        while Instant::now() < end && !self.progress.is_over() {
            let _ = alarm.until(end.min(Instant::now() + LOOK_UP)).await;
        }
    }

    /// Waits for what is in flight; what does not come within the drain time counts as unanswered.
    async fn drain(&self) {
        if self.progress.is_over() {
            return;
        }
        let limit = tokio::time::Instant::now() + self.setup.drain;
        loop {
            let answered = self.answered.notified();
            if self.lock().in_flight.is_empty() {
                return;
            }
            if tokio::time::timeout_at(limit, answered).await.is_err() {
                break;
            }
        }
        let mut state = self.lock();
        let failure = Failure {
            code: "UNANSWERED",
            reason: "",
            message: "no answer within the drain time after the load had ended (--drain)",
        };
        let keys: Vec<usize> = state.in_flight.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.fail(&mut state, key, failure);
        }
    }

    /// Documents per call.
    pub(super) fn call_size(&self) -> usize {
        if self.setup.mode == Mode::Batch {
            self.setup.batch
        } else {
            1
        }
    }

    /// A caller of the closed loop sends its next request: a whole batch where documents travel in batches.
    pub(super) fn call_again(self: &Arc<Self>, state: &mut State, now: Instant) {
        let Some(closed) = state.closed.filter(|closed| now < closed.until) else {
            return;
        };
        let count = self.call_size();
        if state.in_flight.len() + count > closed.callers {
            return;
        }
        for _ in 0..count {
            self.send(state, closed.segment, now, now, false);
        }
    }

    pub(super) fn call_later(self: &Arc<Self>, state: &State) {
        if state.closed.is_some() {
            let worker = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                worker.call_again(&mut worker.lock(), Instant::now());
            });
        }
    }
}
