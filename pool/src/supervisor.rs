//! The supervisor of a module: one thread that does what the ladder orders for every slot of it. In come failures from the lanes and the
//! passing of time; out go calls to the module and open or closed gates. It alone opens, logs in and reinitialises, so that no two threads
//! ever do that to the same module at once.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cryptoki_sys as ck;

use crate::bounded::bounded;
use crate::ckr::CkrError;
use crate::driver::{self, TokenFacts};
use crate::error::OpenError;
use crate::health;
use crate::ladder::{self, Backoff, Ladder, Order, Rung, SlotState};
use crate::latch::{Latch, Verdict};
use crate::module::lock;
use crate::shared::Shared;
use crate::slot::{Cap, Recovery, Slot, Standing};

/// What a supervisor hears.
pub(crate) enum Event {
    /// A call that began at `since` failed.
    Failed {
        slot: usize,
        since: Standing,
        rung: Rung,
        error: CkrError,
    },
    /// A lost call came back.
    Returned { slot: usize },
    /// An operator allows one login.
    Unlatch { slot: usize },
    /// Discover keys again.
    Rediscover {
        slot: usize,
        done: tokio::sync::oneshot::Sender<Result<(), CkrError>>,
    },
    /// End: close every session, then the module.
    Stop { done: tokio::sync::oneshot::Sender<()> },
}

/// Why a slot could not be brought back.
enum Trouble {
    Call(CkrError),
    /// The PIN must not be tried.
    Latched(String),
    /// The configuration does not fit the token; waiting may mend it, as when a token is plugged in.
    Unfit(OpenError),
}

impl From<CkrError> for Trouble {
    fn from(error: CkrError) -> Self {
        Self::Call(error)
    }
}

pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    slots: Vec<Watched>,
}

struct Watched {
    slot: Arc<Slot>,
    ladder: Ladder,
    latch: Latch,
    /// Result of the first opening, until it is reported.
    first: Option<Result<(), OpenError>>,
}

