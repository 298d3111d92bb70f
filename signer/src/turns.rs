//! The order in which the pool's lanes take what was admitted: by the turn that the door gave.
//!
//! The door lets in little more than the lanes can hold, so this line is short; but what is in it should not be in the way
//! of something more urgent that the door lets in a moment later.

use std::collections::VecDeque;

use muhurdar_pool::{Job, Queue};

/// Jobs by their tag, which is their turn; first come, first served among equals.
#[derive(Debug, Default)]
pub(crate) struct Turns(Line<Job>);

/// A short line, kept in order.
#[derive(Debug)]
struct Line<T>(VecDeque<(u64, T)>);

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Line<T> {
    fn push(&mut self, turn: u64, item: T) {
        let at = self.0.partition_point(|(other, _)| *other <= turn);
        self.0.insert(at, (turn, item));
    }

    fn pop(&mut self, takes: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.0.iter().position(|(_, item)| takes(item))?;
        self.0.remove(at).map(|(_, item)| item)
    }
}

impl Queue for Turns {
    fn push(&mut self, job: Job) -> Option<Job> {
        self.0.push(job.tag(), job);
        None
    }

    fn pop(&mut self, token: usize) -> Option<Job> {
        self.0.pop(|job| job.tokens().has(token))
    }

    fn len(&self) -> usize {
        self.0.0.len()
    }

    fn has_for(&self, token: usize) -> bool {
        self.0.0.iter().any(|(_, job)| job.tokens().has(token))
    }

    fn evict(&mut self, leaves: &mut dyn FnMut(&Job) -> bool) -> Vec<Job> {
        let (gone, stays): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.0.0)
            .into_iter()
            .partition(|(_, job)| leaves(job));
        self.0.0 = stays;
        gone.into_iter().map(|(_, job)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_turn_that_a_lane_can_take_goes_first() {
        let mut line = Line::default();
        for (turn, name) in [(5, "e"), (2, "b"), (9, "i"), (2, "c")] {
            line.push(turn, name);
        }
        assert_eq!(line.pop(|name| *name != "b"), Some("c"));
        assert_eq!(
            std::iter::from_fn(|| line.pop(|_| true)).collect::<Vec<_>>(),
            ["b", "e", "i"]
        );
    }
}
