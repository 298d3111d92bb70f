//! How far a token is trusted that gave values which do not verify. Sans-IO, as the ladder that asks it.
//!
//! No such value is released and its request is signed again, so a rare one costs a customer nothing; but a token that gives them is broken,
//! and is not to be relied on for its next one. Where other tokens can do its work, a few within a while cost it its place. Where none can,
//! it serves as long as nearly all of its values are right.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::keys::KeyId;

/// So many wrong values cost a slot its place,
const FEW: usize = 3;
/// within this time where other tokens can do its work, and always
const WHILE: Duration = Duration::from_secs(600);
/// where there are fewer right values than this from the first of them to the last: one wrong in 24 is too many for anybody.
const TRUTHS: u64 = 48;

/// A value that did not verify.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lie {
    /// Whose signature it should have been.
    pub(crate) key: KeyId,
    /// The slot's right values so far.
    pub(crate) truths: u64,
    pub(crate) at: Instant,
}

/// What is held against a slot.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// The last few.
    lies: VecDeque<Lie>,
    /// Times that the place was lost, with no while between them.
    losses: u32,
    lost_at: Option<Instant>,
}

impl Trust {
    /// A value was wrong. `spared`: other tokens can do the slot's work. Answers how often the place was lost of late, this time
    /// included; none where it is kept.
    pub(crate) fn lied(&mut self, lie: Lie, spared: bool) -> Option<u32> {
        if self.lies.len() == FEW {
            self.lies.pop_front();
        }
        self.lies.push_back(lie);
        let first = *self.lies.front().filter(|_| self.lies.len() == FEW)?;
        // They come from several threads: one may overtake another.
        let often = lie.truths.saturating_sub(first.truths) < TRUTHS;
        let lately = lie.at.saturating_duration_since(first.at) < WHILE;
        if !(often || spared && lately) {
            return None;
        }
        if self
            .lost_at
            .is_none_or(|at| lie.at.saturating_duration_since(at) > WHILE)
        {
            self.losses = 0;
        }
        self.lost_at = Some(lie.at);
        self.losses += 1;
        Some(self.losses)
    }

    /// The keys whose values were wrong: the first to be looked at before the slot is trusted again.
    pub(crate) fn suspects(&self) -> Vec<KeyId> {
        let mut keys: Vec<_> = self.lies.iter().map(|lie| lie.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The slot has proved itself and begins anew; that it lost its place is remembered for a while.
    pub(crate) fn restored(&mut self) {
        self.lies.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token that gives so many right values between two wrong ones, a second apart. Answers after how many wrong ones it loses its place.
    fn lies(between: u64, spared: bool) -> Option<u64> {
        let begun = Instant::now();
        let mut trust = Trust::default();
        (1..100).find(|n| {
            let lie = Lie {
                key: KeyId(0),
                truths: n * between,
                at: begun + Duration::from_secs(*n),
            };
            trust.lied(lie, spared).is_some()
        })
    }

    #[test]
    fn three_lies_cost_a_token_its_place_where_others_can_do_its_work() {
        for between in [0, 6, 49, 10_000] {
            assert_eq!(lies(between, true), Some(3), "{between}");
        }
    }

    #[test]
    fn where_no_other_can_a_token_serves_as_long_as_it_lies_rarely() {
        assert_eq!(lies(0, false), Some(3));
        assert_eq!(lies(6, false), Some(3));
        assert_eq!(lies(49, false), None);
    }

    #[test]
    fn a_lie_is_forgotten_after_a_while_and_so_is_a_loss() {
        let begun = Instant::now();
        let mut trust = Trust::default();
        let mut lie = |n: u64, seconds: u64| {
            let (key, at) = (KeyId(0), begun + Duration::from_secs(seconds));
            let lost = trust.lied(
                Lie {
                    key,
                    truths: n * 1000,
                    at,
                },
                true,
            );
            if lost.is_some() {
                trust.restored();
            }
            lost
        };
        // One an hour is a bad moment each time.
        assert!((0..10).all(|n| lie(n, n * 3600).is_none()));
        let day = 86_400;
        assert_eq!(
            [lie(11, day), lie(12, day + 1), lie(13, day + 2)],
            [None, None, Some(1)]
        );
        assert_eq!(
            [lie(14, day + 3), lie(15, day + 4), lie(16, day + 5)],
            [None, None, Some(2)]
        );
        let next = 2 * day;
        assert_eq!(
            [lie(17, next), lie(18, next + 1), lie(19, next + 2)],
            [None, None, Some(1)]
        );
    }

    #[test]
    fn the_keys_that_lied_are_remembered_once_each() {
        let mut trust = Trust::default();
        for key in [4, 2, 4] {
            let (key, at) = (KeyId(key), Instant::now());
            let _ = trust.lied(Lie { key, truths: 0, at }, false);
        }
        assert_eq!(trust.suspects(), [KeyId(2), KeyId(4)]);
        trust.restored();
        assert!(trust.suspects().is_empty());
    }
}
