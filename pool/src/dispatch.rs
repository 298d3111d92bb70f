//! Who works on what: the queue, and which slots take work. One lock guards it, and under the same lock idle lanes are leased from deadpool
//! and given back to it, so that a lane that finds nothing and a request that finds no lane cannot miss each other. Everything under the lock
//! is a few instructions. Which lanes there are and which of them are idle, deadpool alone knows.

use std::collections::VecDeque;

use crate::job::Job;
use crate::queue::{Queue, TokenMask};

/// What requests see of a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
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
    pub(crate) places: Vec<Place>,
    pub(crate) closed: bool,
}

impl Dispatch {
    pub(crate) fn new(queue: Box<dyn Queue>, slots: usize) -> Self {
        Self {
            queue,
            retries: VecDeque::new(),
            heartbeats: (0..slots).map(|_| None).collect(),
            places: vec![Place::default(); slots],
            closed: false,
        }
    }

    /// The slots that requests may count on.
    pub(crate) fn ready(&self) -> TokenMask {
        self.mask(|place| place.ready)
    }

    /// The slots whose gate is open.
    pub(crate) fn open(&self) -> TokenMask {
        self.mask(|place| place.gate)
    }

    fn mask(&self, of: impl Fn(&Place) -> bool) -> TokenMask {
        let places = self.places.iter().enumerate();
        TokenMask(places.fold(0, |mask, (i, place)| mask | u64::from(of(place)) << i))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.retries.len()
    }

    pub(crate) fn push_retry(&mut self, job: Job) {
        self.retries.push_back(job);
    }

    pub(crate) fn push_heartbeat(&mut self, slot: usize, job: Job) {
        self.heartbeats[slot] = Some(job);
    }

    /// Work for a leased lane of `slot`: retries first, then a heartbeat, then up to `batch` from the queue. Empty where there is none.
    pub(crate) fn take(&mut self, slot: usize, batch: usize) -> VecDeque<Job> {
        let mut jobs = VecDeque::new();
        if !self.places[slot].gate {
            return jobs;
        }
        let ready = self.ready();
        let elsewhere = |job: &Job| job.tokens.and(ready).0 & !TokenMask::one(slot).0 != 0;
        let retry = self
            .retries
            .iter()
            .position(|job| job.tokens.has(slot) && !(job.tries.avoid == Some(slot) && elsewhere(job)));
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
        jobs
    }

    /// How many jobs wait that `slot` could take: so many lanes are worth waking.
    pub(crate) fn work_for(&self, slot: usize) -> usize {
        if !self.places[slot].gate {
            return 0;
        }
        let retries = self.retries.iter().filter(|job| job.tokens.has(slot)).count();
        let heartbeat = usize::from(self.heartbeats[slot].is_some());
        let queued = if self.queue.has_for(slot) { self.queue.len() } else { 0 };
        retries + heartbeat + queued
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
