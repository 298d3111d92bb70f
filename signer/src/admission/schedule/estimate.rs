//! How fast tickets come back, of late.

use std::time::Duration;

/// Weight of one observation in the running means: about the last sixteen count.
const WEIGHT: f64 = 1.0 / 16.0;

/// Running means over the tickets that came back.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// Mean cost, and mean seconds that a ticket was held; none before the first.
    means: Option<(f64, f64)>,
}

impl Estimate {
    pub(super) fn observe(&mut self, cost: u64, held: Duration) {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let seen = (cost as f64, held.as_secs_f64());
        self.means = Some(match self.means {
            None => seen,
            Some((cost, held)) => (cost + (seen.0 - cost) * WEIGHT, held + (seen.1 - held) * WEIGHT),
        });
    }

    /// How long a ticket is held.
    pub(super) fn service(&self) -> Duration {
        self.means.map_or(Duration::ZERO, |(_, held)| seconds(held))
    }

    /// How long a window of tickets takes to work off so much: by Little's law the rate is window / time held.
    pub(super) fn drain(&self, cost: u64, window: usize) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (cost, window) = (cost as f64, window.max(1) as f64);
        self.means.map_or(Duration::ZERO, |(mean, held)| {
            seconds(cost / mean.max(1.0) * held / window)
        })
    }
}

fn seconds(seconds: f64) -> Duration {
    // More than a day is as good as for ever, and no Duration overflows.
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}
