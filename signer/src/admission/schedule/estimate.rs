//! How fast work is done, of late.

use std::time::{Duration, Instant};

/// Weight of one observation in the running means: about the last sixteen count.
const WEIGHT: f64 = 1.0 / 16.0;
/// Seconds of work that the rate remembers. In time and not in tickets, so that a hiccup of the token counts for as long as it
/// took, and not for as many tickets as it held up.
const MEMORY: f64 = 1.0;
/// Seconds of work after which the rate is believed.
const ENOUGH: f64 = 0.02;

/// Running means over the tickets that came back.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// Mean cost, and mean seconds that a ticket was held; none before the first.
    means: Option<(f64, f64)>,
    /// What was done while somebody waited, and the seconds of that.
    done: f64,
    busy: f64,
    /// Somebody has waited since.
    since: Option<Instant>,
}

impl Estimate {
    /// Somebody waits from now on, or nobody does.
    pub(super) fn waiting(&mut self, now: Option<Instant>) {
        self.since = match (now, self.since) {
            (None, _) => None,
            (Some(_), Some(since)) => Some(since),
            (Some(now), None) => Some(now),
        };
    }

    /// A ticket came back.
    pub(super) fn observe(&mut self, now: Instant, cost: u64, held: Duration) {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let seen = (cost as f64, held.as_secs_f64());
        self.means = Some(match self.means {
            None => seen,
            Some((cost, held)) => (cost + (seen.0 - cost) * WEIGHT, held + (seen.1 - held) * WEIGHT),
        });
        if let Some(since) = self.since.filter(|since| *since <= now) {
            self.since = Some(now);
            let passed = now.saturating_duration_since(since).as_secs_f64();
            let faded = (-passed / MEMORY).exp();
            self.done = self.done * faded + seen.0;
            self.busy = self.busy * faded + passed;
        }
    }

    /// How long a ticket is held.
    pub(super) fn service(&self) -> Duration {
        self.means.map_or(Duration::ZERO, |(_, held)| seconds(held))
    }

    /// How long so much work takes. Before the service was ever busy, by Little's law: a window of tickets in the time that
    /// one is held.
    pub(super) fn drain(&self, cost: u64, window: usize) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (cost, window) = (cost as f64, window.max(1) as f64);
        if self.busy >= ENOUGH && self.done > 0.0 {
            return seconds(cost * self.busy / self.done);
        }
        self.means.map_or(Duration::ZERO, |(mean, held)| {
            seconds(cost / mean.max(1.0) * held / window)
        })
    }
}

fn seconds(seconds: f64) -> Duration {
    // More than a day is as good as for ever, and no Duration overflows.
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}
