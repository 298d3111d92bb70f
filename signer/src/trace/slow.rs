//! The slow-request log: one line for each request that took longer than it should, with where its time went. When everything is
//! slow, the log's ration ([`crate::telemetry`]) leaves most of them out.

use std::time::Duration;

use opentelemetry::trace::TraceId;

use super::{
    Method,
    journey::{Ended, Step},
};

#[derive(Debug)]
pub(super) struct SlowLog {
    /// None: no line at all.
    threshold: Option<Duration>,
}

impl SlowLog {
    /// Lines for what takes as long or longer; zero: no lines.
    pub(super) fn new(threshold: Duration) -> Self {
        Self {
            threshold: Some(threshold).filter(|threshold| !threshold.is_zero()),
        }
    }

    pub(super) fn look(&self, journey: &Ended<'_>, trace: Option<&TraceId>) {
        // How long a large document takes is its caller's line and disk, not ours.
        let slow = self.threshold.is_some_and(|threshold| journey.took >= threshold);
        if !slow || journey.method == Method::SealLarge {
            return;
        }
        write(journey, trace);
    }
}

fn write(journey: &Ended<'_>, trace: Option<&TraceId>) {
    let facts = journey.facts;
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e5).round() / 1e2;
    let of = |step| milliseconds(journey.time(step));
    tracing::warn!(
        target: "muhurdar::slow",
        request = %journey.id,
        trace = trace.map(tracing::field::display),
        call = journey.method.name(),
        client = facts.client.as_deref(),
        priority = facts.priority.map(crate::config::Priority::name),
        document = facts.document.map(muhurdar_xades::DocumentType::name),
        bytes = facts.bytes,
        token = facts.token.as_deref(),
        outcome = facts.outcome.unwrap_or("the caller went away"),
        took_ms = milliseconds(journey.took),
        admit_ms = of(Step::Admit),
        queue_ms = of(Step::Queue),
        digest_ms = of(Step::Digest),
        sign_ms = of(Step::Sign),
        check_ms = of(Step::Check),
        splice_ms = of(Step::Splice),
        "slow request"
    );
}
