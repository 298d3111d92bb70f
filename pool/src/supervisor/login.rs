//! The login rung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys as ck;

use super::{Supervisor, Trouble};
use crate::bounded::bounded;
use crate::ckr::CkrError;
use crate::driver::TokenFacts;
use crate::login::{LoginError, login_once};

impl Supervisor {
    /// The login rung: the sessions stay, the keeper logs in.
    pub(super) fn log_in_again(&self, at: usize) -> Result<(), Trouble> {
        let watched = &self.slots[at];
        let id = watched.slot.slot_id().ok_or(CkrError {
            function: "C_OpenSession",
            code: ck::CKR_SESSION_HANDLE_INVALID as u64,
        })?;
        let facts = bounded(&self.shared, &watched.slot, "C_GetTokenInfo", move |driver| {
            driver.facts(id)
        })?;
        watched.slot.counters.logins.fetch_add(1, Ordering::Relaxed);
        self.log_in(at, id, &facts)
    }

    /// One login. A call that hangs is given up like any other, but not its mark: the thread that is inside keeps it until it returns, and the
    /// slot is latched meanwhile.
    pub(super) fn log_in(&self, at: usize, id: u64, facts: &TokenFacts) -> Result<(), Trouble> {
        let slot = &self.slots[at].slot;
        let (latches, config, facts) = (self.latches.clone(), slot.config.clone(), facts.clone());
        let inside = Arc::new(AtomicBool::new(false));
        let called = Arc::clone(&inside);
        let outcome = bounded(&self.shared, slot, "C_Login", move |driver| {
            Ok(login_once(&latches, &config, &facts, |pin| {
                called.store(true, Ordering::Release);
                driver.login(id, pin)
            }))
        });
        match outcome {
            Ok(Ok(())) => {
                slot.logged_in();
                Ok(())
            }
            Ok(Err(LoginError::Latched { reason, error })) => {
                error.iter().for_each(|error| slot.note(error));
                Err(Trouble::Latched(reason))
            }
            Ok(Err(LoginError::NotTried(error))) => Err(Trouble::Unfit(error)),
            Err(error) if inside.load(Ordering::Acquire) => {
                slot.note(&error);
                Err(Trouble::Latched(
                    "C_Login does not return: whether the PIN is right is not known".into(),
                ))
            }
            Ok(Err(LoginError::Call(error))) | Err(error) => Err(Trouble::Call(error)),
        }
    }
}