/// How a supervisor tells how the first opening went: one result per slot.
pub(crate) type FirstReport = mpsc::Sender<(usize, Result<(), OpenError>)>;

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, slots: Vec<Arc<Slot>>, state_dir: Option<&std::path::Path>) -> Self {
        let slots = slots
            .into_iter()
            .map(|slot| {
                let backoff = Backoff {
                    min: slot.config.backoff_min,
                    max: slot.config.backoff_max,
                };
                // Any seed will do that differs between slots and processes.
                let seed = u64::from(std::process::id()) << 8 | slot.index as u64;
                Watched {
                    ladder: Ladder::new(backoff, seed),
                    latch: Latch::of(state_dir, &slot.name),
                    slot,
                    first: None,
                }
            })
            .collect();
        Self { shared, slots }
    }

    /// Opens every slot once, reports, and then watches until told to stop.
    pub(crate) fn run(mut self, events: &mpsc::Receiver<Event>, report: FirstReport) {
        if let Some(first) = self.slots.first() {
            first.slot.driver.enter();
        }
        for at in 0..self.slots.len() {
            self.act(at, Order::Recover(Rung::Slot));
            let watched = &mut self.slots[at];
            let first = watched.first.take().unwrap_or(Ok(()));
            // Whoever opened the pool may have gone away.
            let _ = report.send((watched.slot.index, first));
        }
        drop(report);
        loop {
            match events.recv_timeout(self.next_wait()) {
                Ok(Event::Stop { done }) => {
                    self.stop();
                    let _ = done.send(());
                    return;
                }
                Ok(event) => self.hear(event),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.tick();
        }
    }

    fn next_wait(&self) -> Duration {
        let now = Instant::now();
        let circuits = self
            .slots
            .iter()
            .filter_map(|w| w.ladder.due())
            .map(|due| due.saturating_duration_since(now));
        let heartbeats = self
            .slots
            .iter()
            .filter_map(|w| health::until_heartbeat(&self.shared, &w.slot));
        circuits
            .chain(heartbeats)
            .min()
            .unwrap_or(Duration::from_secs(3600))
            .max(Duration::from_millis(1))
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Failed {
                slot,
                since,
                rung,
                error,
            } => {
                let Some(at) = self.at(slot) else { return };
                let watched = &mut self.slots[at];
                if !watched.slot.concerns(since, rung) {
                    return;
                }
                let successes = watched.slot.counters.signatures.load(Ordering::Relaxed);
                let order = watched.ladder.failed(rung, successes);
                if order == Order::Rest && *watched.ladder.state() == SlotState::Ready {
                    return;
                }
                tracing::warn!(token = %watched.slot.name, %error, ?rung, ?order, "the slot leaves service");
                self.act(at, order);
            }
            Event::Returned { slot } => {
                let Some(at) = self.at(slot) else { return };
                let now = Instant::now();
                let order = self.slots[at].ladder.returned(now);
                self.act(at, order);
            }
            Event::Unlatch { slot } => {
                let Some(at) = self.at(slot) else { return };
                if let Err(error) = self.slots[at].latch.clear() {
                    tracing::error!(%error, "the latch file cannot be removed");
                    return;
                }
                self.slots[at].ladder.unlatch();
                self.publish(at);
            }
            Event::Rediscover { slot, done } => {
                let Some(at) = self.at(slot) else { return };
                let _ = done.send(self.rediscover(at));
            }
            Event::Stop { .. } => {}
        }
    }

    fn at(&self, slot: usize) -> Option<usize> {
        self.slots.iter().position(|watched| watched.slot.index == slot)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for at in 0..self.slots.len() {
            // A call that is out would forbid C_Finalize.
            let alone = self.slots.iter().enumerate().all(|(other, watched)| {
                watched.slot.counters.live.load(Ordering::Acquire) == 0
                    && (other == at || *watched.ladder.state() != SlotState::Ready)
            });
            let order = self.slots[at].ladder.tick(now, alone);
            self.act(at, order);
            if *self.slots[at].ladder.state() == SlotState::Ready {
                health::heartbeat_if_idle(&self.shared, &self.slots[at].slot);
            }
        }
    }

    /// Does what the ladder orders, and climbs on while recoveries fail.
    fn act(&mut self, at: usize, mut order: Order) {
        while let Order::Recover(rung) = order {
            self.publish(at);
            let slot = Arc::clone(&self.slots[at].slot);
            slot.recovering_since.store(self.shared.clock.now(), Ordering::Release);
            let begun = Instant::now();
            let recovery = Recovery::at(rung);
            slot.counters.recoveries[recovery as usize].fetch_add(1, Ordering::Relaxed);
            let outcome = match recovery {
                Recovery::Login => self.log_in_again(at),
                Recovery::Slot => self.reopen(at),
                Recovery::Module => self.reinitialise(at),
            };
            slot.recovering_since.store(0, Ordering::Release);
            order = self.conclude(at, rung, outcome, begun);
        }
    }

    fn conclude(&mut self, at: usize, rung: Rung, outcome: Result<(), Trouble>, begun: Instant) -> Order {
        let watched = &mut self.slots[at];
        let slot = &watched.slot;
        let now = Instant::now();
        let order = match outcome {
            Ok(()) => {
                watched
                    .ladder
                    .recovered(slot.counters.signatures.load(Ordering::Relaxed));
                tracing::info!(token = %slot.name, ?rung, took = ?begun.elapsed(), "the slot is in service");
                watched.first.get_or_insert(Ok(()));
                Order::Rest
            }
            Err(Trouble::Latched(reason)) => {
                tracing::error!(token = %slot.name, %reason, "PIN latched: no login until an operator acts (muhurdar token unlatch)");
                watched.first.get_or_insert(Err(OpenError::Latched {
                    token: slot.name.to_string(),
                    reason: reason.clone(),
                }));
                watched.ladder.latch(reason);
                Order::Rest
            }
            Err(Trouble::Call(error)) => {
                slot.note(&error);
                let found = ladder::classify(&error, &slot.config.module_fault_codes);
                let order = watched.ladder.still_failing(&error, found, now);
                tracing::warn!(token = %slot.name, %error, ?rung, ?order, next = ?watched.ladder.due().map(|due| due.saturating_duration_since(now)), "recovery failed");
                if order == Order::Rest {
                    watched.first.get_or_insert(Err(OpenError::Token {
                        token: slot.name.to_string(),
                        error,
                    }));
                }
                order
            }
            Err(Trouble::Unfit(error)) => {
                tracing::error!(token = %slot.name, %error, "the token cannot be used");
                watched.first.get_or_insert(Err(error));
                let away = CkrError {
                    function: "C_GetSlotList",
                    code: ck::CKR_TOKEN_NOT_PRESENT as u64,
                };
                watched.ladder.still_failing(&away, Rung::Slot, now)
            }
        };
        self.publish(at);
        order
    }

    /// Shows the ladder's state, and opens or closes gate and circuit accordingly.
    fn publish(&self, at: usize) {
        let watched = &self.slots[at];
        let state = watched.ladder.state().clone();
        let (gate, ready) = match state {
            SlotState::Ready => (true, true),
            SlotState::Recovering { .. } => (false, true),
            SlotState::Open { .. } | SlotState::Latched { .. } => (false, false),
        };
        lock(&watched.slot.opened).state = state;
        self.shared.set(&watched.slot, gate, ready);
        if gate {
            self.shared.replace(&watched.slot);
        }
    }

    /// The login rung: the sessions stay, the keeper logs in.
    fn log_in_again(&self, at: usize) -> Result<(), Trouble> {
        let watched = &self.slots[at];
        let id = watched.slot.slot_id().ok_or(CkrError {
            function: "C_OpenSession",
            code: ck::CKR_SESSION_HANDLE_INVALID as u64,
        })?;
        let facts = bounded(&self.shared, &watched.slot, "C_GetTokenInfo", move |driver| {
            driver.facts(id)
        })?;
        self.log_in(at, id, &facts)
    }

    /// One login, if nothing speaks against it. A PIN that is refused latches.
    fn log_in(&self, at: usize, id: u64, facts: &TokenFacts) -> Result<(), Trouble> {
        let Watched { slot, latch, .. } = &self.slots[at];
        if facts.flags.protected_authentication_path() {
            return Err(Trouble::Unfit(OpenError::Unfit {
                token: slot.name.to_string(),
                cause:
                    "its PIN is entered at the token (CKF_PROTECTED_AUTHENTICATION_PATH); an unattended service cannot"
                        .into(),
            }));
        }
        if !facts.flags.login_required() {
            return Ok(());
        }
        if let Verdict::Refuse(why) = latch.may_try(facts.flags) {
            return Err(Trouble::Latched(why));
        }
        let pin = slot.config.pin.read(&slot.name).map_err(Trouble::Unfit)?;
        match slot.driver.login(id, &pin) {
            Ok(()) => {
                slot.logged_in();
                Ok(())
            }
            Err(error) if ladder::latches(&error) => {
                slot.note(&error);
                latch.set(&error.to_string());
                Err(Trouble::Latched(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The slot rung: a new epoch.
    fn reopen(&self, at: usize) -> Result<(), Trouble> {
        self.quiesce(&self.slots[at].slot);
        self.open(at)
    }

    /// Ends the epoch of a slot and waits for its lanes to close their sessions. Lost ones are not waited for.
    fn quiesce(&self, slot: &Arc<Slot>) {
        lock(&self.shared.dispatch).lanes[slot.index].gate = false;
        slot.counters.opens.store(false, Ordering::SeqCst);
        slot.end_epoch();
        let until = Instant::now() + slot.config.call_budget;
        loop {
            let gone = slot.lanes().retain(|_, _| false).removed.len();
            {
                let mut dispatch = lock(&self.shared.dispatch);
                let lanes = &mut dispatch.lanes[slot.index];
                lanes.idle = lanes.idle.saturating_sub(gone);
            }
            let live = slot.counters.live.load(Ordering::SeqCst);
            if live <= slot.counters.lost.load(Ordering::Acquire) || Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        if let Some(id) = slot.slot_id() {
            slot.driver.close(id);
        }
    }

    /// Opens a slot from nothing: token, keeper session, login, keys, lanes, and a signature as proof.
    fn open(&self, at: usize) -> Result<(), Trouble> {
        let slot = &self.slots[at].slot;
        slot.counters.openings.fetch_add(1, Ordering::Relaxed);
        let tokens = bounded(&self.shared, slot, "C_GetSlotList", |driver| {
            driver.start()?;
            driver.tokens()
        })?;
        let facts = driver::select(&tokens, &slot.config.select)
            .map_err(|why| Trouble::Unfit(OpenError::Selection(format!("token {}: {why}", slot.name))))?;
        let id = facts.slot;
        bounded(&self.shared, slot, "C_OpenSession", move |driver| driver.open(id))?;
        lock(&slot.opened).facts = Some(facts.clone());
        self.log_in(at, facts.slot, &facts)?;
        let found = bounded(&self.shared, slot, "C_FindObjects", move |driver| driver.discover(id))?;
        for key in &found {
            if let Some(why) = &key.refused {
                tracing::warn!(token = %slot.name, label = %key.label, "key refused: {why}");
            }
        }
        let handles = self.shared.keys.merge(slot.index, &found);
        let cap = Cap::of(&slot.config, &facts);
        tracing::info!(token = %slot.name, slot = facts.slot, sessions = cap.sessions, reason = %cap.reason, keys = found.len(), "effective cap");
        slot.counters.cap.store(cap.sessions, Ordering::Relaxed);
        slot.lanes().resize(cap.sessions);
        {
            let mut opened = lock(&slot.opened);
            opened.handles = Arc::new(handles);
            opened.cap = cap;
        }
        let proof = health::Proof::of(&self.shared, slot);
        bounded(&self.shared, slot, "C_Sign", move |driver| proof.made(driver, id))?;
        slot.counters.opens.store(true, Ordering::SeqCst);
        self.shared.runtime.block_on(self.shared.warm(slot)).or_else(|error| {
            // Fewer sessions than wished are enough to begin with.
            if slot.lanes().status().size > 0 {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        Ok(())
    }

    fn rediscover(&self, at: usize) -> Result<(), CkrError> {
        let slot = &self.slots[at].slot;
        let Some(id) = slot.slot_id() else {
            return Err(CkrError {
                function: "C_FindObjects",
                code: ck::CKR_TOKEN_NOT_PRESENT as u64,
            });
        };
        let found = bounded(&self.shared, slot, "C_FindObjects", move |driver| driver.discover(id))?;
        let handles = self.shared.keys.merge(slot.index, &found);
        lock(&slot.opened).handles = Arc::new(handles);
        // Lanes carry the handles of their epoch: begin a new one without touching keeper or login.
        slot.end_epoch();
        let gone = slot.lanes().retain(|_, _| false).removed.len();
        {
            let mut dispatch = lock(&self.shared.dispatch);
            let lanes = &mut dispatch.lanes[slot.index];
            lanes.idle = lanes.idle.saturating_sub(gone);
        }
        self.shared.replace(slot);
        Ok(())
    }

    /// The module rung: every slot of the module goes down with it, and comes up again.
    fn reinitialise(&mut self, at: usize) -> Result<(), Trouble> {
        for other in (0..self.slots.len()).filter(|other| *other != at) {
            self.slots[other].ladder.swept();
            self.publish(other);
        }
        for watched in &self.slots {
            self.quiesce(&watched.slot);
        }
        let slot = Arc::clone(&self.slots[at].slot);
        if !slot.driver.can_kill() {
            // PKCS#11 3.1, section 5.4.2: C_Finalize while another thread is in a call is undefined. A lost call must come back first.
            let out: usize = self
                .slots
                .iter()
                .map(|w| w.slot.counters.live.load(Ordering::Acquire))
                .sum();
            if out > 0 {
                tracing::error!(token = %slot.name, out, "calls are still out: the module cannot be reinitialised (isolation = \"process\" could)");
                return Err(CkrError {
                    function: "C_Finalize",
                    code: ck::CKR_FUNCTION_FAILED as u64,
                }
                .into());
            }
        }
        slot.counters.reinitialisations.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = bounded(&self.shared, &slot, "C_Finalize", |driver| driver.stop()) {
            tracing::warn!(token = %slot.name, %error, "ending the module");
        }
        bounded(&self.shared, &slot, "C_Initialize", |driver| driver.start())?;
        let outcome = self.open(at);
        for other in (0..self.slots.len()).filter(|other| *other != at) {
            let order = match self.slots[other].ladder.state() {
                SlotState::Recovering { .. } | SlotState::Open { .. } => self.slots[other].ladder.retry_now(),
                _ => Order::Rest,
            };
            if let Order::Recover(_) = order {
                let begun = Instant::now();
                let opened = self.open(other);
                // What it orders next waits for its own tick.
                let _ = self.conclude(other, Rung::Slot, opened, begun);
            }
        }
        outcome
    }

    fn stop(&mut self) {
        for watched in &self.slots {
            self.shared.set(&watched.slot, false, false);
            self.quiesce(&watched.slot);
        }
        let Some(first) = self.slots.first() else { return };
        let out: usize = self
            .slots
            .iter()
            .map(|w| w.slot.counters.live.load(Ordering::Acquire))
            .sum();
        if out > 0 && !first.slot.driver.can_kill() {
            tracing::warn!(out, "calls are still out: the module is left as it is");
            return;
        }
        if let Err(error) = first.slot.driver.leave() {
            tracing::warn!(%error, "ending the module");
        }
    }
}

/// Slots by their module: a supervisor for each.
pub(crate) fn by_driver(slots: &[Arc<Slot>]) -> Vec<Vec<Arc<Slot>>> {
    let mut modules: HashMap<usize, Vec<Arc<Slot>>> = HashMap::new();
    let mut order = Vec::new();
    for slot in slots {
        let module = Arc::as_ptr(&slot.driver).cast::<()>() as usize;
        modules.entry(module).or_insert_with(|| {
            order.push(module);
            Vec::new()
        });
        if let Some(of) = modules.get_mut(&module) {
            of.push(Arc::clone(slot));
        }
    }
    order.into_iter().filter_map(|module| modules.remove(&module)).collect()
}
