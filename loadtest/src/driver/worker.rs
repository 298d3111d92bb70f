//! One thread of load: it keeps the schedule, sends, and records what comes back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{SealResponse, seal_response};
use slab::Slab;
use tokio::sync::{Notify, mpsc};

use super::{
    ConnectError, Connection, DriveError, Event, Mode, Progress, Sample, Setup, Stretch,
    alarm::Alarm,
    lane,
    wire::{Manner, Outgoing},
};
use crate::{
    generator::{Document, Generator},
    machine,
    plan::{Arrivals, Load},
    recorder::{Failure, Outcome, Recorder},
};

/// Overdue requests that are sent before the answers get their turn.
const BURST: usize = 32;
/// A closed loop waits so long after a failure before its caller tries again, as callers do.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// What a worker leaves behind.
pub(super) struct Finished {
    pub(super) recorder: Recorder,
    pub(super) samples: Vec<Sample>,
    pub(super) samples_dropped: u64,
}

/// A request that has not been answered yet.
struct InFlight {
    /// Tells a late answer from the answer to a later request in the same place.
    serial: u32,
    segment: usize,
    branch: usize,
    lane: usize,
    intended: Instant,
    sent: Instant,
    sampled: bool,
    document: Document,
}

/// Where requests of a branch go.
struct LaneState {
    branch: usize,
    /// None while there is no connection.
    requests: Option<mpsc::UnboundedSender<Parcel>>,
}

/// What goes to a lane: a message, and which requests are in it.
pub(super) struct Parcel {
    pub(super) message: Outgoing,
    pub(super) tickets: Vec<u64>,
}

/// The closed loop that is running.
#[derive(Clone, Copy)]
struct Closed {
    segment: usize,
    until: Instant,
    /// The most requests of this loop in flight.
    callers: usize,
}

struct State {
    generator: Generator,
    recorder: Recorder,
    in_flight: Slab<InFlight>,
    serial: u32,
    lanes: Vec<LaneState>,
    next_lane: usize,
    /// Documents of each branch that wait for their batch to fill.
    batches: Vec<Vec<u64>>,
    closed: Option<Closed>,
    samples: Vec<Sample>,
    sample_bytes: usize,
    samples_dropped: u64,
    stopping: bool,
}

/// One thread's load. All its tasks run on that thread: the lock is never waited for.
pub(super) struct Worker {
    setup: Setup,
    manners: Vec<Manner>,
    /// Running sum of the branches' shares, ending at 1.
    shares: Vec<f64>,
    capacity: usize,
    state: Mutex<State>,
    progress: Arc<Progress>,
    answered: Notify,
}

/// The life of a worker thread.
pub(super) fn run(
    index: usize,
    setup: Setup,
    recorder: Recorder,
    progress: Arc<Progress>,
    mut orders: mpsc::UnboundedReceiver<Stretch>,
    report: &std::sync::mpsc::Sender<Event>,
) {
    machine::ask_for_priority();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = report.send(Event::Connected(Err(error.into())));
            return;
        }
    };
    runtime.block_on(async {
        let (worker, mut alarm) = match start(index, setup, recorder, progress).await {
            Ok(started) => started,
            Err(error) => {
                let _ = report.send(Event::Connected(Err(error)));
                return;
            }
        };
        let _ = report.send(Event::Connected(Ok(())));
        while let Some(stretch) = orders.recv().await {
            let sealed = worker.stretch(&stretch, index, &mut alarm).await;
            let _ = report.send(Event::Done(sealed));
        }
        let mut state = worker.lock();
        state.stopping = true;
        for lane in &mut state.lanes {
            lane.requests = None;
        }
        let finished = Finished {
            recorder: state.recorder.clone(),
            samples: std::mem::take(&mut state.samples),
            samples_dropped: state.samples_dropped,
        };
        let _ = report.send(Event::Finished(Box::new(finished)));
    });
}

