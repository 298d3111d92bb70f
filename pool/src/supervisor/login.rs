//! The login rung.

use std::sync::atomic::Ordering;

use cryptoki_sys as ck;

use super::{Supervisor, Trouble, Watched};
use crate::bounded::bounded;
use crate::ckr::CkrError;
use crate::driver::TokenFacts;
use crate::error::OpenError;
use crate::ladder;
use crate::latch::Verdict;

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

    /// One login, if nothing speaks against it. A PIN that is refused latches.
    pub(super) fn log_in(&self, at: usize, id: u64, facts: &TokenFacts) -> Result<(), Trouble> {
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
}
