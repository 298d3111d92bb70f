//! The last minutes, for the status page: the metrics of each second. Nothing is counted here.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry::{Figures, Metrics};

/// Between two samples.
const STEP: Duration = Duration::from_secs(1);
/// Seconds of the curves.
const KEPT: usize = 300;
/// Seconds for which everything is kept: what "lately" may mean at most.
const SAMPLES: usize = 62;

/// The metrics at a moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) figures: Figures,
}

/// The last minutes.
#[derive(Debug)]
pub(super) struct History {
    past: Mutex<Past>,
    pub(super) started: Timestamp,
    pub(super) begun: Instant,
}

/// The oldest first.
#[derive(Debug, Default)]
struct Past {
    samples: VecDeque<Sample>,
    points: VecDeque<Point>,
}

/// What one second brought.
#[derive(Debug)]
struct Point {
    rate: f64,
    refused: f64,
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The last minutes as curves, a value for each second, the oldest first; null where nothing was sealed.
#[derive(Debug, Serialize)]
pub(super) struct Curves {
    /// Sealed in the second.
    rate: Vec<f64>,
    /// Refused in it.
    refused: Vec<f64>,
    /// Milliseconds.
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            started: Timestamp::now(),
            begun: Instant::now(),
        }
    }
}

/// Looks at the metrics each second, for ever.
pub(super) async fn remember(history: Arc<History>, metrics: Arc<Metrics>) {
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        history.push(Sample {
            at: Instant::now(),
            figures: metrics.figures(),
        });
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Past> {
        // Each value is whole by itself.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, sample: Sample) {
        let mut past = self.lock();
        if let Some(last) = past.samples.back() {
            let point = Point::between(last, &sample);
            if past.points.len() == KEPT {
                past.points.pop_front();
            }
            past.points.push_back(point);
        }
        if past.samples.len() == SAMPLES {
            past.samples.pop_front();
        }
        past.samples.push_back(sample);
    }

    /// The sample from about so long ago, or the oldest.
    pub(super) fn before(&self, age: Duration) -> Option<Sample> {
        let past = self.lock();
        let found = past.samples.iter().rev().find(|sample| sample.at.elapsed() >= age);
        found.or(past.samples.front()).cloned()
    }

    pub(super) fn curves(&self) -> Curves {
        let past = self.lock();
        let points = || past.points.iter();
        Curves {
            rate: points().map(|point| point.rate).collect(),
            refused: points().map(|point| point.refused).collect(),
            p50: points().map(|point| point.p50).collect(),
            p99: points().map(|point| point.p99).collect(),
        }
    }
}

impl Point {
    fn between(before: &Sample, after: &Sample) -> Self {
        let latency = after.figures.latency().since(&before.figures.latency());
        Self {
            rate: rate(before, after, Figures::sealed),
            refused: rate(before, after, Figures::refusals),
            p50: latency.quantile(0.5).map(milliseconds),
            p99: latency.quantile(0.99).map(milliseconds),
        }
    }
}

/// What was counted in a second between two samples.
pub(super) fn rate(before: &Sample, after: &Sample, count: impl Fn(&Figures) -> u64) -> f64 {
    let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
    let more = count(&after.figures).saturating_sub(count(&before.figures));
    #[allow(clippy::cast_precision_loss, reason = "what is counted in a few seconds")]
    let more = more as f64;
    if seconds > 0.0 { rounded(more / seconds) } else { 0.0 }
}

pub(super) fn milliseconds(seconds: f64) -> f64 {
    rounded(seconds * 1e3)
}

/// To two digits behind the point: more are not there, and would be sent each second.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Priority;

    #[test]
    fn the_last_minutes_are_kept_and_no_more_and_say_what_each_second_brought() {
        let (metrics, history) = (Metrics::new().unwrap(), History::default());
        let begun = Instant::now();
        for second in 0..400_u64 {
            metrics.sealed(None);
            metrics.took(Priority::Normal, Duration::from_millis(4));
            history.push(Sample {
                at: begun + STEP * u32::try_from(second).unwrap(),
                figures: metrics.figures(),
            });
        }
        let curves = history.curves();
        assert_eq!(curves.rate.len(), KEPT);
        assert!(curves.rate.iter().all(|rate| *rate == 1.0), "{:?}", curves.rate);
        assert!(
            curves
                .p99
                .iter()
                .all(|ms| ms.is_some_and(|ms| (3.0..=5.0).contains(&ms)))
        );
        assert!(curves.refused.iter().all(|rate| *rate == 0.0));
    }
}
