//! The slow-request log: one line for each request that took longer than it should, with where its time went.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use opentelemetry::trace::TraceId;

use super::{
    Method,
    journey::{Ended, Step},
};

/// Lines a second. When everything is slow, thousands of lines tell no more than a few, and writing them would make it slower.
const LINES: u64 = 10;

#[derive(Debug)]
pub(super) struct SlowLog {
    /// None: no line at all.
    threshold: Option<Duration>,
    ration: Ration,
}

/// So many a second, and how many were left out.
#[derive(Debug)]
struct Ration {
    begun: Instant,
    /// The second that the count is of, above [`COUNT`]; below it, the count.
    spent: AtomicU64,
    left_out: AtomicU64,
}

const COUNT: u64 = 16;

impl SlowLog {
    /// Lines for what takes as long or longer; zero: no lines.
    pub(super) fn new(threshold: Duration) -> Self {
        Self {
            threshold: Some(threshold).filter(|threshold| !threshold.is_zero()),
            ration: Ration {
                begun: Instant::now(),
                spent: AtomicU64::new(0),
                left_out: AtomicU64::new(0),
            },
        }
    }

    pub(super) fn look(&self, journey: &Ended<'_>, trace: Option<&TraceId>) {
        // How long a large document takes is its caller's line and disk, not ours.
        let slow = self.threshold.is_some_and(|threshold| journey.took >= threshold);
        if !slow || journey.method == Method::SealLarge {
            return;
        }
        if let Some(left_out) = self.ration.take() {
            write(journey, trace, left_out);
        }
    }
}

impl Ration {
    /// Whether another line may be written now, and how many have been left out since the last.
    fn take(&self) -> Option<u64> {
        let second = self.begun.elapsed().as_secs();
        let take = |spent: u64| match (spent >> COUNT == second, spent & ((1 << COUNT) - 1)) {
            (true, count) if count >= LINES => None,
            (true, _) => Some(spent + 1),
            (false, _) => Some((second << COUNT) + 1),
        };
        match self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

fn write(journey: &Ended<'_>, trace: Option<&TraceId>, left_out: u64) {
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
        left_out = Some(left_out).filter(|count| *count > 0),
        "slow request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_slow_requests_is_a_few_lines_a_second_and_a_count() {
        let log = SlowLog::new(Duration::from_secs(1));
        // Should a second end while they are taken, that second has a ration of its own.
        let written = (0..1000).filter(|_| log.ration.take().is_some()).count() as u64;
        assert!(written == LINES || written == 2 * LINES, "{written}");
        let ration = Ration {
            begun: Instant::now().checked_sub(Duration::from_secs(5)).unwrap(),
            spent: AtomicU64::new((4 << COUNT) + LINES),
            left_out: AtomicU64::new(990),
        };
        assert_eq!(ration.take(), Some(990), "a new second");
        assert_eq!(ration.take(), Some(0));
    }
}
