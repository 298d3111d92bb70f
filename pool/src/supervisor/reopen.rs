//! The slot rung: a slot is closed and opened anew, and its keys are found.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Supervisor, Trouble};
use crate::bounded::bounded;
use crate::driver;
use crate::error::OpenError;
use crate::keys::KeyId;
use crate::module::lock;
use crate::proof::Proof;
use crate::slot::{Cap, Slot};

impl Supervisor {
    /// The slot rung: a new epoch.
    pub(super) fn reopen(&self, at: usize) -> Result<(), Trouble> {
        self.quiesce(&self.slots[at].slot);
        self.open(at)
    }

    /// Ends the epoch of a slot and waits for its lanes to close their sessions. Lost ones are not waited for.
    pub(super) fn quiesce(&self, slot: &Arc<Slot>) {
        lock(&self.shared.dispatch).places[slot.index].gate = false;
        slot.counters.opens.store(false, Ordering::SeqCst);
        slot.end_epoch();
        let until = Instant::now() + slot.config.call_budget;
        loop {
            drop(slot.lanes().retain(|_, _| false));
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
    pub(super) fn open(&self, at: usize) -> Result<(), Trouble> {
        let slot = &self.slots[at].slot;
        slot.counters.openings.fetch_add(1, Ordering::Relaxed);
        let tokens = bounded(&self.shared, slot, "C_GetSlotList", |driver| {
            driver.start()?;
            driver.tokens()
        })
        .map_err(|error| Trouble::not_started(slot, error))?;
        let facts = driver::select(&tokens, &slot.config.select)
            .map_err(|why| Trouble::Unfit(OpenError::Selection(format!("token {}: {why}", slot.name))))?;
        let id = facts.slot;
        bounded(&self.shared, slot, "C_OpenSession", move |driver| driver.open(id))?;
        lock(&slot.opened).facts = Some(facts.clone());
        slot.counters.logins.fetch_add(1, Ordering::Relaxed);
        self.log_in(at, facts.slot, &facts)?;
        let found = bounded(&self.shared, slot, "C_FindObjects", move |driver| driver.discover(id))?;
        let handles = self.take(slot, &found);
        let cap = Cap::of(&slot.config, &facts);
        tracing::info!(token = %slot.name, slot = facts.slot, sessions = cap.sessions, reason = %cap.reason, keys = found.iter().filter(|key| key.refused.is_none()).count(), "effective cap");
        slot.counters.cap.store(cap.sessions, Ordering::Relaxed);
        slot.lanes().resize(cap.sessions);
        {
            let mut opened = lock(&slot.opened);
            opened.handles = Arc::new(handles);
            opened.cap = cap;
        }
        let proof = Proof::of(&self.shared, slot, self.slots[at].ladder.suspects());
        let odd = bounded(&self.shared, slot, "C_Sign", move |driver| proof.made(driver, id))?;
        self.take_off(slot, &odd);
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

    /// Keys that are wrong by themselves are the token's no more, until they are found anew: its other keys go on.
    fn take_off(&self, slot: &Slot, odd: &[KeyId]) {
        if odd.is_empty() {
            return;
        }
        {
            let mut opened = lock(&slot.opened);
            let others = opened.handles.without(odd);
            opened.handles = Arc::new(others);
        }
        for entry in odd.iter().filter_map(|key| self.shared.keys.get(*key)) {
            entry.leaves(slot.index);
            tracing::error!(token = %slot.name, label = %entry.label(),
                "a key's signatures never verify with its public key, while others of the token do: it is not used on this token; see that its CKA_ID is its own");
        }
    }
}
