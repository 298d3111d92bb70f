//! A request's way through the service: when it was where, and what became of it.

use std::{
    cell::RefCell,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use muhurdar_xades::DocumentType;
use uuid::Uuid;

use super::{Method, Origin, Recorder, otlp::Parent};
use crate::config::Priority;

/// Steps that are kept of one journey. A seal that is counter-signed has two more than others, one whose token errs twice
/// another two.
const MOST: usize = 12;

tokio::task_local! {
    /// The request that this task is about.
    static JOURNEY: Journey;
}

/// What a request goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its rights, limits and quotas are looked at.
    Admit,
    /// It waits for its turn.
    Queue,
    /// It is canonicalized and digested, with the wait for a thread.
    Digest,
    /// It waits for a lane, and is signed.
    Sign,
    /// The value is checked with the certificate's public key.
    Check,
    /// The seal is put into the document, and the file digested.
    Splice,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Queue => "queue",
            Self::Digest => "digest",
            Self::Sign => "sign",
            Self::Check => "check",
            Self::Splice => "splice",
        }
    }
}

/// One step that is behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) step: Step,
    /// Since the journey began.
    pub(super) at: Duration,
    pub(super) took: Duration,
}

/// What is known of a request without looking into it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) client: Option<Arc<str>>,
    pub(super) priority: Option<Priority>,
    pub(super) bytes: usize,
    pub(super) document: Option<DocumentType>,
    pub(super) token: Option<Arc<str>>,
    /// `sealed`, or a reason of the error table. None where its caller went away.
    pub(super) outcome: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Notes {
    steps: [Option<Passed>; MOST],
    count: usize,
    facts: Facts,
}

/// A request on its way. However it ends, it is recorded when it is dropped.
#[derive(Debug)]
pub(crate) struct Journey {
    recorder: Arc<Recorder>,
    origin: Origin,
    id: Uuid,
    begun: Instant,
    notes: RefCell<Notes>,
}

/// A journey that is over.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) id: Uuid,
    pub(super) method: Method,
    pub(super) parent: Option<&'a Parent>,
    pub(super) took: Duration,
    pub(super) steps: &'a [Option<Passed>],
    pub(super) facts: &'a Facts,
}

impl Journey {
    pub(super) fn begin(recorder: Arc<Recorder>, origin: Origin) -> Self {
        Self {
            recorder,
            origin,
            id: Uuid::now_v7(),
            begun: Instant::now(),
            notes: RefCell::default(),
        }
    }

    /// Goes on with this work, and ends with it.
    pub(crate) fn follow<T>(self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        JOURNEY.scope(self, work)
    }

    fn passed(&self, step: Step, since: Instant, took: Duration) {
        let notes = &mut *self.notes.borrow_mut();
        if let Some(free) = notes.steps.get_mut(notes.count) {
            *free = Some(Passed {
                step,
                at: since.saturating_duration_since(self.begun),
                took,
            });
            notes.count += 1;
        }
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        let notes = &*self.notes.borrow();
        self.recorder.record(&Ended {
            id: self.id,
            method: self.origin.method,
            parent: self.origin.parent.as_ref(),
            took: self.begun.elapsed(),
            steps: &notes.steps[..notes.count],
            facts: &notes.facts,
        });
    }
}

impl Ended<'_> {
    /// The time of a step, all times that it was passed.
    pub(super) fn time(&self, step: Step) -> Duration {
        let passed = self.steps.iter().flatten().filter(|passed| passed.step == step);
        passed.map(|passed| passed.took).sum()
    }
}

/// Notes the time until it is dropped as a step of the request that this task is about, if it is about one.
#[derive(Debug)]
#[must_use = "it notes the time until it is dropped"]
pub(crate) struct Stepping {
    step: Step,
    since: Instant,
}

impl Drop for Stepping {
    fn drop(&mut self) {
        passed(self.step, self.since, self.since.elapsed());
    }
}

/// A step begins.
pub(crate) fn step(step: Step) -> Stepping {
    let since = Instant::now();
    Stepping { step, since }
}

/// A step that somebody else has timed.
pub(crate) fn passed(step: Step, since: Instant, took: Duration) {
    // Not every task is about a request.
    let _ = JOURNEY.try_with(|journey| journey.passed(step, since, took));
}

fn note(write: impl FnOnce(&mut Facts)) {
    let _ = JOURNEY.try_with(|journey| write(&mut journey.notes.borrow_mut().facts));
}

/// Somebody stands at the door.
pub(crate) fn admitting(client: &Arc<str>, priority: Priority, bytes: usize) {
    note(|facts| {
        facts.client = Some(Arc::clone(client));
        facts.priority = Some(priority);
        facts.bytes = bytes;
    });
}

/// A document was sealed, or a digest signed.
pub(crate) fn sealed(document: Option<DocumentType>, token: &Arc<str>) {
    note(|facts| {
        facts.document = document;
        facts.token = Some(Arc::clone(token));
    });
}

/// What became of it.
pub(crate) fn ended(outcome: &'static str) {
    note(|facts| facts.outcome = Some(outcome));
}

/// Where the request comes from that this task is about.
pub(super) fn peer() -> Option<Arc<str>> {
    JOURNEY.try_with(|journey| journey.origin.peer.clone()).ok().flatten()
}

/// The id of the request that this task is about: in its log lines, and of its receipt.
pub(crate) fn request_id() -> Uuid {
    JOURNEY
        .try_with(|journey| journey.id)
        .unwrap_or_else(|_| Uuid::now_v7())
}
