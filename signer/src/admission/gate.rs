//! The gate: how much may be inside at a time, and whether it is still open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Arrivals, Unread};
use crate::{
    config::Limits,
    refusal::{Limit, Refusal, SOON},
};

/// Bytes beside the document in a request message.
pub(crate) const MESSAGE_OVERHEAD: usize = 64 << 10;

/// Counts what is admitted and unanswered, in documents and in bytes.
#[derive(Debug)]
pub struct Gate {
    documents: AtomicUsize,
    bytes: AtomicU64,
    calls: AtomicUsize,
    closed: AtomicBool,
    closing: CancellationToken,
    emptied: Notify,
    max_documents: AtomicUsize,
    max_bytes: AtomicU64,
    arrivals: Arrivals,
    unread: Unread,
    /// Nanoseconds.
    timeout: AtomicU64,
}

/// A request's share of the limits; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    bytes: u64,
    /// When the answer is worth nothing any more.
    pub deadline: Instant,
}

/// A call that is not answered yet: it is when this is dropped.
#[derive(Debug)]
pub struct Answering(Arc<Gate>);

impl Gate {
    /// A gate with the configured limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let message = limits.document.as_u64() + MESSAGE_OVERHEAD as u64;
        Arc::new(Self {
            documents: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            closing: CancellationToken::new(),
            emptied: Notify::new(),
            max_documents: AtomicUsize::new(limits.in_flight),
            max_bytes: AtomicU64::new(limits.in_flight_bytes.as_u64()),
            arrivals: Arrivals::new(limits.in_flight_bytes.as_u64(), message),
            unread: Unread::new(limits.in_flight_bytes.as_u64(), message),
            timeout: AtomicU64::new(nanoseconds(limits.request_timeout)),
        })
    }

    /// Takes over the limits of a new configuration.
    pub fn reconfigure(&self, limits: &Limits) {
        self.max_documents.store(limits.in_flight, Ordering::Relaxed);
        self.max_bytes.store(limits.in_flight_bytes.as_u64(), Ordering::Relaxed);
        self.arrivals.reconfigure(limits.in_flight_bytes.as_u64());
        self.unread.reconfigure(limits.in_flight_bytes.as_u64());
        self.timeout
            .store(nanoseconds(limits.request_timeout), Ordering::Relaxed);
    }

    /// Admits a document of `bytes` bytes, to be answered by `deadline` (or the configured time-out).
    ///
    /// # Errors
    /// DRAINING after [`Gate::close`], DEADLINE where it has passed, OVERLOADED where a limit is reached.
    pub fn admit(self: &Arc<Self>, bytes: usize, deadline: Option<Instant>) -> Result<Place, Refusal> {
        let now = Instant::now();
        let latest = now + Duration::from_nanos(self.timeout.load(Ordering::Relaxed));
        let deadline = deadline.map_or(latest, |d| d.min(latest));
        if deadline <= now {
            return Err(Refusal::Deadline("passed before the document was looked at"));
        }
        let bytes = bytes as u64;
        // Counted before the door is looked at: `drained` then cannot miss a request that came in beside `close`.
        let documents = self.documents.fetch_add(1, Ordering::SeqCst);
        let held = self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let admitted = Place {
            gate: Arc::clone(self),
            bytes,
            deadline,
        };
        if self.closed.load(Ordering::SeqCst) {
            return Err(Refusal::Draining);
        }
        let most = self.max_documents.load(Ordering::Relaxed);
        if documents >= most {
            return Err(overloaded(Limit::new("in_flight", most as u64, "documents in flight")));
        }
        let most = self.max_bytes.load(Ordering::Relaxed);
        if held.saturating_add(bytes) > most {
            return Err(overloaded(Limit::new("in_flight_bytes", most, "bytes in flight")));
        }
        Ok(admitted)
    }

    /// Counts a call, whatever it asks for, until its answer was written.
    #[must_use]
    pub fn call(self: &Arc<Self>) -> Answering {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Answering(Arc::clone(self))
    }

    /// Calls whose answers are not written yet.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Admits nothing from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.cancel();
    }

    /// Whether [`Gate::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until [`Gate::close`] is called.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// The same, for whoever stays with it.
    pub fn closing_owned(&self) -> WaitForCancellationFutureOwned {
        self.closing.clone().cancelled_owned()
    }

    /// Documents admitted and unanswered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.documents.load(Ordering::Relaxed)
    }

    /// Their bytes.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Documents that may be admitted and unanswered.
    #[must_use]
    pub fn most(&self) -> usize {
        self.max_documents.load(Ordering::Relaxed)
    }

    /// Bytes that they may have.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    /// What is on its way in, and may not be admitted yet.
    #[must_use]
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What was answered, and is not taken yet.
    #[must_use]
    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    /// Waits until nothing is admitted and unanswered. Meant for after [`Gate::close`].
    pub async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.documents.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.gate.documents.fetch_sub(1, Ordering::SeqCst) == 1 && self.gate.is_closed() {
            self.gate.emptied.notify_waiters();
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

fn overloaded(limit: Limit) -> Refusal {
    Refusal::Overloaded {
        limit,
        retry_after: SOON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(documents: usize, bytes: u64) -> Arc<Gate> {
        Gate::new(&Limits {
            in_flight: documents,
            in_flight_bytes: bytesize::ByteSize(bytes),
            ..Limits::default()
        })
    }

    #[test]
    fn what_is_refused_holds_no_share_of_the_limits() {
        let gate = gate(1, 100);
        let first = gate.admit(60, None).unwrap();
        assert!(matches!(gate.admit(1, None), Err(Refusal::Overloaded { .. })));
        drop(first);
        assert_eq!((gate.in_flight(), gate.in_flight_bytes()), (0, 0));
        assert!(matches!(gate.admit(101, None), Err(Refusal::Overloaded { .. })));
        assert!(gate.admit(100, None).is_ok());
    }

    #[test]
    fn a_deadline_that_has_passed_is_refused_at_once() {
        let past = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
        assert!(matches!(gate(1, 1).admit(1, Some(past)), Err(Refusal::Deadline(_))));
    }

    #[tokio::test]
    async fn a_closed_gate_admits_nothing_and_waits_for_what_is_inside() {
        let gate = gate(10, 100);
        let inside = gate.admit(1, None).unwrap();
        gate.close();
        assert!(matches!(gate.admit(1, None), Err(Refusal::Draining)));
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(inside);
        waiting.await.unwrap();
    }
}
