//! What the ladder orders, done; and what came of it, told to the ladder and shown to the lanes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cryptoki_sys as ck;

use super::{Supervisor, Trouble, Watched};
use crate::ckr::CkrError;
use crate::error::OpenError;
use crate::health;
use crate::ladder::{self, Order, Rung, SlotState};
use crate::login;
use crate::module::lock;
use crate::queue::TokenMask;
use crate::slot::Recovery;
use crate::trust::Lie;

impl Supervisor {
    /// Does what the ladder orders, and climbs on while recoveries fail.
    pub(super) fn act(&mut self, at: usize, mut order: Order) {
        if order == Order::Look {
            order = self.look(at);
        }
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

    /// A value of a slot did not verify. One that loses its place for it has to prove itself before it gets it back.
    pub(super) fn lied(&mut self, at: usize, lie: Lie, heartbeat: bool) {
        let (spared, alone) = (self.spared(at), self.alone(at));
        let Watched { slot, ladder, .. } = &mut self.slots[at];
        if *ladder.state() != SlotState::Ready {
            return;
        }
        let order = ladder.lied(lie, spared, alone);
        if *ladder.state() == SlotState::Ready {
            if heartbeat {
                // Nobody else may ask it for a long time: it is asked again at once.
                health::heartbeat(&self.shared, slot);
            }
            return;
        }
        let wrong = slot.counters.wrong.load(Ordering::Relaxed);
        tracing::error!(token = %slot.name, wrong, ?order, "the token gave signatures that do not verify; none was released, and it is out of service until checked ones are right");
        self.publish(at);
        if order == Order::Rest {
            // It waits, and not with its sessions: they would forbid that its module is started anew.
            let slot = Arc::clone(&self.slots[at].slot);
            self.quiesce(&slot);
        }
        self.act(at, order);
    }

    /// Whether other tokens that are ready hold every key of a slot.
    fn spared(&self, at: usize) -> bool {
        let slot = &self.slots[at].slot;
        let others = lock(&self.shared.dispatch).ready().0 & !TokenMask::one(slot.index).0;
        let handles = Arc::clone(&lock(&slot.opened).handles);
        handles
            .keys()
            .filter_map(|key| self.shared.keys.get(key))
            .all(|entry| entry.tokens().0 & others != 0)
    }

    /// Sees whether a token that was away is there, and brings it back where it is. What is not there is no news, and is not logged.
    fn look(&mut self, at: usize) -> Order {
        let slot = Arc::clone(&self.slots[at].slot);
        let begun = Instant::now();
        // A look that hangs is lost like any other call: one at a time.
        if slot.counters.lost.load(Ordering::Acquire) > 0 && !slot.driver.can_kill() {
            self.slots[at].ladder.looked(begun, Duration::ZERO);
            return Order::Rest;
        }
        let outcome = self.reopen(at);
        if slot.counters.logins.load(Ordering::Relaxed) == self.slots[at].logins {
            self.slots[at].ladder.looked(Instant::now(), begun.elapsed());
            return Order::Rest;
        }
        slot.counters.recoveries[Recovery::Slot as usize].fetch_add(1, Ordering::Relaxed);
        self.conclude(at, Rung::Slot, outcome, begun)
    }

    pub(super) fn conclude(&mut self, at: usize, rung: Rung, outcome: Result<(), Trouble>, begun: Instant) -> Order {
        let alone = self.alone(at);
        let watched = &mut self.slots[at];
        let slot = &watched.slot;
        let now = Instant::now();
        let logins = slot.counters.logins.load(Ordering::Relaxed);
        let logged_in = std::mem::replace(&mut watched.logins, logins) != logins;
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
                let error = login::latched(&self.latches, &slot.name, reason.clone());
                tracing::error!(token = %slot.name, %error, "PIN latched");
                watched.first.get_or_insert(Err(error));
                watched.ladder.latch(reason);
                Order::Rest
            }
            Err(Trouble::Call(error)) => {
                slot.note(&error);
                let found = ladder::classify(&error, &slot.config.module_fault_codes);
                let order = watched.ladder.still_failing(&error, found, alone, now, logged_in);
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
                watched.ladder.still_failing(&away, Rung::Slot, alone, now, logged_in)
            }
        };
        self.publish(at);
        order
    }

    /// Shows the ladder's state, and opens or closes gate and circuit accordingly.
    pub(super) fn publish(&self, at: usize) {
        let watched = &self.slots[at];
        let state = watched.ladder.state().clone();
        let (gate, ready) = match state {
            SlotState::Ready => (true, true),
            SlotState::Recovering { .. } => (false, true),
            SlotState::Open { .. } | SlotState::Latched { .. } => (false, false),
        };
        {
            let mut opened = lock(&watched.slot.opened);
            opened.state = state;
            opened.distrusted = watched.ladder.is_distrusted();
        }
        self.shared.set(&watched.slot, gate, ready);
        if gate {
            self.shared.replace(&watched.slot);
        }
    }
}
