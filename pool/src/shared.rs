//! What requests, lanes, supervisors and the watchdog share, and the moves between them. Nothing here calls a token.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use deadpool::managed::{PoolError, TimeoutType};
use tokio::sync::oneshot;

use crate::ckr::CkrError;
use crate::dispatch::{Dispatch, Take};
use crate::error::SignError;
use crate::job::{Job, Reply, SignInput, Signed};
use crate::ladder::{Rung, SlotState};
use crate::lane::{self, Lease};
use crate::module::lock;
use crate::queue::TokenMask;
use crate::slot::{Clock, Slot, Standing};
use crate::supervisor::Event;
use crate::table::{Entry, Table};

pub(crate) struct Shared {
    pub(crate) dispatch: Mutex<Dispatch>,
    pub(crate) slots: Vec<Arc<Slot>>,
    /// The supervisor of each slot's module, by slot.
    pub(crate) supervisors: Vec<mpsc::Sender<Event>>,
    pub(crate) keys: Table,
    pub(crate) clock: Clock,
    pub(crate) check_signatures: bool,
    pub(crate) queue_limit: usize,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) closing: AtomicBool,
    /// When the watchdog has looked last, in nanoseconds of the clock.
    pub(crate) watched: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// Times that a request is tried at most beyond once for each session of its slot: all of them can be dead at once, and each
/// is found out by a request.
const MAX_ATTEMPTS: usize = 4;
/// Times that a request is tried where the failure may be its own.
const MAX_BLAMED: u8 = 2;

pub(crate) type Answer = oneshot::Receiver<Result<Signed, SignError>>;

impl Shared {
    /// Puts a request into the queue and wakes a lane for it.
    pub(crate) fn submit(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        input: SignInput,
        tag: u64,
        deadline: Option<Instant>,
    ) -> Result<Answer, SignError> {
        let tokens = entry.tokens();
        let (reply, answer) = oneshot::channel();
        let job = Job {
            entry,
            tokens,
            tag,
            deadline,
            queued: Instant::now(),
            attempts: 0,
            blamed: 0,
            avoid: None,
            input,
            reply: Reply::Caller(reply),
        };
        let claimed = {
            let mut dispatch = lock(&self.dispatch);
            if dispatch.closed {
                return Err(SignError::Closed);
            }
            if tokens.and(dispatch.ready()).is_empty() {
                drop(dispatch);
                return Err(self.unavailable(tokens));
            }
            if dispatch.waiting() >= self.queue_limit || dispatch.queue.push(job).is_some() {
                return Err(SignError::Overloaded {
                    limit: self.queue_limit,
                });
            }
            dispatch.claim(tokens, None)
        };
        if let Some(slot) = claimed {
            self.activate(slot);
        }
        Ok(answer)
    }

    /// Why none of these tokens can sign.
    pub(crate) fn unavailable(&self, tokens: TokenMask) -> SignError {
        if tokens.is_empty() {
            return SignError::Unavailable {
                reason: "the key is on no token any more".into(),
                retry_after: None,
            };
        }
        let mut reasons = Vec::new();
        let mut retry_after = None;
        for slot in self.slots.iter().filter(|slot| tokens.has(slot.index)) {
            let opened = lock(&slot.opened);
            let state = match &opened.state {
                SlotState::Ready => "not ready".to_owned(),
                SlotState::Recovering { rung } => format!("being brought back ({rung:?})"),
                SlotState::Open { rung, attempts } => {
                    retry_after = Some(slot.config.backoff_min.max(Duration::from_millis(100)));
                    format!("circuit open ({rung:?}, {attempts} attempts)")
                }
                SlotState::Latched { reason } => format!("PIN latched: {reason}"),
            };
            let cause = opened
                .last_error
                .map_or(String::new(), |(error, _)| format!(", after {error}"));
            reasons.push(format!("{}: {state}{cause}", slot.name));
        }
        SignError::Unavailable {
            reason: reasons.join("; "),
            retry_after,
        }
    }

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

    /// Work for a lane that is leased.
    pub(crate) fn take(&self, slot: &Slot) -> Take {
        let mut dispatch = lock(&self.dispatch);
        let (batch, _) = slot.batch(dispatch.queue.len());
        dispatch.take(slot.index, batch)
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

    /// Tells the supervisor of a failure; from the login rung on, the gate closes at once.
    pub(crate) fn slot_failed(&self, slot: &Slot, since: Standing, rung: Rung, error: CkrError) {
        {
            // Asked under the lock that opens the gate: a failure that is already mended must not close it behind the supervisor.
            let mut dispatch = lock(&self.dispatch);
            if !slot.concerns(since, rung) {
                return;
            }
            if rung >= Rung::Login {
                dispatch.lanes[slot.index].gate = false;
            }
        }
        // The supervisor lives as long as the pool; at its end nobody needs to know.
        let _ = self.supervisors[slot.index].send(Event::Failed {
            slot: slot.index,
            since,
            rung,
            error,
        });
    }

    /// A job failed on `slot` and nothing was released: again elsewhere, or on another session, or its answer.
    pub(crate) fn retry(self: &Arc<Self>, slot: &Slot, mut job: Job, why: SignError, blame: bool) {
        if let Reply::Nobody = job.reply {
            return;
        }
        job.attempts = job.attempts.saturating_add(1);
        job.blamed += u8::from(blame);
        job.avoid = Some(slot.index);
        let claimed = {
            let mut dispatch = lock(&self.dispatch);
            let most = (MAX_ATTEMPTS + slot.counters.cap.load(Ordering::Relaxed)).min(usize::from(u8::MAX));
            let spent = usize::from(job.attempts) >= most || job.blamed >= MAX_BLAMED;
            if spent || dispatch.closed || job.tokens.and(dispatch.ready()).is_empty() {
                drop(dispatch);
                let why = if spent { why } else { self.unavailable(job.tokens) };
                job.answer(Err(why));
                return;
            }
            let (tokens, avoid) = (job.tokens, job.avoid);
            dispatch.push_retry(job);
            dispatch.claim(tokens, avoid)
        };
        if let Some(slot) = claimed {
            self.activate(slot);
        }
    }

    /// A job that this slot will not take: another one may, else its answer is `why`.
    pub(crate) fn failed_elsewhere(self: &Arc<Self>, slot: &Slot, mut job: Job, why: SignError) {
        let elsewhere = TokenMask(job.tokens.0 & !TokenMask::one(slot.index).0);
        let other = !elsewhere.and(lock(&self.dispatch).ready()).is_empty();
        if other && job.attempts == 0 {
            job.tokens = elsewhere;
            self.retry(slot, job, why, true);
        } else {
            job.answer(Err(why));
        }
    }

    /// Opens or closes a slot's gate and circuit, and refuses what no slot can serve any more.
    pub(crate) fn set(self: &Arc<Self>, slot: &Slot, gate: bool, ready: bool) {
        let stranded = {
            let mut dispatch = lock(&self.dispatch);
            dispatch.lanes[slot.index].gate = gate;
            dispatch.lanes[slot.index].ready = ready;
            if ready { Vec::new() } else { dispatch.evict() }
        };
        for job in stranded {
            let why = self.unavailable(job.tokens);
            job.answer(Err(why));
        }
        if gate {
            self.kick(slot.index);
        }
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
