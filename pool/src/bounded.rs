//! Calls of a supervisor that may be given up. A supervisor serves every slot of its module; when the HSM hangs while one slot is brought
//! back, the others must not be left without it. So the call is made on a thread of its own, which counts as lost until it returns, as a lane's
//! does. A login that is given up is not tried again: its thread keeps the mark ([`crate::login`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use crate::ckr::CkrError;
use crate::driver::Driver;
use crate::exit;
use crate::shared::Shared;
use crate::slot::Slot;

/// Budgets of one call that a whole step may take: finding keys is many calls.
pub(crate) const STEP: u32 = 4;

/// Who was first: the one who gives up, or the thread that comes back. Each asks once.
#[derive(Debug, Default)]
pub(crate) struct Race(AtomicBool);

impl Race {
    /// Gives up. Answers whether the thread is still out.
    pub(crate) fn give_up(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Comes back. Answers whether it was given up before.
    pub(crate) fn come_back(&self) -> bool {
        self.0.swap(true, Ordering::AcqRel)
    }
}

/// Makes a call, and waits for it as long as it may take.
///
/// # Errors
/// Its own, or `CKR_DEVICE_ERROR` where it did not return, or is not made because too many are out already.
pub(crate) fn bounded<T: Send + 'static>(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    function: &'static str,
    call: impl FnOnce(&dyn Driver) -> Result<T, CkrError> + Send + 'static,
) -> Result<T, CkrError> {
    let hangs = CkrError {
        function,
        code: cryptoki_sys::CKR_DEVICE_ERROR as u64,
    };
    let counters = &slot.counters;
    // Where the module can be killed, that is what brings the lost ones back.
    if !slot.driver.can_kill() && counters.lost.load(Ordering::Acquire) > slot.config.max_lost {
        return Err(hangs);
    }
    // A little more than a child process is given, so that it is the child that is killed.
    let patience = slot.config.call_budget * (STEP + 1);
    let race = Arc::new(Race::default());
    let (done, answer) = mpsc::sync_channel(1);
    let (theirs, of, back) = (Arc::clone(&race), Arc::clone(slot), Arc::clone(shared));
    let spawned = exit::spawn("token-call", move || {
        let result = call(&*of.driver);
        // Nobody listens any more where it was given up.
        let _ = done.send(result);
        if theirs.come_back() {
            of.counters.live.fetch_sub(1, Ordering::AcqRel);
            of.counters.lost.fetch_sub(1, Ordering::AcqRel);
            of.counters.late.fetch_add(1, Ordering::Relaxed);
            back.lane_returned(&of);
        }
    });
    if let Err(error) = spawned {
        tracing::error!(token = %slot.name, %error, "no thread for a call");
        return Err(CkrError {
            function,
            code: cryptoki_sys::CKR_HOST_MEMORY as u64,
        });
    }
    match answer.recv_timeout(patience) {
        Ok(result) => result,
        Err(_) => {
            // Counted first, so that the thread never subtracts before.
            counters.live.fetch_add(1, Ordering::AcqRel);
            let lost = counters.lost.fetch_add(1, Ordering::AcqRel) + 1;
            if race.give_up() {
                counters.given_up.fetch_add(1, Ordering::Relaxed);
                tracing::error!(token = %slot.name, call = function, ?patience, lost, "a call hangs while the slot is brought back; it is given up");
                return Err(hangs);
            }
            counters.live.fetch_sub(1, Ordering::AcqRel);
            counters.lost.fetch_sub(1, Ordering::AcqRel);
            answer.recv().unwrap_or(Err(hangs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_the_two_is_first() {
        let race = Race::default();
        assert!(race.give_up());
        assert!(race.come_back(), "given up before");
        let race = Race::default();
        assert!(!race.come_back());
        assert!(!race.give_up(), "back before");
    }
}
