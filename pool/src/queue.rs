//! The queue in front of the lanes: it decides whose work a free lane gets. The pool brings a plain one; a service with many
//! callers plugs its own, fair one.

use std::collections::VecDeque;
use std::time::Instant;

use crate::job::Job;

/// Which tokens: a bit per configured token, in the order of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TokenMask(pub u64);

impl TokenMask {
    /// Most tokens that a pool can have.
    pub const MAX: usize = 64;

    /// The mask of one token.
    #[must_use]
    pub fn one(token: usize) -> Self {
        Self(1 << token)
    }

    /// Whether this token is among them.
    #[must_use]
    pub fn has(self, token: usize) -> bool {
        self.0 & (1 << token) != 0
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Requests that wait for a lane. Called under the pool's lock: every method must be quick, and must not block or call the pool.
pub trait Queue: Send {
    /// Takes a job. The pool has looked at its limit already; a queue with limits of its own gives the job back, and the pool
    /// answers it with `Overloaded`.
    #[must_use]
    fn push(&mut self, job: Job) -> Option<Job>;
    /// The next job that `token` holds the key of ([`Job::tokens`]), if any.
    fn pop(&mut self, token: usize) -> Option<Job>;
    /// How many wait.
    fn len(&self) -> usize;
    /// Whether none waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether one waits that `token` could take.
    fn has_for(&self, token: usize) -> bool;
    /// Takes out every job for which `leaves` says so: no token can serve it any more.
    fn evict(&mut self, leaves: &mut dyn FnMut(&Job) -> bool) -> Vec<Job>;
}

/// First in, first out, among the jobs that a token can do.
#[derive(Debug, Default)]
pub struct Fifo {
    /// One line per set of tokens: there are as many as there are different sets, mostly one.
    lines: Vec<(TokenMask, VecDeque<(u64, Job)>)>,
    arrivals: u64,
    len: usize,
}

impl Queue for Fifo {
    fn push(&mut self, job: Job) -> Option<Job> {
        let at = self.arrivals;
        self.arrivals += 1;
        self.len += 1;
        match self.lines.iter_mut().find(|(tokens, _)| *tokens == job.tokens()) {
            Some((_, line)) => line.push_back((at, job)),
            None => self.lines.push((job.tokens(), VecDeque::from([(at, job)]))),
        }
        None
    }

    fn pop(&mut self, token: usize) -> Option<Job> {
        let (_, line) = self
            .lines
            .iter_mut()
            .filter(|(tokens, line)| tokens.has(token) && !line.is_empty())
            .min_by_key(|(_, line)| line.front().map(|(at, _)| *at))?;
        let (_, job) = line.pop_front()?;
        self.len -= 1;
        Some(job)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn has_for(&self, token: usize) -> bool {
        self.lines
            .iter()
            .any(|(tokens, line)| tokens.has(token) && !line.is_empty())
    }

    fn evict(&mut self, leaves: &mut dyn FnMut(&Job) -> bool) -> Vec<Job> {
        let mut out = Vec::new();
        for (_, line) in &mut self.lines {
            let (gone, stays): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(line).into_iter().partition(|(_, job)| leaves(job));
            *line = stays;
            out.extend(gone.into_iter().map(|(_, job)| job));
        }
        self.len -= out.len();
        out
    }
}

/// Whether a moment has come.
pub(crate) fn passed(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}