async fn start(
    index: usize,
    setup: Setup,
    recorder: Recorder,
    progress: Arc<Progress>,
) -> Result<(Arc<Worker>, Alarm), DriveError> {
    let alarm = Alarm::new()?;
    let total: f64 = setup.branches.iter().map(|branch| branch.share).sum();
    let mut upto = 0.0;
    let mut shares = Vec::new();
    for branch in &setup.branches {
        upto += branch.share / total;
        shares.push(upto);
    }
    let branch_of: Vec<usize> = (0..setup.branches.len())
        .flat_map(|b| vec![b; setup.connections])
        .collect();
    let state = State {
        generator: Generator::new(setup.workload.clone(), index, setup.workers),
        recorder,
        in_flight: Slab::with_capacity(1024),
        serial: 0,
        lanes: branch_of
            .iter()
            .map(|branch| LaneState {
                branch: *branch,
                requests: None,
            })
            .collect(),
        next_lane: 0,
        batches: vec![Vec::new(); setup.branches.len()],
        closed: None,
        samples: Vec::new(),
        sample_bytes: 0,
        samples_dropped: 0,
        stopping: false,
    };
    let worker = Arc::new(Worker {
        manners: setup
            .branches
            .iter()
            .map(|b| Manner {
                priority: b.priority,
                answer: setup.answer,
            })
            .collect(),
        shares,
        capacity: (setup.max_in_flight / setup.workers).max(1),
        state: Mutex::new(state),
        progress,
        answered: Notify::new(),
        setup,
    });
    for (lane, branch) in branch_of.into_iter().enumerate() {
        let tls = worker.setup.target.tls(&worker.setup.branches[branch].identity)?;
        let first = worker.connect(&tls).await?;
        tokio::spawn(lane::run(worker.clone(), lane, tls, first));
    }
    // The lanes register themselves on their first turn.
    while worker.lock().lanes.iter().any(|lane| lane.requests.is_none()) {
        tokio::task::yield_now().await;
    }
    Ok((worker, alarm))
}

