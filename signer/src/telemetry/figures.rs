//! The metrics read back, for the status page: it shows what Prometheus is told, and nothing that was counted beside it.

use std::collections::BTreeMap;

use prometheus::{
    core::{Collector as _, Metric as _},
    proto::MetricFamily,
};

use super::Metrics;
use crate::config::Priority;

/// The figures of a moment; all of them only grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Documents by outcome: `sealed`, or a reason of the error table.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// How long sealed documents took, by priority, most urgent first.
    pub(crate) latencies: [Latency; Priority::ALL.len()],
}

/// A histogram as Prometheus has it: upper bounds in seconds, and how many took no longer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Latency {
    buckets: Vec<(f64, u64)>,
    count: u64,
}

impl Figures {
    /// Documents that were sealed.
    pub(crate) fn sealed(&self) -> u64 {
        self.outcomes.get(SEALED).copied().unwrap_or(0)
    }

    /// Documents that were refused, with why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        let refused = self.outcomes.iter().filter(|(outcome, _)| *outcome != SEALED);
        refused.map(|(reason, count)| (reason.as_str(), *count))
    }

    /// All of them.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused().map(|(_, count)| count).sum()
    }

    /// Of all priorities together.
    pub(crate) fn latency(&self) -> Latency {
        let together = |sum: Latency, one: &Latency| sum.and(one);
        self.latencies.iter().fold(Latency::default(), together)
    }
}

/// The outcome of a document that got its seal.
const SEALED: &str = "sealed";

impl Latency {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What has come since an earlier moment.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = before.buckets.iter().map(|(_, count)| *count);
        let buckets = self.buckets.iter().zip(earlier.chain(std::iter::repeat(0)));
        Self {
            buckets: buckets
                .map(|((bound, now), then)| (*bound, now.saturating_sub(then)))
                .collect(),
            count: self.count.saturating_sub(before.count),
        }
    }

    fn and(mut self, other: &Self) -> Self {
        if self.buckets.is_empty() {
            return other.clone();
        }
        for (one, (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            one.1 += more;
        }
        self.count += other.count;
        self
    }

    /// The time in seconds that this share took at most, from 0 to 1, between two bounds as if they were spread evenly:
    /// what Prometheus calls `histogram_quantile`. None where there are none; beyond the last bound, that bound.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a statistic")]
        let (all, number) = (self.count as f64, |n: u64| n as f64);
        let rank = share * all;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = number(*count);
            if count >= rank && count > below {
                return Some(low + (bound - low) * (rank - below) / (count - below));
            }
            (low, below) = (*bound, count);
        }
        (self.count > 0).then_some(low)
    }
}

impl Metrics {
    /// What has been counted so far.
    pub(crate) fn figures(&self) -> Figures {
        let mut outcomes = BTreeMap::new();
        let families = self.seals.collect();
        for metric in families.iter().flat_map(MetricFamily::get_metric) {
            let label = metric.get_label().iter().find(|label| label.name() == "outcome");
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a counter of whole things"
            )]
            let count = metric.get_counter().get_value() as u64;
            if let Some(label) = label {
                *outcomes.entry(label.value().to_owned()).or_insert(0) += count;
            }
        }
        Figures {
            outcomes,
            latencies: self.requests.each_ref().map(|histogram| {
                let metric = histogram.metric();
                let histogram = metric.get_histogram();
                let buckets = histogram.get_bucket().iter();
                Latency {
                    buckets: buckets.map(|b| (b.upper_bound(), b.cumulative_count())).collect(),
                    count: histogram.get_sample_count(),
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muhurdar_xades::DocumentType;

    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn what_is_read_back_is_what_was_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.sealed(Some(DocumentType::Invoice));
        metrics.sealed(Some(DocumentType::EDefterBerat));
        metrics.refused(&Refusal::Draining, None);
        metrics.took(Priority::Bulk, Duration::from_millis(4));
        let figures = metrics.figures();
        assert_eq!(figures.sealed(), 2);
        let refused: Vec<_> = figures.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(refused, [("DRAINING", 1)]);
        assert_eq!(figures.latencies[Priority::Bulk as usize].count(), 1);
        assert_eq!(figures.latency().count(), 1);
    }

    #[test]
    fn a_percentile_is_that_of_what_came_since_between_two_bounds() {
        let latency = |counts: [u64; 3], count| Latency {
            buckets: [0.001, 0.002, 0.010].into_iter().zip(counts).collect(),
            count,
        };
        let before = latency([10, 10, 10], 10);
        let since = latency([10, 60, 110], 110).since(&before);
        assert_eq!(since, latency([0, 50, 100], 100));
        let micros = |share| since.quantile(share).map(|seconds| (seconds * 1e6).round());
        assert_eq!(micros(0.25), Some(1500.0));
        assert_eq!(micros(0.5), Some(2000.0));
        assert_eq!(micros(0.75), Some(6000.0));
        assert_eq!(
            latency([0, 0, 0], 5).quantile(0.5),
            Some(0.010),
            "longer than all bounds"
        );
        assert_eq!(Latency::default().quantile(0.5), None);
        assert_eq!(since.since(&since).quantile(0.99), None);
    }
}
