//! One thread of load. `pace` keeps the schedule, `outbound` sends, `inbound` records what comes back; here is what they share, and
//! the life of the thread.

mod inbound;
mod outbound;
mod pace;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use muhurdar_proto::seal::v1::SealResponse;
use muhurdar_xades::Prepared;
use slab::Slab;
use tokio::sync::{Notify, mpsc};

use super::{
    ConnectError, Connection, DriveError, Event, Mode, Part, Progress, Sample, Setup, Stretch,
    alarm::Alarm,
    lane,
    office::{self, Office},
    wire::{Manner, Outgoing},
};
use crate::{
    generator::{Document, Generator},
    machine,
    recorder::Recorder,
};

/// What a worker leaves behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) recorder: Recorder,
    pub(crate) samples: Vec<Sample>,
    pub(crate) samples_dropped: u64,
}

impl Finished {
    /// Adds what another saw of the same plan.
    pub(crate) fn merge(&mut self, other: Self) {
        self.recorder.merge(&other.recorder);
        self.samples.extend(other.samples);
        self.samples_dropped += other.samples_dropped;
    }
}

/// An answer kept for verification, as it came.
struct Kept {
    document: Document,
    answer: SealResponse,
    prepared: Option<Box<Prepared>>,
}

impl Kept {
    /// The load is over: there is time to put a seal together that the service has not seen whole.
    fn sample(self) -> Sample {
        Sample {
            document: self.document,
            answer: match self.prepared {
                Some(prepared) => office::completed(*prepared, self.answer),
                None => Ok(self.answer),
            },
        }
    }
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
    /// Where the document stayed here and its answer will be verified: what the answer completes.
    prepared: Option<Box<Prepared>>,
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
    kept: Vec<Kept>,
    sample_bytes: usize,
    samples_dropped: u64,
    stopping: bool,
}

/// One thread's load. All its tasks run on that thread: the lock is never waited for.
pub(super) struct Worker {
    setup: Setup,
    /// Which of the run's workers this is.
    part: Part,
    office: Office,
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
    part: Part,
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
        let (worker, mut alarm) = match start(part, setup, recorder, progress).await {
            Ok(started) => started,
            Err(error) => {
                let _ = report.send(Event::Connected(Err(error)));
                return;
            }
        };
        let _ = report.send(Event::Connected(Ok(())));
        while let Some(stretch) = orders.recv().await {
            let sealed = worker.stretch(&stretch, &mut alarm).await;
            let _ = report.send(Event::Done(sealed));
        }
        let mut state = worker.lock();
        state.stopping = true;
        for lane in &mut state.lanes {
            lane.requests = None;
        }
        let kept = std::mem::take(&mut state.kept);
        let finished = Finished {
            recorder: state.recorder.clone(),
            samples: kept.into_iter().map(Kept::sample).collect(),
            samples_dropped: state.samples_dropped,
        };
        let _ = report.send(Event::Finished(None, Box::new(finished)));
    });
}

async fn start(
    part: Part,
    setup: Setup,
    recorder: Recorder,
    progress: Arc<Progress>,
) -> Result<(Arc<Worker>, Alarm), DriveError> {
    let alarm = Alarm::new()?;
    let office = match setup.mode {
        Mode::HashOnly => Office::new(setup.workload.taxpayers.taxpayers())?,
        _ => Office::default(),
    };
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
        generator: Generator::new(setup.workload.clone(), part.first, part.of),
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
        kept: Vec::new(),
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
        part,
        office,
        capacity: (setup.max_in_flight / part.of).max(1),
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

    pub(super) fn streams(&self) -> usize {
        self.setup.streams
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
}
