//! Lanes: woken for work, opened where there are too few, and lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use deadpool::managed::{PoolError, TimeoutType};

use super::Shared;
use crate::ckr::CkrError;
use crate::dispatch::Dispatch;
use crate::error::SignError;
use crate::job::Job;
use crate::ladder::Rung;
use crate::lane::{self, LaneCell, Lease};
use crate::module::lock;
use crate::queue::TokenMask;
use crate::slot::Slot;
use crate::supervisor::Event;

impl Shared {
    /// An idle lane for work on one of these slots: the least loaded slot's, and not the avoided one's where another has one.
    pub(super) fn claim(&self, dispatch: &Dispatch, tokens: TokenMask, avoid: Option<usize>) -> Option<Lease> {
        let mut untried = tokens.and(dispatch.open());
        loop {
            let at = (0..self.slots.len())
                .filter(|at| untried.has(*at))
                .min_by_key(|at| (Some(*at) == avoid, self.slots[*at].load()))?;
            if let Some(lease) = self.slots[at].idle_lane() {
                return Some(lease);
            }
            untried = TokenMask(untried.0 & !TokenMask::one(at).0);
        }
    }

    /// Sets a leased lane to work.
    pub(super) fn set_to_work(self: &Arc<Self>, lease: Lease) {
        let slot = lease.origin.slot;
        if lane::run(lease).is_err() {
            self.lane_left(&Arc::clone(&self.slots[slot]), VecDeque::new());
        }
    }

    /// Work for a leased lane. Where there is none its lease goes back to the pool, under the lock that requests take to look for an idle
    /// lane; the answer is empty then.
    pub(crate) fn take(&self, slot: &Slot, cell: &LaneCell) -> VecDeque<Job> {
        let mut dispatch = lock(&self.dispatch);
        let (batch, _) = slot.batch(dispatch.queue.len());
        let jobs = dispatch.take(slot.index, batch);
        if jobs.is_empty() {
            drop(lock(&cell.held).lease.take());
        }
        jobs
    }

    /// A leased lane is out of the pool. `rest` is what it took and did not begin.
    pub(crate) fn lane_left(self: &Arc<Self>, slot: &Arc<Slot>, rest: VecDeque<Job>) {
        if !rest.is_empty() {
            let mut dispatch = lock(&self.dispatch);
            rest.into_iter().for_each(|job| dispatch.push_retry(job));
        }
        self.replace(slot);
        self.kick_all();
    }

    /// Wakes idle lanes of every slot for what waits.
    pub(crate) fn kick_all(self: &Arc<Self>) {
        for slot in 0..self.slots.len() {
            self.kick(slot);
        }
    }

    pub(crate) fn kick(self: &Arc<Self>, slot: usize) {
        let woken: Vec<Lease> = {
            let dispatch = lock(&self.dispatch);
            let idle = std::iter::from_fn(|| self.slots[slot].idle_lane());
            idle.take(dispatch.work_for(slot)).collect()
        };
        for lease in woken {
            self.set_to_work(lease);
        }
    }

    /// Has missing lanes opened, by one task at a time, while the slot's gate is open.
    pub(crate) fn replace(self: &Arc<Self>, slot: &Arc<Slot>) {
        let gate = lock(&self.dispatch).places[slot.index].gate;
        if !gate || self.closing.load(Ordering::Acquire) || slot.counters.warming.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
        self.runtime.spawn(async move {
            slot.counters.warming.store(false, Ordering::Release);
            let _ = shared.warm(&slot).await;
        });
    }

    /// Opens lanes until there are as many as the cap allows. The only place where one is opened.
    pub(crate) async fn warm(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), CkrError> {
        let _one_at_a_time = slot.warming.lock().await;
        let lanes = slot.lanes();
        while lanes.status().size < lanes.status().max_size && !lanes.is_closed() {
            let mut opening = std::pin::pin!(lanes.get());
            let asked =
                std::future::poll_fn(|context| Poll::Ready(self.ask_for_a_lane(slot, opening.as_mut(), context))).await;
            let opened = match asked {
                Poll::Ready(opened) => opened,
                Poll::Pending => opening.await,
            };
            match opened {
                Ok(lease) => {
                    // Idle, under the lock that says so to requests; and to work, where some waits.
                    let dispatch = lock(&self.dispatch);
                    drop(lease);
                    drop(dispatch);
                    self.kick(slot.index);
                }
                // The runtime let the task wait before deadpool could ask.
                Err(PoolError::Backend(lane::NOT_ASKED)) => tokio::task::yield_now().await,
                Err(error) => return Err(self.not_opened(slot, error)),
            }
        }
        Ok(())
    }

