//! Prometheus metrics.
//!
//! Labels are bounded: an outcome is a reason of the error table, a document is one of the nine types. Child metrics are
//! looked up once and held.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use muhurdar_pool::Pool;
use muhurdar_xades::DocumentType;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use super::snapshot::snapshot;
use crate::{
    admission::{Access, Door, Gate, Meters},
    config::Priority,
    refusal::Refusal,
    seals::Seals,
    server::{Facts, NoHandshake},
    trace::{self, Step},
};

/// A step that a document takes.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Stage {
    /// Canonicalize and digest, with the wait for a thread.
    Digest,
    /// Wait for a lane, and sign.
    Sign,
    /// Check the value with the certificate's public key.
    Check,
    /// Put the seal into the document, and digest the file.
    Splice,
}

const STAGES: [Stage; 4] = [Stage::Digest, Stage::Sign, Stage::Check, Stage::Splice];

impl Stage {
    /// The same in a trace.
    fn step(self) -> Step {
        match self {
            Self::Digest => Step::Digest,
            Self::Sign => Step::Sign,
            Self::Check => Step::Check,
            Self::Splice => Step::Splice,
        }
    }
}

/// Seconds; from a small document's digest to a request that waited for a token's recovery.
const STAGE_BUCKETS: [f64; 13] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0,
];

/// Seconds; fine enough that a percentile between two of them is off by a quarter at most.
const REQUEST_BUCKETS: [f64; 24] = [
    0.000_5, 0.000_75, 0.001, 0.001_5, 0.002, 0.003, 0.005, 0.007_5, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Documents; up to the most that a digest thread takes at a time.
const BATCH_BUCKETS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0];

/// The `document` label where nobody knows.
const UNKNOWN: &str = "unknown";

/// How a reload ended.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(crate) enum Reload {
    /// The new configuration holds.
    TakenOver,
    /// It is the old one.
    Unchanged,
    /// Something is wrong with it.
    Refused,
}

const RELOADS: [&str; 3] = ["taken_over", "unchanged", "refused"];

