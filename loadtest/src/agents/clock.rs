//! How an agent's clock stands to the controller's.
//!
//! Cristian's algorithm: a question and its answer, timed here, with the agent's time in the answer. The agent read its clock between the two,
//! so that the middle is wrong by half the way there and back at most; of many questions the fastest says most.

use std::time::Duration;

/// One question and its answer. Times in nanoseconds, each since a moment that its machine chose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) asked: i128,
    pub(super) answered: i128,
    /// The agent's monotonic clock.
    pub(super) there: i128,
    /// The agent's wall clock less the controller's at the answer.
    pub(super) wall: i128,
}

/// What the exchanges say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The agent's monotonic clock less the controller's, nanoseconds.
    pub(super) offset: i128,
    /// The agent's wall clock less the controller's, nanoseconds.
    pub(super) wall: i128,
    /// Neither is wrong by more than this, nanoseconds.
    pub(super) bound: i128,
}

impl Clock {
    pub(super) fn of(exchanges: &[Exchange]) -> Option<Self> {
        let best = exchanges
            .iter()
            .min_by_key(|exchange| exchange.answered - exchange.asked)?;
        let way = best.answered - best.asked;
        Some(Self {
            offset: best.there - (best.asked + way / 2),
            // The wall clocks were read at the answer, the agent's half the way earlier.
            wall: best.wall + way / 2,
            bound: way / 2 + way % 2,
        })
    }

    /// How far the agent's wall clock is off, at most.
    pub(super) fn farthest(&self) -> Duration {
        nanos(self.wall.abs() + self.bound)
    }

    /// How far the agent's clock has gone from the controller's between two comparisons, beyond what they may be wrong by.
    pub(super) fn drift(&self, later: &Self) -> Duration {
        nanos(((later.offset - self.offset).abs() - self.bound - later.bound).max(0))
    }

    /// An instant of the controller's, on the agent's clock.
    pub(super) fn there(&self, here: i128) -> i128 {
        here + self.offset
    }

    /// The agent's wall clock less the controller's, microseconds.
    pub fn wall_us(&self) -> f64 {
        self.wall as f64 / 1e3
    }

    /// What that may be wrong by, microseconds.
    pub fn bound_us(&self) -> f64 {
        self.bound as f64 / 1e3
    }
}

fn nanos(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent whose monotonic clock is 5 s ahead and whose wall clock is 7 ms behind; the way there and the way back differ.
    fn exchange(at: i128, there: i128, back: i128) -> Exchange {
        Exchange {
            asked: at,
            answered: at + there + back,
            there: at + there + 5_000_000_000,
            wall: -7_000_000 - back,
        }
    }

    #[test]
    fn the_true_offset_lies_within_the_bound_however_uneven_the_ways() {
        for (there, back) in [(10_000, 10_000), (1, 50_000), (90_000, 3)] {
            let clock = Clock::of(&[exchange(100, there, back)]).unwrap();
            assert!((clock.offset - 5_000_000_000).abs() <= clock.bound, "{clock:?}");
            assert!((clock.wall + 7_000_000).abs() <= clock.bound, "{clock:?}");
        }
    }

    #[test]
    fn the_fastest_answer_says_most() {
        let slow = exchange(0, 4_000_000, 100);
        let fast = exchange(9_000_000, 20_000, 30_000);
        let clock = Clock::of(&[slow, fast, slow]).unwrap();
        assert_eq!(clock.bound, 25_000);
        assert!(Clock::of(&[]).is_none());
    }

    #[test]
    fn only_what_the_bounds_cannot_explain_is_drift() {
        let clock = |offset, bound| Clock { offset, wall: 0, bound };
        assert_eq!(clock(0, 1000).drift(&clock(1500, 600)), Duration::ZERO);
        assert_eq!(clock(0, 1000).drift(&clock(-5000, 600)), Duration::from_nanos(3400));
    }
}
