//! Sends what the plan asks for and takes the answers.
//!
//! What comes in: a [`Target`], branches, a workload and a plan. What goes out: what was recorded, and the answers that
//! were sampled for verification. The **conductor** leads the **workers** through the plan; a worker is one thread, here or at an agent, with its
//! own connections, its own generator and its own recorder. Nothing is shared between workers but counters for the progress line. This room
//! decides *nothing* about when (the plan does) and judges no answer beyond sealed or refused.
//!
//! One thread is enough for more than an HSM carries; more are for machines where the harness is alone.

mod alarm;
mod conductor;
mod connection;
mod crew;
mod lane;
mod office;
mod wire;
mod worker;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{AnswerKind, Priority, SealResponse};

pub use self::connection::ConnectError;
pub(crate) use self::{conductor::Driver, connection::Connection, crew::Crew, worker::Finished};
use crate::{
    generator::{Document, Workload},
    plan::{Load, Segment},
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
    /// `SignDigest`: documents are prepared here and stay here, only digests travel.
    HashOnly,
}

impl Mode {
    /// As the command line and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Unary => "unary",
            Self::Batch => "batch",
            Self::HashOnly => "hash-only",
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
    pub answer: AnswerKind,
    /// Connections per branch and worker.
    pub connections: usize,
    /// Streams per connection in [`Mode::Stream`].
    pub streams: usize,
    /// Documents per batch in [`Mode::Batch`].
    pub batch: usize,
    /// Threads, here or at each agent.
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
    /// What came back; or why no seal can be made of it.
    pub answer: Result<SealResponse, String>,
}

/// Which of a run's workers one is: together they make the plan's schedule and number its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Part {
    pub(crate) first: usize,
    pub(crate) of: usize,
}

/// What the run has done so far, for a progress line.
#[derive(Debug, Default)]
pub struct Progress {
    sealed: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
    over: AtomicBool,
}

impl Progress {
    /// Gives the run up: nothing more is sent.
    pub(crate) fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, sealed: u64, failed: u64, in_flight: u64) {
        self.sealed.store(sealed, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }

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
    /// Workers, everywhere.
    pub(crate) workers: usize,
    /// What each agent saw; empty where there was none.
    pub(crate) agents: Vec<(String, Recorder)>,
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
    /// A taxpayer's certificate, which hash-only needs, cannot be used.
    #[error("the certificate of taxpayer {0}: {1}")]
    Certificate(String, String),
    /// An agent said that it cannot go on, or went away.
    #[error("agent {0}: {1}")]
    Agent(String, String),
    /// The workers went away, which is a bug of the harness.
    #[error("a worker of the harness ended before its time")]
    Gone,
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// What the conductor tells a worker: segments that follow each other without a pause.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) first: usize,
    pub(crate) segments: Vec<(Load, Duration)>,
    pub(crate) start: Instant,
}

/// What a recorder must know of the plan.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Frame {
    /// Which segments count.
    pub(crate) measured: Vec<bool>,
    /// How long the run is, with the wait for the last answers.
    pub(crate) length: Duration,
}

/// What a worker, or an agent for all of its own, tells the conductor.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(Result<(), DriveError>),
    /// Seals, failures, in flight so far, at the agent of this number.
    Progress(usize, [u64; 3]),
    /// A stretch is over and answered. Seals in time by segment of the stretch.
    Done(Vec<u64>),
    /// All that was seen, by the agent of this number if by one.
    Finished(Option<usize>, Box<Finished>),
    /// The agent of this number is gone, or says why it cannot go on.
    Lost(usize, String),
}
