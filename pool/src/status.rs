//! What the pool tells of itself, for metrics, a status page and people. Reading it costs a few locks and calls no token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ckr::CkrError;
use crate::driver::TokenFacts;
use crate::ladder::SlotState;
use crate::module::lock;
use crate::shared::Shared;
use crate::slot::{Cap, Recovery};

/// The pool at a moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Every configured token, in the order of the configuration.
    pub tokens: Vec<TokenStatus>,
    /// Requests that wait for a lane.
    pub queued: usize,
    /// Signatures since the pool was opened that were found right, heartbeats included.
    pub signatures: u64,
    /// CPU time of this machine spent inside the tokens' calls.
    pub token_cpu: Duration,
    /// Since the watchdog has last looked at every lane; it does so many times a second. Where it is stuck, a call that hangs
    /// is given up no more.
    pub watchdog_silence: Duration,
}

impl Status {
    /// Whether any token can sign.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.tokens.iter().any(TokenStatus::is_ready)
    }
}

/// One token.
#[derive(Debug, Clone)]
pub struct TokenStatus {
    /// Configured name.
    pub name: Arc<str>,
    /// The module's library.
    pub module: PathBuf,
    /// What the token said of itself when it was opened last.
    pub facts: Option<TokenFacts>,
    /// Where it stands on the error ladder; the PIN latch is here.
    pub state: SlotState,
    /// It gave signatures that do not verify, and is out of service until checked ones are right.
    pub distrusted: bool,
    /// Lanes by state.
    pub lanes: LaneCounts,
    /// Sessions that sign, and why not more.
    pub cap: Cap,
    /// Jobs that a lane takes at once, and why.
    pub batch: (usize, &'static str),
    /// Openings so far; handles and sessions belong to one.
    pub epoch: u64,
    /// Signatures that were found right, heartbeats included.
    pub signatures: u64,
    /// Calls that failed.
    pub failures: u64,
    /// The same by the name of the return value, such as `CKR_DEVICE_ERROR`; those that have occurred.
    pub failures_by: BTreeMap<&'static str, u64>,
    /// Signatures that did not verify, none of which was released.
    pub wrong: u64,
    /// Calls that did not come back within their budget and were given up.
    pub given_up: u64,
    /// Of them, those that came back.
    pub late: u64,
    /// Attempts to bring it back, in the order of [`Recovery::ALL`]; the opening that the pool begins with is one.
    pub recoveries: [u64; Recovery::ALL.len()],
    /// Times that the module was reinitialised for this slot.
    pub reinitialisations: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// CPU time of this machine inside the token's calls.
    pub token_cpu: Duration,
    /// Wall time inside the token's calls, over all lanes.
    pub token_time: Duration,
    /// The last failure.
    pub last_error: Option<(CkrError, jiff::Timestamp)>,
}

impl TokenStatus {
    /// Whether requests may count on it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state, SlotState::Ready)
    }
}

/// Lanes of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneCounts {
    /// Waiting for work.
    pub idle: usize,
    /// Working.
    pub busy: usize,
    /// In a call that outlived its budget.
    pub lost: usize,
}

pub(crate) fn read(shared: &Shared) -> Status {
    let queued = lock(&shared.dispatch).waiting();
    let tokens: Vec<_> = shared
        .slots
        .iter()
        .map(|slot| {
            let counters = &slot.counters;
            let (idle, busy) = slot.idle_and_busy();
            let opened = lock(&slot.opened);
            TokenStatus {
                name: Arc::clone(&slot.name),
                module: slot.config.module.clone(),
                facts: opened.facts.clone(),
                state: opened.state.clone(),
                distrusted: opened.distrusted,
                lanes: LaneCounts {
                    idle,
                    busy,
                    lost: counters.lost.load(Ordering::Acquire),
                },
                cap: opened.cap.clone(),
                batch: slot.batch(queued),
                epoch: slot.epoch(),
                signatures: counters.signatures.load(Ordering::Relaxed),
                failures: counters.failures.load(Ordering::Relaxed),
                wrong: counters.wrong.load(Ordering::Relaxed),
                failures_by: opened.failures.clone(),
                given_up: counters.given_up.load(Ordering::Relaxed),
                late: counters.late.load(Ordering::Relaxed),
                recoveries: counters.recoveries.each_ref().map(|n| n.load(Ordering::Relaxed)),
                reinitialisations: counters.reinitialisations.load(Ordering::Relaxed),
                heartbeats: counters.heartbeats.load(Ordering::Relaxed),
                token_cpu: Duration::from_nanos(counters.cpu_nanos.load(Ordering::Relaxed)),
                token_time: Duration::from_nanos(counters.wall_nanos.load(Ordering::Relaxed)),
                last_error: opened.last_error,
            }
        })
        .collect();
    Status {
        queued,
        signatures: tokens.iter().map(|t| t.signatures).sum(),
        token_cpu: tokens.iter().map(|t| t.token_cpu).sum(),
        watchdog_silence: Duration::from_nanos(
            shared
                .clock
                .now()
                .saturating_sub(shared.watched.load(Ordering::Relaxed)),
        ),
        tokens,
    }
}
