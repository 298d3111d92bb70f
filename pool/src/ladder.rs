//! The error ladder: what a failure means, and what is done about it. Sans-IO: it is told what happened and when, and answers with
//! the one thing to do next; it calls nothing and reads no clock.
//!
//! Request → session → login → slot → module → not ready. A failure enters at the rung that its return value names; a recovery that
//! fails climbs. The first recovery is tried at once, while requests wait; when it fails the circuit opens: requests go
//! elsewhere or are refused, and the next attempts come with backoff and jitter. Where no attempt got as far as the login, it is looked
//! between them whether the token is there, as often as ever: a look costs the token nothing, so a token that is back need not wait
//! for as long as it was away. The PIN latch stands beside the ladder: nothing climbs out of it but an operator.

use std::time::{Duration, Instant};

use cryptoki_sys as ck;

use crate::ckr::CkrError;
use crate::keys::KeyId;
use crate::trust::{Lie, Trust};

/// How deep a failure goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// The request itself is at fault. The session is discarded like after any error past `C_SignInit`; nothing else happens.
    Request,
    /// The session is of no more use.
    Session,
    /// The login is gone.
    Login,
    /// The token was away, or has forgotten what it held: handles are void.
    Slot,
    /// The module's connection to the HSM is broken: `C_Finalize` and `C_Initialize`.
    Module,
}

/// Finds the rung of a return value (PKCS#11 3.1, section 5.1, and the incident reports behind the design).
pub(crate) fn classify(error: &CkrError, module_fault_codes: &[u64]) -> Rung {
    let code = error.code;
    if module_fault_codes.contains(&code) {
        return Rung::Module;
    }
    match code as ck::CK_RV {
        ck::CKR_MECHANISM_INVALID
        | ck::CKR_MECHANISM_PARAM_INVALID
        | ck::CKR_DATA_INVALID
        | ck::CKR_DATA_LEN_RANGE
        | ck::CKR_KEY_SIZE_RANGE
        | ck::CKR_KEY_TYPE_INCONSISTENT
        | ck::CKR_KEY_FUNCTION_NOT_PERMITTED
        | ck::CKR_ARGUMENTS_BAD
        | ck::CKR_FUNCTION_NOT_SUPPORTED => Rung::Request,
        ck::CKR_USER_NOT_LOGGED_IN => Rung::Login,
        ck::CKR_DEVICE_REMOVED
        | ck::CKR_TOKEN_NOT_PRESENT
        | ck::CKR_TOKEN_NOT_RECOGNIZED
        | ck::CKR_SLOT_ID_INVALID
        | ck::CKR_KEY_HANDLE_INVALID
        | ck::CKR_OBJECT_HANDLE_INVALID => Rung::Slot,
        ck::CKR_DEVICE_ERROR | ck::CKR_CRYPTOKI_NOT_INITIALIZED => Rung::Module,
        // SESSION_HANDLE_INVALID, SESSION_CLOSED, OPERATION_ACTIVE, OPERATION_NOT_INITIALIZED, GENERAL_ERROR, FUNCTION_FAILED,
        // DEVICE_MEMORY, a vendor's own: the session is suspect, and where a new one fails too the ladder climbs.
        _ => Rung::Session,
    }
}

/// A call that succeeded and gave a signature that does not verify. No module says so of `C_Sign` (PKCS#11 3.1, section 5.13.2).
pub(crate) const WRONG_VALUE: CkrError = CkrError {
    function: "C_Sign",
    code: ck::CKR_SIGNATURE_INVALID as u64,
};

/// Whether the token is simply not there: bringing the module down for that would hit its other slots for nothing.
pub(crate) fn is_absence(error: &CkrError) -> bool {
    matches!(
        error.code as ck::CK_RV,
        ck::CKR_TOKEN_NOT_PRESENT | ck::CKR_DEVICE_REMOVED | ck::CKR_TOKEN_NOT_RECOGNIZED | ck::CKR_SLOT_ID_INVALID
    )
}

/// Where a slot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// It signs.
    Ready,
    /// It is being brought back for the first time; its requests wait.
    Recovering {
        /// What is being done.
        rung: Rung,
    },
    /// Its circuit is open: requests go elsewhere or are refused.
    Open {
        /// What the next attempt does.
        rung: Rung,
        /// Attempts that failed so far.
        attempts: u32,
    },
    /// Its PIN was refused or may not be risked: an operator must act.
    Latched {
        /// Why, for people.
        reason: String,
    },
}

/// The one thing to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing.
    Rest,
    /// Close the gate if it is open, and recover at this rung now.
    Recover(Rung),
    /// See whether the token is there, and open it if so. Where it is not, tell [`Ladder::looked`].
    Look,
}