/// The service's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// In the order of [`DocumentType::ALL`].
    sealed: [IntCounter; DocumentType::ALL.len()],
    pub(super) seals: IntCounterVec,
    pub(super) requests: [Histogram; Priority::ALL.len()],
    answered_again: IntCounter,
    reloads: [IntCounter; RELOADS.len()],
    stages: [Histogram; STAGES.len()],
    digest_batches: Histogram,
    /// In the order of [`NoHandshake::ALL`].
    handshakes_failed: [IntCounter; NoHandshake::ALL.len()],
    door: Arc<Meters>,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Only where two metrics had the same name, which a test would show.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let seals = register(
            &registry,
            IntCounterVec::new(
                Opts::new("muhurdar_seals_total", "Documents answered"),
                &["outcome", "document"],
            )?,
        )?;
        let stages = register(
            &registry,
            HistogramVec::new(
                HistogramOpts::new("muhurdar_stage_seconds", "Time of a document in each stage")
                    .buckets(STAGE_BUCKETS.to_vec()),
                &["stage"],
            )?,
        )?;
        let requests = register(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "muhurdar_request_seconds",
                    "Time from a document's arrival to its seal, where it was sealed",
                )
                .buckets(REQUEST_BUCKETS.to_vec()),
                &["priority"],
            )?,
        )?;
        let reloads = register(
            &registry,
            IntCounterVec::new(
                Opts::new("muhurdar_reloads_total", "Times that the configuration was read again"),
                &["outcome"],
            )?,
        )?;
        let handshakes_failed = register(
            &registry,
            IntCounterVec::new(
                Opts::new(
                    "muhurdar_handshakes_failed_total",
                    "Connections that came to no call: the TLS handshake failed, or there was no place",
                ),
                &["reason"],
            )?,
        )?;
        let metrics = Self {
            sealed: DocumentType::ALL.map(|document| seals.with_label_values(&["sealed", document.id()])),
            answered_again: register(
                &registry,
                IntCounter::new(
                    "muhurdar_answered_again_total",
                    "Requests answered with what their idempotency key was answered before",
                )?,
            )?,
            reloads: RELOADS.map(|outcome| reloads.with_label_values(&[outcome])),
            requests: Priority::ALL.map(|priority| requests.with_label_values(&[priority.name()])),
            stages: STAGES.map(|stage| stages.with_label_values(&[stage.step().name()])),
            digest_batches: register(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "muhurdar_digest_batch_documents",
                        "Pieces of work on large documents that a digest thread took at a time",
                    )
                    .buckets(BATCH_BUCKETS.to_vec()),
                )?,
            )?,
            handshakes_failed: NoHandshake::ALL.map(|kind| handshakes_failed.with_label_values(&[kind.name()])),
            door: Arc::new(Meters::register(&registry)?),
            seals,
            registry,
        };
        metrics.begin_at_zero();
        metrics.register_process()?;
        Ok(Arc::new(metrics))
    }

    /// Every outcome of every document is there from the start: `rate` and `increase` do not see a counter's first event where
    /// the counter begins with it.
    fn begin_at_zero(&self) {
        let documents = DocumentType::ALL.map(DocumentType::id).into_iter().chain([UNKNOWN]);
        for document in documents {
            for outcome in ["sealed"].iter().chain(&Refusal::REASONS) {
                drop(self.seals.with_label_values(&[outcome, document]));
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn register_process(&self) -> Result<(), prometheus::Error> {
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
    }

    #[cfg(not(target_os = "linux"))]
    fn register_process(&self) -> Result<(), prometheus::Error> {
        Ok(())
    }

    pub(crate) fn sealed(&self, document: Option<DocumentType>) {
        match DocumentType::ALL.iter().position(|known| Some(*known) == document) {
            Some(index) => self.sealed[index].inc(),
            None => self.seals.with_label_values(&["sealed", UNKNOWN]).inc(),
        }
    }

    /// How long a sealed document took, from its arrival to its seal.
    pub(crate) fn took(&self, priority: Priority, time: Duration) {
        self.requests[priority as usize].observe(time.as_secs_f64());
    }

    pub(crate) fn reloaded(&self, outcome: Reload) {
        self.reloads[outcome as usize].inc();
    }

    /// A connection that came to nothing.
    pub(crate) fn handshake_failed(&self, kind: NoHandshake) {
        self.handshakes_failed[kind as usize].inc();
    }

    /// An answer that was given before.
    pub(crate) fn answered_again(&self) {
        self.answered_again.inc();
    }

    pub(crate) fn refused(&self, refusal: &Refusal, expected: Option<DocumentType>) {
        let document = expected.map_or(UNKNOWN, DocumentType::id);
        self.seals.with_label_values(&[refusal.reason(), document]).inc();
    }

    /// The door's own.
    pub(crate) fn door(&self) -> Arc<Meters> {
        Arc::clone(&self.door)
    }

    /// What the digest threads observe.
    pub(crate) fn digest_batches(&self) -> &Histogram {
        &self.digest_batches
    }

    pub(crate) fn time(&self, stage: Stage) -> Timer<'_> {
        Timer {
            histogram: &self.stages[stage as usize],
            step: stage.step(),
            since: Instant::now(),
        }
    }

    /// The text exposition: what is counted here, and what is so now.
    #[must_use]
    pub(crate) fn expose(
        &self,
        gate: &Gate,
        door: &Door,
        access: &Access,
        pool: &Pool,
        seals: &Seals,
        facts: &Facts,
    ) -> String {
        door.observe();
        let mut families = self.registry.gather();
        families.extend(snapshot(gate, access, pool, seals, facts));
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

/// Observes the time of a stage when it is dropped.
#[derive(Debug)]
pub(crate) struct Timer<'a> {
    histogram: &'a Histogram,
    step: Step,
    since: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.histogram.observe(took.as_secs_f64());
        trace::passed(self.step, self.since, took);
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_under_a_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics.sealed(Some(DocumentType::Invoice));
        metrics.refused(&Refusal::Draining, None);
        let names: Vec<_> = metrics.registry.gather().iter().map(|f| f.name().to_owned()).collect();
        assert!(names.contains(&"muhurdar_seals_total".to_owned()), "{names:?}");
    }
}