    /// Has deadpool begin to open a lane. It hands out what it has before it makes more: for this moment, in which no request looks for
    /// one, the idle lanes are set aside.
    fn ask_for_a_lane<F: Future>(
        &self,
        slot: &Slot,
        opening: std::pin::Pin<&mut F>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<F::Output> {
        let dispatch = lock(&self.dispatch);
        let aside: Vec<Lease> = std::iter::from_fn(|| slot.idle_lane()).collect();
        slot.counters.asked.store(true, Ordering::Release);
        let begun = opening.poll(context);
        slot.counters.asked.store(false, Ordering::Release);
        drop(aside);
        drop(dispatch);
        begun
    }

    /// A lane could not be opened.
    fn not_opened(self: &Arc<Self>, slot: &Arc<Slot>, error: PoolError<CkrError>) -> CkrError {
        let error = match error {
            PoolError::Backend(lane::CLOSED) => return lane::CLOSED,
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Create) => {
                tracing::error!(token = %slot.name, budget = ?slot.config.call_budget, "opening a session hangs");
                CkrError {
                    function: "C_OpenSession",
                    code: cryptoki_sys::CKR_FUNCTION_CANCELED as u64,
                }
            }
            other => {
                tracing::debug!(token = %slot.name, error = %other, "no lane");
                return CkrError {
                    function: "C_OpenSession",
                    code: cryptoki_sys::CKR_FUNCTION_CANCELED as u64,
                };
            }
        };
        let since = slot.standing(slot.epoch());
        if error.code == cryptoki_sys::CKR_SESSION_COUNT as u64 && slot.lanes().status().size > 0 {
            // The token allows fewer than it says: live with what it gave, and say so.
            let given = slot.lanes().status().size;
            slot.lanes().resize(given);
            slot.counters.cap.store(given, Ordering::Relaxed);
            let mut opened = lock(&slot.opened);
            opened.cap.sessions = given;
            opened.cap.reason = format!("the token refused more sessions (CKR_SESSION_COUNT after {given})");
            tracing::warn!(token = %slot.name, sessions = given, reason = %opened.cap.reason, "effective cap");
            return error;
        }
        slot.note(&error);
        let rung = crate::ladder::classify(&error, &slot.config.module_fault_codes);
        // That no session can be opened is never the session's fault.
        self.slot_failed(slot, since, rung.max(Rung::Slot), error);
        error
    }

    /// The watchdog gave a lane up: what it held, and what becomes of it.
    pub(crate) fn lane_lost(self: &Arc<Self>, slot: &Arc<Slot>, current: Option<Job>, rest: VecDeque<Job>) {
        let lost = slot.counters.lost.load(Ordering::Acquire);
        tracing::error!(token = %slot.name, budget = ?slot.config.call_budget, lost, "a call hangs; its lane is lost");
        if let Some(job) = current {
            let why = SignError::Hung {
                token: slot.name.to_string(),
                budget: slot.config.call_budget,
            };
            self.retry(slot, job, why, true);
        }
        self.fit_to_lost(slot);
        self.lane_left(slot, rest);
    }

    /// A lost call came back.
    pub(crate) fn lane_returned(self: &Arc<Self>, slot: &Arc<Slot>) {
        tracing::warn!(token = %slot.name, "a call came back after it had been given up; its result is dropped");
        self.fit_to_lost(slot);
        let _ = self.supervisors[slot.index].send(Event::Returned { slot: slot.index });
        self.replace(slot);
    }

    /// Lost threads count against the cap until they return: the first `max_lost` are replaced where the token has sessions left, later ones
    /// are not, and with more lost than that the slot is not ready.
    fn fit_to_lost(&self, slot: &Arc<Slot>) {
        let lost = slot.counters.lost.load(Ordering::Acquire);
        let cap = slot.counters.cap.load(Ordering::Relaxed);
        let max = lock(&slot.opened).facts.as_ref().and_then(|facts| facts.max_sessions);
        let left = max.map_or(usize::MAX, |max| {
            usize::try_from(max.saturating_sub(1))
                .unwrap_or(usize::MAX)
                .saturating_sub(lost)
        });
        let over = lost.saturating_sub(slot.config.max_lost);
        slot.lanes().resize(cap.saturating_sub(over).min(left));
        if over > 0 || left == 0 {
            let error = CkrError {
                function: "C_Sign",
                code: cryptoki_sys::CKR_FUNCTION_CANCELED as u64,
            };
            self.slot_failed(slot, slot.standing(slot.epoch()), Rung::Module, error);
        }
    }
}