/// Waits between attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// Session failures in a row, without a signature between them, after which new sessions are no longer the cure.
const SESSIONS_IN_A_ROW: u32 = 8;
/// Failed reopenings after which the module is suspected.
const SLOT_ATTEMPTS: u32 = 3;

/// Between two looks for a token that is away: with the opening itself, it is in service within a second.
const LOOK: Duration = Duration::from_millis(500);
/// A look that takes long, because the module waits for an HSM that does not answer, keeps the supervisor from the module's other slots:
/// so many times as long is left to them.
const REST: u32 = 4;

/// A token that stays away may be back where only a fresh C_Initialize sees it (a module that lists its slots once; Luna's HA groups): every
/// fourth attempt starts the module anew where nobody else is served by it.
const ANEW: u32 = 4;

/// A slot's place on the ladder.
#[derive(Debug)]
pub(crate) struct Ladder {
    state: SlotState,
    backoff: Backoff,
    due: Option<Instant>,
    /// When to look whether the token is there, before `due`.
    look: Option<Instant>,
    /// Attempts in a row that went as far as the login.
    logins: u32,
    session_failures: u32,
    successes_seen: u64,
    trust: Trust,
    /// The place was lost for wrong values, and no proof has been right since.
    distrusted: bool,
    jitter: fastrand::Rng,
}

