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
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::{
    admission::{Door, Gate, Meters},
    config::Priority,
    refusal::Refusal,
    seals::Seals,
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

/// The `document` label of each type.
const DOCUMENTS: [(DocumentType, &str); 9] = [
    (DocumentType::Invoice, "invoice"),
    (DocumentType::CreditNote, "credit_note"),
    (DocumentType::DespatchAdvice, "despatch_advice"),
    (DocumentType::ReceiptAdvice, "receipt_advice"),
    (DocumentType::ApplicationResponse, "application_response"),
    (DocumentType::EArsivReport, "earsiv_report"),
    (DocumentType::EDefterLedger, "edefter_ledger"),
    (DocumentType::EDefterBerat, "edefter_berat"),
    (DocumentType::UserAccount, "user_account"),
];

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
    /// In the order of [`DOCUMENTS`].
    sealed: [IntCounter; DOCUMENTS.len()],
    pub(super) seals: IntCounterVec,
    pub(super) requests: [Histogram; Priority::ALL.len()],
    answered_again: IntCounter,
    reloads: [IntCounter; RELOADS.len()],
    stages: [Histogram; STAGES.len()],
    digest_batches: Histogram,
    wrong_signatures: IntCounter,
    in_flight: IntGauge,
    in_flight_bytes: IntGauge,
    cpu: Gauge,
    token_cpu: Gauge,
    token_signatures: IntGauge,
    queued: IntGauge,
    lanes: IntGaugeVec,
    lane_cap: IntGaugeVec,
    token_ready: IntGaugeVec,
    expiry_days: GaugeVec,
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
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let metrics = Self {
            sealed: DOCUMENTS.map(|(_, label)| seals.with_label_values(&["sealed", label])),
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
            wrong_signatures: register(
                &registry,
                IntCounter::new(
                    "muhurdar_wrong_signatures_total",
                    "Signatures from a token that did not verify and were not released",
                )?,
            )?,
            in_flight: gauge("muhurdar_in_flight_documents", "Documents admitted and unanswered")?,
            in_flight_bytes: gauge("muhurdar_in_flight_bytes", "Bytes of documents admitted and unanswered")?,
            cpu: register(
                &registry,
                Gauge::new(
                    "muhurdar_cpu_seconds_total",
                    "CPU time of the process, user and system, token calls included",
                )?,
            )?,
            token_cpu: register(
                &registry,
                Gauge::new(
                    "muhurdar_token_cpu_seconds_total",
                    "CPU time of threads inside PKCS#11 calls",
                )?,
            )?,
            token_signatures: gauge(
                "muhurdar_token_signatures_total",
                "Signatures that tokens have returned",
            )?,
            lanes: gauges("muhurdar_lanes", "Lanes by token and state", &["token", "state"])?,
            lane_cap: gauges(
                "muhurdar_lane_cap",
                "Lanes that the token may have, and what limits them",
                &["token", "reason"],
            )?,
            token_ready: gauges("muhurdar_token_ready", "1 where the token can sign", &["token"])?,
            queued: gauge("muhurdar_queued_documents", "Documents that wait for a lane")?,
            expiry_days: register(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "muhurdar_seal_expiry_days",
                        "Days until the earliest expiry of a seal that can still seal",
                    ),
                    &["which"],
                )?,
            )?,
            door: Arc::new(Meters::register(&registry)?),
            seals,
            registry,
        };
        metrics.register_process()?;
        Ok(Arc::new(metrics))
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
        match DOCUMENTS.iter().position(|(known, _)| Some(*known) == document) {
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

    /// An answer that was given before.
    pub(crate) fn answered_again(&self) {
        self.answered_again.inc();
    }

    pub(crate) fn refused(&self, refusal: &Refusal, expected: Option<DocumentType>) {
        let known = DOCUMENTS.iter().find(|(known, _)| Some(*known) == expected);
        let document = known.map_or(UNKNOWN, |(_, label)| label);
        self.seals
            .with_label_values(&[refusal.reason().unwrap_or("UNAUTHENTICATED"), document])
            .inc();
    }

    /// The door's own.
    pub(crate) fn door(&self) -> Arc<Meters> {
        Arc::clone(&self.door)
    }

    /// What the digest threads observe.
    pub(crate) fn digest_batches(&self) -> &Histogram {
        &self.digest_batches
    }

    pub(crate) fn wrong_signature(&self) {
        self.wrong_signatures.inc();
    }

    pub(crate) fn time(&self, stage: Stage) -> Timer<'_> {
        Timer {
            histogram: &self.stages[stage as usize],
            step: stage.step(),
            since: Instant::now(),
        }
    }

    /// The text exposition, with the gauges as they are now.
    #[must_use]
    pub fn expose(&self, gate: &Gate, door: &Door, pool: &Pool, seals: &Seals) -> String {
        self.in_flight.set(gauge_value(gate.in_flight() as u64));
        self.in_flight_bytes.set(gauge_value(gate.in_flight_bytes()));
        door.observe();
        self.cpu.set(cpu_seconds());
        self.observe_pool(pool);
        let now = jiff::Timestamp::now();
        let usable = seals.iter().filter(|s| s.usable(now).is_ok());
        let soonest = usable
            .map(|s| s.certificate.not_after().duration_since(now).as_secs_f64())
            .reduce(f64::min);
        if let Some(seconds) = soonest {
            self.expiry_days.with_label_values(&["soonest"]).set(seconds / 86_400.0);
        }
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }

    fn observe_pool(&self, pool: &Pool) {
        let status = pool.status();
        self.token_cpu.set(status.token_cpu.as_secs_f64());
        self.token_signatures.set(gauge_value(status.signatures));
        self.queued.set(gauge_value(status.queued as u64));
        // A reason that held no longer must not stay beside the one that holds.
        self.lane_cap.reset();
        for token in &status.tokens {
            let name = &*token.name;
            self.token_ready
                .with_label_values(&[name])
                .set(i64::from(token.is_ready()));
            self.lane_cap
                .with_label_values(&[name, &token.cap.reason])
                .set(gauge_value(token.cap.sessions as u64));
            let lanes = [
                ("idle", token.lanes.idle),
                ("busy", token.lanes.busy),
                ("lost", token.lanes.lost),
            ];
            for (state, count) in lanes {
                self.lanes
                    .with_label_values(&[name, state])
                    .set(gauge_value(count as u64));
            }
        }
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

/// What the process has used so far. The collector of the prometheus crate counts in whole seconds, too coarse for CPU per
/// seal.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[allow(clippy::cast_precision_loss, reason = "seconds since the process started")]
    let seconds = used.tv_sec as f64;
    #[allow(clippy::cast_precision_loss, reason = "below 1e9")]
    let nanos = used.tv_nsec as f64;
    seconds + nanos / 1e9
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
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
