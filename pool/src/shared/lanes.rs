//! Lanes: woken for work, opened where there are too few, and lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use deadpool::managed::{PoolError, TimeoutType};

use super::Shared;
use crate::ckr::CkrError;
use crate::error::SignError;
use crate::job::Job;
use crate::ladder::Rung;
use crate::lane::{self, Lease};
use crate::module::lock;
use crate::slot::Slot;
use crate::supervisor::Event;

impl Shared {
    /// Sets a claimed lane to work: leased at once where it is back in the pool, which is nearly always.
    pub(crate) fn activate(self: &Arc<Self>, slot: usize) {
        let lanes = self.slots[slot].lanes();
        // Lanes, supervisors and the watchdog wake lanes too, and deadpool's time-outs want the runtime's clock.
        let _runtime = self.runtime.enter();
        let first = std::pin::pin!(lanes.get()).poll(&mut Context::from_waker(Waker::noop()));
        match first {
            Poll::Ready(leased) => self.leased(slot, leased),
            Poll::Pending => {
                let shared = Arc::clone(self);
                let lanes = lanes.clone();
                // The claim belongs to this task now: a caller that goes away cannot lose it.
                self.runtime.spawn(async move {
                    let leased = lanes.get().await;
                    shared.leased(slot, leased);
                });
            }
        }
    }

    fn leased(self: &Arc<Self>, slot: usize, leased: Result<Lease, PoolError<CkrError>>) {
        match leased {
            Ok(lease) => {
                if lane::run(lease).is_err() {
                    self.lane_left(&Arc::clone(&self.slots[slot]), VecDeque::new());
                }
            }
            Err(error) => {
                let slot = Arc::clone(&self.slots[slot]);
                self.not_opened(&slot, error);
                self.lane_left(&slot, VecDeque::new());
            }
        }
    }

    /// A leased lane is out of the pool. `rest` is what it took and did not begin.
    pub(crate) fn lane_left(self: &Arc<Self>, slot: &Arc<Slot>, rest: VecDeque<Job>) {
        {
            let mut dispatch = lock(&self.dispatch);
            let lanes = &mut dispatch.lanes[slot.index];
            lanes.busy = lanes.busy.saturating_sub(1);
            for job in rest {
                dispatch.push_retry(job);
            }
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
        let claimed = {
            let mut dispatch = lock(&self.dispatch);
            let idle = dispatch.lanes[slot].idle;
            let count = dispatch.work_for(slot, idle);
            dispatch.lanes[slot].idle -= count;
            dispatch.lanes[slot].busy += count;
            count
        };
        for _ in 0..claimed {
            self.activate(slot);
        }
    }

    /// Has missing lanes opened, by one task at a time, while the slot's gate is open.
    pub(crate) fn replace(self: &Arc<Self>, slot: &Arc<Slot>) {
        let gate = lock(&self.dispatch).lanes[slot.index].gate;
        if !gate || self.closing.load(Ordering::Acquire) || slot.counters.warming.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, slot) = (Arc::clone(self), Arc::clone(slot));
        self.runtime.spawn(async move {
            slot.counters.warming.store(false, Ordering::Release);
            let _ = shared.warm(&slot).await;
        });
    }

    /// Opens lanes until there are as many as the cap allows. Those that are idle meanwhile stay at work: they are set aside only until
    /// deadpool has begun to open the new one, since it hands out what it has before it makes more.
    pub(crate) async fn warm(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), CkrError> {
        let _one_at_a_time = slot.warming.lock().await;
        let lanes = slot.lanes();
        while lanes.status().size < lanes.status().max_size && !lanes.is_closed() {
            let claimed = {
                let mut dispatch = lock(&self.dispatch);
                let idle = std::mem::take(&mut dispatch.lanes[slot.index].idle);
                dispatch.lanes[slot.index].busy += idle;
                idle
            };
            let mut aside = Vec::with_capacity(claimed);
            for _ in 0..claimed {
                match lanes.get().await {
                    Ok(lease) => aside.push(lease),
                    Err(error) => {
                        self.lane_left_quietly(slot);
                        self.not_opened(slot, error);
                    }
                }
            }
            let mut opening = std::pin::pin!(lanes.get());
            let early = std::future::poll_fn(|context| match opening.as_mut().poll(context) {
                Poll::Ready(leased) => Poll::Ready(Some(leased)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
            for lease in aside {
                self.leased(slot.index, Ok(lease));
            }
            let leased = match early {
                Some(leased) => leased,
                None => opening.await,
            };
            match leased {
                Ok(lease) => {
                    lock(&self.dispatch).lanes[slot.index].busy += 1;
                    self.leased(slot.index, Ok(lease));
                }
                Err(error) => return Err(self.not_opened(slot, error)),
            }
        }
        Ok(())
    }

    fn lane_left_quietly(&self, slot: &Slot) {
        let mut dispatch = lock(&self.dispatch);
        let lanes = &mut dispatch.lanes[slot.index];
        lanes.busy = lanes.busy.saturating_sub(1);
    }

    /// A lane could not be opened.
    fn not_opened(self: &Arc<Self>, slot: &Arc<Slot>, error: PoolError<CkrError>) -> CkrError {
        let error = match error {
            PoolError::Backend(error) if error == lane::CLOSED => return error,
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