impl Ladder {
    /// A slot that has never been opened: the first opening is an attempt like any other.
    pub(crate) fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            state: SlotState::Open {
                rung: Rung::Slot,
                attempts: 0,
            },
            backoff,
            due: None,
            look: None,
            logins: 0,
            session_failures: 0,
            successes_seen: 0,
            trust: Trust::default(),
            distrusted: false,
            jitter: fastrand::Rng::with_seed(seed),
        }
    }

    pub(crate) fn state(&self) -> &SlotState {
        &self.state
    }

    /// When the circuit's next attempt is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// When [`Ladder::tick`] has something to order by itself.
    pub(crate) fn wakes(&self) -> Option<Instant> {
        [self.due, self.look].into_iter().flatten().min()
    }

    /// A lane of the current epoch failed. `successes` counts the slot's signatures so far: failures with signatures between them
    /// are accidents, failures in a row are a state.
    pub(crate) fn failed(&mut self, rung: Rung, successes: u64) -> Order {
        if self.state != SlotState::Ready {
            return Order::Rest;
        }
        let rung = match rung {
            Rung::Request => return Order::Rest,
            Rung::Session => {
                self.session_failures = if successes > self.successes_seen {
                    1
                } else {
                    self.session_failures + 1
                };
                self.successes_seen = successes;
                if self.session_failures < SESSIONS_IN_A_ROW {
                    return Order::Rest;
                }
                Rung::Slot
            }
            deeper => deeper,
        };
        self.state = SlotState::Recovering { rung };
        Order::Recover(rung)
    }

    /// A value of the current epoch did not verify. `spared`: other tokens can do the slot's work. `alone`: no other slot of the module
    /// works. A slot that loses its place has to prove itself on a fresh opening; one that has just done so and lies again, on a fresh
    /// module; and from then on it waits longer each time.
    pub(crate) fn lied(&mut self, lie: Lie, spared: bool, alone: bool) -> Order {
        if self.state != SlotState::Ready {
            return Order::Rest;
        }
        let Some(losses) = self.trust.lied(lie, spared) else {
            return Order::Rest;
        };
        self.distrusted = true;
        if losses > 2 {
            let attempts = losses - 2;
            self.state = SlotState::Open {
                rung: Rung::Slot,
                attempts,
            };
            self.due = Some(lie.at + self.wait(attempts));
            return Order::Rest;
        }
        let rung = if losses > 1 && alone { Rung::Module } else { Rung::Slot };
        self.state = SlotState::Recovering { rung };
        Order::Recover(rung)
    }

    /// Whether the slot is out of service for wrong values.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    /// What a distrusted slot has to prove itself with first.
    pub(crate) fn suspects(&self) -> Option<Vec<KeyId>> {
        self.distrusted.then(|| self.trust.suspects())
    }

    /// The recovery that was ordered succeeded.
    pub(crate) fn recovered(&mut self, successes: u64) {
        if std::mem::take(&mut self.distrusted) {
            self.trust.restored();
        }
        self.state = SlotState::Ready;
        self.due = None;
        self.look = None;
        self.logins = 0;
        self.session_failures = 0;
        self.successes_seen = successes;
    }

    /// The recovery that was ordered failed with `error`. `alone`: no other slot of the module works. `logged_in`: it went as far as the
    /// login.
    pub(crate) fn still_failing(
        &mut self,
        error: &CkrError,
        found: Rung,
        alone: bool,
        now: Instant,
        logged_in: bool,
    ) -> Order {
        let (tried, attempts, first) = match self.state {
            SlotState::Recovering { rung } => (rung, 0, true),
            SlotState::Open { rung, attempts } => (rung, attempts, false),
            SlotState::Ready | SlotState::Latched { .. } => return Order::Rest,
        };
        let attempts = attempts + 1;
        let lies = *error == WRONG_VALUE;
        self.distrusted |= lies;
        let next = match tried {
            _ if found == Rung::Module => Rung::Module,
            // A lost login is worth one try on its own; then the slot is opened anew.
            Rung::Request | Rung::Session | Rung::Login => Rung::Slot,
            Rung::Slot if lies && alone && first => Rung::Module,
            // Who shares the module and tells the truth is not to suffer for another's lies.
            Rung::Slot | Rung::Module if lies => Rung::Slot,
            Rung::Slot | Rung::Module if is_absence(error) => Rung::Slot,
            Rung::Slot if attempts >= SLOT_ATTEMPTS => Rung::Module,
            same => same,
        };
        if first && next > tried {
            // Climbing is not repeating: no wait before the next rung's first try.
            self.state = SlotState::Recovering { rung: next };
            return Order::Recover(next);
        }
        self.state = SlotState::Open { rung: next, attempts };
        self.logins += u32::from(logged_in);
        // Only what costs the token something grows rarer: logins by their own number, the rest by that of all.
        // One that lies keeps its own count.
        let growing = if logged_in && !self.distrusted {
            self.logins
        } else {
            attempts
        };
        self.due = Some(now + self.wait(growing));
        self.look = (!logged_in).then(|| now + LOOK);
        Order::Rest
    }

    /// The token that was looked for is not there, and it took so long to see that.
    pub(crate) fn looked(&mut self, now: Instant, took: Duration) {
        if let SlotState::Open { .. } = self.state {
            self.look = Some(now + LOOK.max(took * REST));
        }
    }

    /// Time passes. `alone`: no other slot of the module works and no call is out, so that nobody would be hit if it were started anew.
    pub(crate) fn tick(&mut self, now: Instant, alone: bool) -> Order {
        match self.state {
            SlotState::Open {
                rung: Rung::Slot,
                attempts,
            } if alone && (self.distrusted || attempts % ANEW == ANEW - 1) && self.due.is_none_or(|due| due <= now) => {
                self.due = None;
                self.state = SlotState::Open {
                    rung: Rung::Module,
                    attempts,
                };
                Order::Recover(Rung::Module)
            }
            SlotState::Open { rung, .. } if self.due.is_none_or(|due| due <= now) => {
                self.due = None;
                Order::Recover(rung)
            }
            SlotState::Open { .. } if self.look.is_some_and(|look| look <= now) => {
                self.look = None;
                Order::Look
            }
            _ => Order::Rest,
        }
    }

    /// A lost call came back: what waited for it need not wait longer.
    pub(crate) fn returned(&mut self, now: Instant) -> Order {
        if let SlotState::Open { .. } = self.state {
            self.due = Some(now);
        }
        self.tick(now, false)
    }

    /// The module is up again: so may this slot be.
    pub(crate) fn retry_now(&mut self) -> Order {
        match self.state {
            SlotState::Recovering { .. } | SlotState::Open { .. } => {
                self.due = None;
                Order::Recover(Rung::Slot)
            }
            SlotState::Ready | SlotState::Latched { .. } => Order::Rest,
        }
    }

    /// Another slot's module is being brought down, and this slot with it.
    pub(crate) fn swept(&mut self) {
        if self.state == SlotState::Ready {
            self.state = SlotState::Recovering { rung: Rung::Slot };
        }
    }

    /// The PIN must not be tried.
    pub(crate) fn latch(&mut self, reason: String) {
        self.state = SlotState::Latched { reason };
        self.due = None;
        self.look = None;
    }

    /// An operator allows one attempt.
    pub(crate) fn unlatch(&mut self) {
        if let SlotState::Latched { .. } = self.state {
            self.state = SlotState::Open {
                rung: Rung::Slot,
                attempts: 0,
            };
            self.due = None;
            self.logins = 0;
        }
    }

    /// Doubles from the least to the most, and takes between half and the whole of that: slots that fell together do not rise together.
    fn wait(&mut self, attempts: u32) -> Duration {
        let whole = self
            .backoff
            .min
            .saturating_mul(1 << attempts.saturating_sub(1).min(16))
            .min(self.backoff.max);
        whole / 2 + whole * self.jitter.u32(0..=500) / 1000
    }
}

#[cfg(test)]
mod tests;
