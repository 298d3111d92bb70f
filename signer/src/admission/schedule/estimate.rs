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

    /// Between two tickets that come back, where somebody waits.
    pub(super) fn each(&self, window: usize) -> Duration {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of what was counted so"
        )]
        let mean = self.means.map_or(0, |(cost, _)| cost as u64);
        self.drain(mean, window)
    }

    /// How long so much work takes: by the rate at which tickets came back, or by Little's law, a window of tickets in the time
    /// that one is held; whichever is sooner. While somebody waits both say the same. They differ where one of them has just
    /// begun to learn: the first ticket after a hiccup makes the rate one in all that time, and the tickets that a hiccup held up
    /// make the time of each as long. Who could have been served must not be refused for that.
    pub(super) fn drain(&self, cost: u64, window: usize) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (cost, window) = (cost as f64, window.max(1) as f64);
        let Some((mean, held)) = self.means else {
            return Duration::ZERO;
        };
        let by_time_held = cost / mean.max(1.0) * held / window;
        if self.busy >= ENOUGH && self.done > 0.0 {
            return seconds(by_time_held.min(cost * self.busy / self.done));
        }
        seconds(by_time_held)
    }
}

fn seconds(seconds: f64) -> Duration {
    // More than a day is as good as for ever, and no Duration overflows.
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 12;

    /// What two hundred documents take after a thousand of 2 ms each, twelve at a time, and a second without any, of which so
    /// many came back since.
    fn after_a_hiccup(came_back: u32) -> Duration {
        let (mut estimate, begin) = (Estimate::default(), Instant::now());
        let (each, held) = (Duration::from_millis(2) / 12, Duration::from_millis(2));
        estimate.waiting(Some(begin));
        let mut now = begin;
        for _ in 0..1000 {
            now += each;
            estimate.observe(now, 1, held);
        }
        now += Duration::from_secs(1);
        for n in 0..came_back {
            now += each;
            let held_up = n < u32::try_from(WINDOW).unwrap();
            estimate.observe(now, 1, if held_up { Duration::from_secs(1) } else { held });
        }
        estimate.drain(200, WINDOW)
    }

    #[test]
    fn a_hiccup_that_is_over_delays_nobody_for_ever() {
        let usual = after_a_hiccup(0);
        assert!((30..40).contains(&usual.as_millis()), "{usual:?}");
        for came_back in [1, 2, 5, 12, 13, 30, 100, 1000] {
            let now = after_a_hiccup(came_back);
            assert!(
                now >= usual / 2 && now < Duration::from_secs(8),
                "{now:?} after {came_back}"
            );
        }
    }

    #[test]
    fn the_first_document_after_a_first_hiccup_does_not_make_it_the_rate() {
        let (mut estimate, begin) = (Estimate::default(), Instant::now());
        for _ in 0..100 {
            estimate.observe(begin, 1, Duration::from_millis(2));
        }
        estimate.waiting(Some(begin));
        estimate.observe(begin + Duration::from_secs(1), 1, Duration::from_secs(1));
        let drain = estimate.drain(100, WINDOW);
        assert!(drain < Duration::from_secs(1), "{drain:?}");
    }
}
