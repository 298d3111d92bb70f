//! What ops see of the door: who waits, how long, and who was turned away for what.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::quota::Bound;
use crate::{
    config::{Limits, Priority},
    refusal::Refusal,
};

/// Seconds; from no wait at all to a queue that is full.
const WAIT_BUCKETS: [f64; 12] = [
    0.000_1, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 25.0,
];

/// Why the door stayed shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Cause {
    /// The service drains.
    Draining,
    /// `limits.in_flight` or `limits.in_flight_bytes`.
    InFlight,
    /// The queue is full.
    QueueFull,
    /// It waited, and made room for somebody with more of a right to.
    PushedOut,
    /// Its turn would come after its deadline.
    TooLate,
    /// Its deadline passed.
    Expired,
    /// The client's documents a second.
    QuotaRate,
    /// The client's documents in flight.
    QuotaDocuments,
    /// The client's bytes in flight.
    QuotaBytes,
    /// The client's large documents in flight.
    QuotaLarge,
}

const CAUSES: [(Cause, &str); 10] = [
    (Cause::Draining, "draining"),
    (Cause::InFlight, "in_flight"),
    (Cause::QueueFull, "queue_full"),
    (Cause::PushedOut, "pushed_out"),
    (Cause::TooLate, "too_late"),
    (Cause::Expired, "expired"),
    (Cause::QuotaRate, "quota_rate"),
    (Cause::QuotaDocuments, "quota_documents"),
    (Cause::QuotaBytes, "quota_bytes"),
    (Cause::QuotaLarge, "quota_large"),
];

/// The door's metrics, by priority.
#[derive(Debug)]
pub struct Meters {
    waits: [Histogram; Priority::ALL.len()],
    depth: [IntGauge; Priority::ALL.len()],
    most: IntGauge,
    most_bytes: IntGauge,
    refusals: [[IntCounter; CAUSES.len()]; Priority::ALL.len()],
}

impl Meters {
    /// Registers them.
    ///
    /// # Errors
    /// Where one of that name is there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let waits = HistogramVec::new(
            HistogramOpts::new(
                "muhurdar_queue_wait_seconds",
                "How long documents waited for their turn",
            )
            .buckets(WAIT_BUCKETS.to_vec()),
            &["priority"],
        )?;
        let depth = IntGaugeVec::new(
            Opts::new("muhurdar_queue_documents", "Documents that wait for their turn"),
            &["priority"],
        )?;
        let most = IntGauge::new("muhurdar_queue_documents_limit", "limits.queue")?;
        let most_bytes = IntGauge::new("muhurdar_queue_bytes_limit", "limits.queue_bytes")?;
        registry.register(Box::new(most.clone()))?;
        registry.register(Box::new(most_bytes.clone()))?;
        let refusals = IntCounterVec::new(
            Opts::new(
                "muhurdar_admission_refusals_total",
                "Documents that were not admitted, or not for long enough",
            ),
            &["cause", "priority"],
        )?;
        registry.register(Box::new(waits.clone()))?;
        registry.register(Box::new(depth.clone()))?;
        registry.register(Box::new(refusals.clone()))?;
        Ok(Self {
            most,
            most_bytes,
            waits: Priority::ALL.map(|p| waits.with_label_values(&[p.name()])),
            depth: Priority::ALL.map(|p| depth.with_label_values(&[p.name()])),
            refusals: Priority::ALL.map(|p| CAUSES.map(|(_, cause)| refusals.with_label_values(&[cause, p.name()]))),
        })
    }

    pub(super) fn waited(&self, priority: Priority, seconds: f64) {
        self.waits[priority as usize].observe(seconds);
    }

    pub(super) fn depth(&self, priority: Priority, documents: usize) {
        self.depth[priority as usize].set(i64::try_from(documents).unwrap_or(i64::MAX));
    }

    /// What may wait.
    pub(super) fn limits(&self, limits: &Limits) {
        self.most.set(i64::try_from(limits.queue).unwrap_or(i64::MAX));
        self.most_bytes
            .set(i64::try_from(limits.queue_bytes.as_u64()).unwrap_or(i64::MAX));
    }

    pub(super) fn turned_away(&self, priority: Priority, cause: Cause) {
        self.refusals[priority as usize][cause as usize].inc();
    }

    /// Counts a refusal by the gate or by a quota.
    pub(super) fn refused(&self, priority: Priority, refusal: &Refusal) {
        let cause = match refusal {
            Refusal::Draining => Cause::Draining,
            Refusal::Deadline(_) => Cause::Expired,
            Refusal::Quota { bound: Bound::Rate, .. } => Cause::QuotaRate,
            Refusal::Quota {
                bound: Bound::Documents,
                ..
            } => Cause::QuotaDocuments,
            Refusal::Quota {
                bound: Bound::Bytes, ..
            } => Cause::QuotaBytes,
            Refusal::Quota {
                bound: Bound::Large, ..
            } => Cause::QuotaLarge,
            _ => Cause::InFlight,
        };
        self.turned_away(priority, cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_and_priority_has_a_counter_of_its_own() {
        let meters = Meters::register(&Registry::new()).unwrap();
        for (index, (cause, _)) in CAUSES.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
            meters.turned_away(Priority::Bulk, cause);
        }
        assert!(meters.refusals[Priority::Bulk as usize].iter().all(|c| c.get() == 1));
        assert!(meters.refusals[Priority::Normal as usize].iter().all(|c| c.get() == 0));
    }
}
