//! The module rung, and the end: the module goes down with all of its slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cryptoki_sys as ck;

use super::{Supervisor, Trouble};
use crate::bounded::bounded;
use crate::ckr::CkrError;
use crate::ladder::{Order, Rung, SlotState};

impl Supervisor {
    /// The module rung: every slot of the module goes down with it, and comes up again.
    pub(super) fn reinitialise(&mut self, at: usize) -> Result<(), Trouble> {
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
        bounded(&self.shared, &slot, "C_Initialize", |driver| driver.start())
            .map_err(|error| Trouble::not_started(&slot, error))?;
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

    pub(super) fn stop(&mut self) {
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
