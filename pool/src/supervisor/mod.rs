//! The supervisor of a module: one thread that does what the ladder orders for every slot of it. In come failures from the lanes and the
//! passing of time; out go calls to the module and open or closed gates. It alone opens, logs in and reinitialises, so that no two threads
//! ever do that to the same module at once.
//!
//! Here is the thread and what it hears; `climb` does what the ladder orders, and each rung has its file: `login`, `reopen`, `reinitialise`.
//! `found` tells everybody what is on a token.

mod climb;
mod found;
mod login;
mod reinitialise;
mod reopen;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::ckr::CkrError;
use crate::error::OpenError;
use crate::health;
use crate::ladder::{Backoff, Ladder, Order, Rung, SlotState};
use crate::latch::{Latch, Latches};
use crate::module::lock;
use crate::shared::Shared;
use crate::slot::{Slot, Standing};
use crate::trust::Lie;

/// What a supervisor hears.
pub(crate) enum Event {
    /// A call that began at `since` failed.
    Failed {
        slot: usize,
        since: Standing,
        rung: Rung,
        error: CkrError,
    },
    /// A value that was made at `since` did not verify.
    Lied {
        slot: usize,
        since: Standing,
        lie: Lie,
        heartbeat: bool,
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

impl Trouble {
    /// A module did not start: why, in as many words as are known.
    fn not_started(slot: &Slot, error: CkrError) -> Self {
        slot.driver.trouble().map_or(Self::Call(error), Self::Unfit)
    }
}

impl From<CkrError> for Trouble {
    fn from(error: CkrError) -> Self {
        Self::Call(error)
    }
}

pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    slots: Vec<Watched>,
    latches: Latches,
}

struct Watched {
    slot: Arc<Slot>,
    ladder: Ladder,
    /// Result of the first opening, until it is reported.
    first: Option<Result<(), OpenError>>,
    /// Attempts that went as far as the login, up to the last that was concluded.
    logins: u64,
    /// When it was looked last whether an operator has opened the latch.
    asked: Instant,
}

/// How often a latched slot is looked at for an operator's word.
const WORD: Duration = Duration::from_secs(1);

/// How a supervisor tells how the first opening went: one result per slot.
pub(crate) type FirstReport = mpsc::Sender<(usize, Result<(), OpenError>)>;

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, slots: Vec<Arc<Slot>>, latches: Latches) -> Self {
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
                    slot,
                    first: None,
                    logins: 0,
                    asked: Instant::now(),
                }
            })
            .collect();
        Self { shared, slots, latches }
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
            .filter_map(|w| w.ladder.wakes())
            .map(|wakes| wakes.saturating_duration_since(now));
        let words = self
            .slots
            .iter()
            .filter(|w| matches!(w.ladder.state(), SlotState::Latched { .. }))
            .map(|w| (w.asked + WORD).saturating_duration_since(now));
        let heartbeats = self
            .slots
            .iter()
            .filter_map(|w| health::until_heartbeat(&self.shared, &w.slot));
        circuits
            .chain(words)
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
            Event::Lied {
                slot,
                since,
                lie,
                heartbeat,
            } => {
                let Some(at) = self.at(slot) else { return };
                if self.slots[at].slot.concerns(since, Rung::Slot) {
                    self.lied(at, lie, heartbeat);
                }
            }
            Event::Returned { slot } => {
                let Some(at) = self.at(slot) else { return };
                let now = Instant::now();
                let order = self.slots[at].ladder.returned(now);
                self.act(at, order);
            }
            Event::Unlatch { slot } => {
                let Some(at) = self.at(slot) else { return };
                if let Err(error) = self.latches.unlatch(&self.slots[at].slot.name) {
                    tracing::error!(token = %self.slots[at].slot.name, %error, "the latch cannot be opened");
                    return;
                }
                self.look_at_latch(at);
            }
            Event::Rediscover { slot, done } => {
                let Some(at) = self.at(slot) else { return };
                let _ = done.send(self.rediscover(at));
            }
            Event::Stop { .. } => {}
        }
    }

    /// An operator may have opened the latch from another process (`muhurdar token unlatch`): then the PIN is tried, once.
    fn hear_of_a_word(&mut self, at: usize, now: Instant) {
        let watched = &mut self.slots[at];
        if !matches!(watched.ladder.state(), SlotState::Latched { .. })
            || now.saturating_duration_since(watched.asked) < WORD
        {
            return;
        }
        watched.asked = now;
        self.look_at_latch(at);
    }

    /// Looks again whether a latch stands: an operator may have opened it, here or in another process, or a login that was given up has come to
    /// a good end. If not, the PIN may be tried once.
    fn look_at_latch(&mut self, at: usize) {
        let watched = &mut self.slots[at];
        let facts = lock(&watched.slot.opened).facts.clone();
        if facts.is_none_or(|facts| Latch::of(&self.latches, &watched.slot.name, &facts).is_open()) {
            tracing::info!(token = %watched.slot.name, "the PIN latch is open: one login is tried");
            watched.ladder.unlatch();
            self.publish(at);
        }
    }

    fn at(&self, slot: usize) -> Option<usize> {
        self.slots.iter().position(|watched| watched.slot.index == slot)
    }

    /// Whether no other slot of the module works, so that nobody is hit where it is started anew for this one.
    fn alone(&self, at: usize) -> bool {
        self.slots.iter().enumerate().all(|(other, watched)| {
            other == at
                || watched.slot.counters.live.load(Ordering::Acquire) == 0
                    && *watched.ladder.state() != SlotState::Ready
        })
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for at in 0..self.slots.len() {
            self.hear_of_a_word(at, now);
            // A call that is out would forbid C_Finalize.
            let alone = self.alone(at) && self.slots[at].slot.counters.live.load(Ordering::Acquire) == 0;
            let order = self.slots[at].ladder.tick(now, alone);
            self.act(at, order);
            if *self.slots[at].ladder.state() == SlotState::Ready {
                health::heartbeat_if_idle(&self.shared, &self.slots[at].slot);
            }
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