impl Worker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no task of a worker panics while it holds the state")
    }

    pub(super) async fn connect(&self, tls: &Arc<rustls::ClientConfig>) -> Result<lane::Open, ConnectError> {
        Connection::open(&self.setup.target, tls.clone()).await
    }

    pub(super) fn mode(&self) -> Mode {
        self.setup.mode
    }

    pub(super) fn origin(&self) -> http::Uri {
        http::Uri::builder()
            .scheme("https")
            .authority(self.setup.target.authority())
            .path_and_query("/")
            .build()
            .expect("an authority that was parsed makes a URI")
    }

    pub(super) fn stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Runs segments that follow each other, waits for their answers, and says how many seals each got in time.
    async fn stretch(self: &Arc<Self>, stretch: &Stretch, index: usize, alarm: &mut Alarm) -> Vec<u64> {
        let mut start = stretch.start;
        if stretch.first == 0 {
            // The clock of the report begins with the load, not with the handshakes.
            self.lock().recorder.origin = start;
        }
        for (nth, (load, duration)) in stretch.segments.iter().enumerate() {
            let segment = stretch.first + nth;
            let end = start + *duration;
            let (cpu, waited) = (machine::thread_cpu(), machine::thread_waited());
            {
                let record = &mut self.lock().recorder.segments[segment];
                (record.started, record.ended) = (Some(start), Some(end));
            }
            match load {
                Load::Closed { concurrency } => self.closed(segment, *concurrency, index, end, alarm).await,
                Load::Open(arrivals) => self.open(segment, arrivals, start, *duration, index, alarm).await,
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

    async fn closed(
        self: &Arc<Self>,
        segment: usize,
        concurrency: usize,
        index: usize,
        end: Instant,
        alarm: &mut Alarm,
    ) {
        {
            let mut state = self.lock();
            let workers = self.setup.workers;
            let calls = concurrency / workers + usize::from(index < concurrency % workers);
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
        while Instant::now() < end {
            let _ = alarm.until(end).await;
        }
        self.lock().closed = None;
    }

    async fn open(
        self: &Arc<Self>,
        segment: usize,
        arrivals: &Arrivals,
        start: Instant,
        duration: Duration,
        index: usize,
        alarm: &mut Alarm,
    ) {
        let mut burst = 0;
        for offset in arrivals.schedule(duration, index, self.setup.workers, self.setup.workload.seed) {
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
        while Instant::now() < end {
            let _ = alarm.until(end).await;
        }
    }

    /// Waits for what is in flight; what does not come within the drain time counts as unanswered.
    async fn drain(&self) {
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
        let keys: VecDeque<usize> = state.in_flight.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.fail(&mut state, key, failure);
        }
    }

    /// Documents per call.
    fn call_size(&self) -> usize {
        if self.setup.mode == Mode::Batch {
            self.setup.batch
        } else {
            1
        }
    }

    /// A caller of the closed loop sends its next request: a whole batch where documents travel in batches.
    fn call_again(self: &Arc<Self>, state: &mut State, now: Instant) {
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

    /// Sends one request, or counts it as missed.
    fn send(&self, state: &mut State, segment: usize, intended: Instant, now: Instant, open: bool) {
        let branch = match self.shares.len() {
            1 => 0,
            count => {
                let at = state.generator.chance();
                self.shares.partition_point(|upto| *upto <= at).min(count - 1)
            }
        };
        state.recorder.offered(segment, branch, intended, now, open);
        if open && state.in_flight.len() >= self.capacity {
            state.recorder.missed(segment, branch, intended);
            self.progress.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let sampled = match self.setup.sample {
            share if share <= 0.0 => false,
            share if share >= 1.0 => true,
            share => state.generator.chance() < share,
        };
        let document = state.generator.document();
        state.serial = state.serial.wrapping_add(1);
        let request = InFlight {
            serial: state.serial,
            segment,
            branch,
            lane: usize::MAX,
            intended,
            sent: now,
            sampled,
            document,
        };
        let key = state.in_flight.insert(request);
        self.progress.in_flight.fetch_add(1, Ordering::Relaxed);
        let ticket = (key as u64) << 32 | u64::from(state.serial);
        if self.setup.mode == Mode::Batch {
            state.batches[branch].push(ticket);
            if state.batches[branch].len() >= self.setup.batch {
                self.flush(state, branch);
            }
        } else {
            self.dispatch(state, branch, vec![ticket]);
        }
    }

    /// Sends what a branch's batch holds.
    fn flush(&self, state: &mut State, branch: usize) {
        let tickets = std::mem::take(&mut state.batches[branch]);
        if !tickets.is_empty() {
            self.dispatch(state, branch, tickets);
        }
    }

    fn dispatch(&self, state: &mut State, branch: usize, tickets: Vec<u64>) {
        let lanes = state.lanes.len();
        let found = (0..lanes)
            .map(|step| (state.next_lane + step) % lanes)
            .find(|lane| state.lanes[*lane].branch == branch && state.lanes[*lane].requests.is_some());
        let Some(lane) = found else {
            let failure = Failure {
                code: "UNAVAILABLE",
                reason: "CONNECTION",
                message: "no connection to the service",
            };
            for ticket in tickets {
                self.fail(state, (ticket >> 32) as usize, failure);
            }
            return;
        };
        state.next_lane = (lane + 1) % lanes;
        let manner = self.manners[branch];
        let mut documents = Vec::new();
        for ticket in &tickets {
            let request = &mut state.in_flight[(ticket >> 32) as usize];
            request.lane = lane;
            documents.push(request.document.clone());
        }
        let message = match self.setup.mode {
            Mode::Batch => Outgoing::Batch(manner, documents),
            mode => {
                let document = documents.pop().expect("a ticket that is no batch has one document");
                if mode == Mode::Stream {
                    Outgoing::Item(tickets[0], manner, document)
                } else {
                    Outgoing::One(manner, document)
                }
            }
        };
        if let Some(requests) = &state.lanes[lane].requests {
            // A lane that ends takes its requests back in `lane_down`.
            let _ = requests.send(Parcel { message, tickets });
        }
    }

    /// A lane has a connection.
    pub(super) fn lane_up(&self, lane: usize, requests: mpsc::UnboundedSender<Parcel>) {
        let mut state = self.lock();
        if !state.stopping {
            state.lanes[lane].requests = Some(requests);
        }
    }

    /// A lane lost its connection: what it carried failed.
    pub(super) fn lane_down(self: &Arc<Self>, lane: usize, message: &str) {
        let mut state = self.lock();
        state.lanes[lane].requests = None;
        let keys: Vec<usize> = state
            .in_flight
            .iter()
            .filter(|(_, request)| request.lane == lane)
            .map(|(key, _)| key)
            .collect();
        let failure = Failure {
            code: "UNAVAILABLE",
            reason: "CONNECTION",
            message,
        };
        for key in keys {
            self.fail(&mut state, key, failure);
            self.call_later(&state);
        }
    }

    /// The connection takes these requests now.
    pub(super) fn handed_over(&self, tickets: &[u64]) {
        let now = Instant::now();
        let mut state = self.lock();
        for ticket in tickets {
            if let Some(request) = state.in_flight.get_mut((ticket >> 32) as usize) {
                request.sent = now;
            }
        }
    }

    /// Answers to requests, in one go: a batch counts as one call of the closed loop.
    pub(super) fn answered<'a>(
        self: &Arc<Self>,
        answers: impl IntoIterator<Item = (u64, Result<SealResponse, Failure<'a>>)>,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut failed = false;
        for (ticket, answer) in answers {
            failed |= !self.settle(&mut state, ticket, answer, now);
        }
        if failed {
            self.call_later(&state);
        } else {
            self.call_again(&mut state, now);
        }
    }

    /// False where it was a failure.
    fn settle(&self, state: &mut State, ticket: u64, answer: Result<SealResponse, Failure<'_>>, now: Instant) -> bool {
        let key = (ticket >> 32) as usize;
        let known = state
            .in_flight
            .get(key)
            .is_some_and(|request| u64::from(request.serial) == ticket & 0xFFFF_FFFF);
        if !known {
            state.recorder.strays += 1;
            return true;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.fail(state, key, failure);
                return false;
            }
        };
        let request = self.take(state, key);
        let bytes = match &answer.result {
            Some(seal_response::Result::SealedDocument(document)) => document.len(),
            Some(seal_response::Result::Seal(seal)) => seal.replacement.len(),
            None => 0,
        };
        state.recorder.record(&Outcome {
            segment: request.segment,
            branch: request.branch,
            intended: request.intended,
            sent: request.sent,
            answered: now,
            request_bytes: request.document.len(),
            result: Ok(bytes),
        });
        self.progress.sealed.fetch_add(1, Ordering::Relaxed);
        if request.sampled {
            let weight = bytes + request.document.len() + 512;
            if state.sample_bytes + weight <= self.setup.sample_bytes / self.setup.workers {
                state.sample_bytes += weight;
                state.samples.push(Sample {
                    document: request.document,
                    answer: copied(answer),
                });
            } else {
                state.samples_dropped += 1;
            }
        }
        true
    }

    fn fail(&self, state: &mut State, key: usize, failure: Failure<'_>) {
        let request = self.take(state, key);
        state.recorder.record(&Outcome {
            segment: request.segment,
            branch: request.branch,
            intended: request.intended,
            sent: request.sent,
            answered: Instant::now(),
            request_bytes: request.document.len(),
            result: Err(failure),
        });
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self, state: &mut State, key: usize) -> InFlight {
        let request = state.in_flight.remove(key);
        self.progress.in_flight.fetch_sub(1, Ordering::Relaxed);
        if state.in_flight.is_empty() {
            self.answered.notify_one();
        }
        request
    }

    fn call_later(self: &Arc<Self>, state: &State) {
        if state.closed.is_some() {
            let worker = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                worker.call_again(&mut worker.lock(), Instant::now());
            });
        }
    }
}

/// An answer's fields are slices of large receive buffers: a kept answer must not keep those.
fn copied(mut answer: SealResponse) -> SealResponse {
    let copy = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    match &mut answer.result {
        Some(seal_response::Result::SealedDocument(document)) => copy(document),
        Some(seal_response::Result::Seal(seal)) => copy(&mut seal.replacement),
        None => {}
    }
    copy(&mut answer.signature_value);
    copy(&mut answer.sealed_document_sha256);
    if let Some(receipt) = &mut answer.receipt {
        copy(&mut receipt.certificate_sha256);
    }
    answer
}
