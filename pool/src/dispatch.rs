//! Who works on what: the queue, and which lanes are free. One lock guards both, so that a lane that finds nothing and a request that
//! finds no lane cannot miss each other. Everything under the lock is a few instructions.

use std::collections::VecDeque;

use crate::job::Job;
use crate::queue::{Queue, TokenMask};

/// Lanes of one slot, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lanes {
    /// In the pool, or on their way back to it.
    pub(crate) idle: usize,
    /// Leased.
    pub(crate) busy: usize,
    /// The gate: closed while the slot is being brought back.
    pub(crate) gate: bool,
    /// The circuit is closed: requests may count on this slot.
    pub(crate) ready: bool,
}

pub(crate) struct Dispatch {
    pub(crate) queue: Box<dyn Queue>,
    /// Jobs that a token failed: they have waited once.
    retries: VecDeque<Job>,
    /// A heartbeat that waits for a lane, by slot.
    heartbeats: Vec<Option<Job>>,
    pub(crate) lanes: Vec<Lanes>,
    pub(crate) closed: bool,
}

/// What a lane gets.
pub(crate) enum Take {
    /// These jobs.
    Work(VecDeque<Job>),
    /// Nothing: the lane is counted as idle now and must go back to the pool.
    Idle,
}

impl Dispatch {
    pub(crate) fn new(queue: Box<dyn Queue>, slots: usize) -> Self {
        Self {
            queue,
            retries: VecDeque::new(),
            heartbeats: (0..slots).map(|_| None).collect(),
            lanes: vec![Lanes::default(); slots],
            closed: false,
        }
    }

    /// The slots that requests may count on.
    pub(crate) fn ready(&self) -> TokenMask {
        TokenMask(
            self.lanes
                .iter()
                .enumerate()
                .filter(|(_, lanes)| lanes.ready)
                .fold(0, |mask, (i, _)| mask | 1 << i),
        )
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.retries.len()
    }

    /// Claims an idle lane for work on one of these slots: the least loaded slot's, and not the avoided one's where another is free.
    pub(crate) fn claim(&mut self, tokens: TokenMask, avoid: Option<usize>) -> Option<usize> {
        let (slot, lanes) = self
            .lanes
            .iter_mut()
            .enumerate()
            .filter(|(i, lanes)| tokens.has(*i) && lanes.gate && lanes.idle > 0)
            .min_by_key(|(i, lanes)| (Some(*i) == avoid, lanes.busy * 1024 / (lanes.busy + lanes.idle)))?;
        lanes.idle -= 1;
        lanes.busy += 1;
        Some(slot)
    }

    pub(crate) fn push_retry(&mut self, job: Job) {
        self.retries.push_back(job);
    }

    pub(crate) fn push_heartbeat(&mut self, slot: usize, job: Job) {
        self.heartbeats[slot] = Some(job);
    }

    /// Work for a busy lane of `slot`: retries first, then a heartbeat, then up to `batch` from the queue.
    pub(crate) fn take(&mut self, slot: usize, batch: usize) -> Take {
        let mut jobs = VecDeque::new();
        if self.lanes[slot].gate {
            let ready = self.ready();
            let elsewhere = |job: &Job| job.tokens.and(ready).0 & !TokenMask::one(slot).0 != 0;
            let retry = self
                .retries
                .iter()
                .position(|job| job.tokens.has(slot) && !(job.avoid == Some(slot) && elsewhere(job)));
            if let Some(job) = retry.and_then(|at| self.retries.remove(at)) {
                jobs.push_back(job);
            } else if let Some(job) = self.heartbeats[slot].take() {
                jobs.push_back(job);
            } else {
                while jobs.len() < batch
                    && let Some(job) = self.queue.pop(slot)
                {
                    jobs.push_back(job);
                }
            }
        }
        if jobs.is_empty() {
            self.lanes[slot].busy -= 1;
            self.lanes[slot].idle += 1;
            Take::Idle
        } else {
            Take::Work(jobs)
        }
    }

    /// How many jobs wait that `slot` could take, up to `most`: so many lanes are worth waking.
    pub(crate) fn work_for(&self, slot: usize, most: usize) -> usize {
        if !self.lanes[slot].gate {
            return 0;
        }
        let retries = self.retries.iter().filter(|job| job.tokens.has(slot)).count();
        let heartbeat = usize::from(self.heartbeats[slot].is_some());
        let queued = if self.queue.has_for(slot) { self.queue.len() } else { 0 };
        (retries + heartbeat + queued).min(most)
    }

    /// Takes out the jobs that no ready slot can serve.
    pub(crate) fn evict(&mut self) -> Vec<Job> {
        let ready = self.ready();
        let mut stranded = |job: &Job| job.tokens.and(ready).is_empty();
        let mut out = self.queue.evict(&mut stranded);
        let (gone, stays): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition(|job| stranded(job));
        self.retries = stays;
        out.extend(gone);
        out
    }

    /// Takes out everything.
    pub(crate) fn drain(&mut self) -> Vec<Job> {
        let mut out = self.queue.evict(&mut |_| true);
        out.extend(self.retries.drain(..));
        self.heartbeats.iter_mut().for_each(|heartbeat| *heartbeat = None);
        out
    }
}
