//! A slot: one token's place in the pool. It knows its epoch (each opening begins a new one, and lanes and handles belong to theirs),
//! its lanes, and its numbers. What is done to it, its supervisor does ([`crate::supervisor`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use deadpool::managed::Timeouts;

use crate::ckr::CkrError;
use crate::config::TokenConfig;
use crate::driver::{Driver, TokenFacts};
use crate::ladder::{Rung, SlotState};
use crate::lane::{LaneCell, LanePool, Lease};
use crate::module::lock;
use crate::table::Handles;

pub(crate) struct Slot {
    pub(crate) index: usize,
    pub(crate) name: Arc<str>,
    pub(crate) config: TokenConfig,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) lanes: OnceLock<LanePool>,
    /// Held by the one task that opens lanes: one at a time, as SoftHSM2 2.6.1 can crash when many sessions open at once.
    pub(crate) warming: tokio::sync::Mutex<()>,
    /// Lanes as the watchdog sees them.
    pub(crate) cells: Mutex<Vec<Weak<LaneCell>>>,
    pub(crate) opened: Mutex<Opened>,
    epoch: AtomicU64,
    logins: AtomicU64,
    pub(crate) counters: Counters,
    /// Whether its keys were found at least once since the pool was opened.
    pub(crate) read: AtomicBool,
    /// Since when the supervisor works on this slot, in nanoseconds of the pool's clock; 0: it does not.
    pub(crate) recovering_since: AtomicU64,
}

/// How a slot stood when a call on it began. A failure says nothing of what has been mended since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    epoch: u64,
    logins: u64,
}

/// What the current epoch knows.
pub(crate) struct Opened {
    pub(crate) facts: Option<TokenFacts>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) cap: Cap,
    pub(crate) state: SlotState,
    /// It gave signatures that do not verify and is out of service for that.
    pub(crate) distrusted: bool,
    pub(crate) last_error: Option<(CkrError, jiff::Timestamp)>,
    /// Failed calls by the name of their return value.
    pub(crate) failures: BTreeMap<&'static str, u64>,
}

/// How many sessions sign, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// Sessions to sign with.
    pub sessions: usize,
    /// What limits them, for people.
    pub reason: String,
}

impl Cap {
    /// The least of what is configured, what the token allows beside the session that keeps the login, and its engines.
    pub(crate) fn of(config: &TokenConfig, facts: &TokenFacts) -> Self {
        if config.single_session {
            return Self {
                sessions: 1,
                reason: "single_session".into(),
            };
        }
        let mut cap = Self {
            sessions: config.sessions.max(1),
            reason: "as configured (sessions)".into(),
        };
        if let Some(max) = facts.max_sessions {
            let beside_keeper = usize::try_from(max.saturating_sub(1)).unwrap_or(usize::MAX).max(1);
            if beside_keeper < cap.sessions {
                cap = Self {
                    sessions: beside_keeper,
                    reason: format!(
                        "the token allows {max} sessions (ulMaxSessionCount), of which one keeps the login"
                    ),
                };
            }
        }
        if let Some(engines) = config.engines
            && engines.max(1) < cap.sessions
        {
            cap = Self {
                sessions: engines.max(1),
                reason: format!("the HSM has {engines} engines (engines)"),
            };
        }
        cap
    }
}

/// What was done to bring a slot back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Recovery {
    /// A new login.
    Login,
    /// The slot was opened anew.
    Slot,
    /// The module was brought down and up.
    Module,
}

impl Recovery {
    /// All of them, the deeper ones last.
    pub const ALL: [Self; 3] = [Self::Login, Self::Slot, Self::Module];

    /// In lower case, as in a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Slot => "slot",
            Self::Module => "module",
        }
    }

    /// What is done at a rung of the ladder.
    pub(crate) fn at(rung: Rung) -> Self {
        match rung {
            Rung::Request | Rung::Session | Rung::Login => Self::Login,
            Rung::Slot => Self::Slot,
            Rung::Module => Self::Module,
        }
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    /// Values that were found right.
    pub(crate) signatures: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Values that were found wrong.
    pub(crate) wrong: AtomicU64,
    pub(crate) cpu_nanos: AtomicU64,
    pub(crate) wall_nanos: AtomicU64,
    /// Threads with a session, or on their way to one.
    pub(crate) live: AtomicUsize,
    /// Of them, those whose call outlived its budget.
    pub(crate) lost: AtomicUsize,
    /// Calls that were given up so far.
    pub(crate) given_up: AtomicU64,
    /// Of them, those that came back.
    pub(crate) late: AtomicU64,
    pub(crate) openings: AtomicU64,
    /// Of them, those that found the token and went on to its login; logins alone count too.
    pub(crate) logins: AtomicU64,
    pub(crate) recoveries: [AtomicU64; Recovery::ALL.len()],
    pub(crate) reinitialisations: AtomicU64,
    pub(crate) heartbeats: AtomicU64,
    /// Nanoseconds of the pool's clock at the last signature.
    pub(crate) last_signature: AtomicU64,
    /// Moving averages over signatures, in nanoseconds: wall and CPU time of the calls.
    pub(crate) recent_wall: AtomicU64,
    pub(crate) recent_cpu: AtomicU64,
    /// The effective cap, beside the one in [`Opened`] that says why.
    pub(crate) cap: AtomicUsize,
    /// Whether lanes may be opened: not while the slot is being closed.
    pub(crate) opens: AtomicBool,
    /// Whether a lane is asked for: deadpool opens none otherwise.
    pub(crate) asked: AtomicBool,
    /// Whether a task is about to open lanes.
    pub(crate) warming: AtomicBool,
}

impl Counters {
    /// The token gave a value, right or wrong.
    pub(crate) fn made(&self, now: u64, wall: Duration, cpu: Duration) {
        let (wall, cpu) = (nanos(wall), nanos(cpu));
        self.cpu_nanos.fetch_add(cpu, Ordering::Relaxed);
        self.wall_nanos.fetch_add(wall, Ordering::Relaxed);
        self.last_signature.store(now, Ordering::Relaxed);
        // Lost updates between lanes blur an average, which does not mind.
        let ease = |average: &AtomicU64, value: u64| {
            let before = average.load(Ordering::Relaxed);
            average.store(
                if before == 0 {
                    value
                } else {
                    before - before / 16 + value / 16
                },
                Ordering::Relaxed,
            );
        };
        ease(&self.recent_wall, wall);
        ease(&self.recent_cpu, cpu);
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Most jobs that a lane takes at once.
const MAX_BATCH: u64 = 8;
/// How long the first of a batch may wait for the last, in nanoseconds.
const LONGEST_BATCH: u64 = 2_500_000;

impl Slot {
    pub(crate) fn new(index: usize, config: TokenConfig, driver: Arc<dyn Driver>) -> Self {
        Self {
            index,
            name: config.name.as_str().into(),
            driver,
            lanes: OnceLock::new(),
            warming: tokio::sync::Mutex::new(()),
            cells: Mutex::default(),
            opened: Mutex::new(Opened {
                facts: None,
                handles: Arc::default(),
                cap: Cap {
                    sessions: 0,
                    reason: "not opened yet".into(),
                },
                state: SlotState::Open {
                    rung: Rung::Slot,
                    attempts: 0,
                },
                distrusted: false,
                last_error: None,
                failures: BTreeMap::new(),
            }),
            config,
            epoch: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            counters: Counters::default(),
            read: AtomicBool::new(false),
            recovering_since: AtomicU64::new(0),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends the epoch: its lanes retire as they notice, its handles are void.
    pub(crate) fn end_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The keeper has logged in: who was not logged in before may be now.
    pub(crate) fn logged_in(&self) {
        self.logins.fetch_add(1, Ordering::AcqRel);
    }

    /// How it stands now, for a call in `epoch`.
    pub(crate) fn standing(&self, epoch: u64) -> Standing {
        Standing {
            epoch,
            logins: self.logins.load(Ordering::Acquire),
        }
    }

    /// Whether a failure at `rung` of a call that began at `since` is still to be mended: sixteen lanes notice a lost login, and one login is
    /// the answer to all of them.
    pub(crate) fn concerns(&self, since: Standing, rung: Rung) -> bool {
        let now = self.standing(self.epoch());
        since.epoch == now.epoch && (rung != Rung::Login || since.logins == now.logins)
    }

    pub(crate) fn lanes(&self) -> &LanePool {
        self.lanes
            .get()
            .expect("the lanes are made before anything can ask for one (Pool::open)")
    }

    /// An idle lane, if there is one: opens none and waits for none. Called under the lock of [`Shared::dispatch`](crate::shared::Shared).
    pub(crate) fn idle_lane(&self) -> Option<Lease> {
        const AT_ONCE: Timeouts = Timeouts {
            wait: Some(Duration::ZERO),
            create: None,
            recycle: None,
        };
        let lease = std::pin::pin!(self.lanes().timeout_get(&AT_ONCE));
        match lease.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(lease) => lease.ok(),
            // Nothing in there waits: a lane that nobody asked for is refused (`LaneManager::create`), and a check makes no call.
            Poll::Pending => None,
        }
    }

    /// How busy its lanes are, in thousandths; one without lanes is as busy as can be.
    pub(crate) fn load(&self) -> usize {
        let lanes = self.lanes().status();
        1000 - (lanes.available * 1000).checked_div(lanes.size).unwrap_or(0)
    }

    /// Lanes in the pool, and lanes that are leased.
    pub(crate) fn idle_and_busy(&self) -> (usize, usize) {
        // deadpool's own count of those that are available takes one off for each that is being opened.
        let idle = self.lanes().retain(|_, _| true).retained;
        (idle, self.lanes().status().size.saturating_sub(idle))
    }

    pub(crate) fn slot_id(&self) -> Option<u64> {
        lock(&self.opened).facts.as_ref().map(|facts| facts.slot)
    }

    pub(crate) fn note(&self, error: &CkrError) {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let mut opened = lock(&self.opened);
        *opened.failures.entry(error.name()).or_insert(0) += 1;
        opened.last_error = Some((*error, jiff::Timestamp::now()));
    }

    /// For what is no failed call.
    pub(crate) fn last_error(&self, error: &CkrError) {
        lock(&self.opened).last_error = Some((*error, jiff::Timestamp::now()));
    }

    /// How many jobs a lane takes at once, and why. Where the token's calls burn this machine's CPU, the lanes are as many as the work
    /// can use and a hand-over costs what signing could have had; where they wait for a distant HSM, a batch would make one request wait
    /// for another's round trip.
    pub(crate) fn batch(&self, queued: usize) -> (usize, &'static str) {
        let wall = self.counters.recent_wall.load(Ordering::Relaxed);
        let cpu = self.counters.recent_cpu.load(Ordering::Relaxed);
        batch_size(wall, cpu, queued, self.counters.cap.load(Ordering::Relaxed).max(1))
    }
}

fn batch_size(wall: u64, cpu: u64, queued: usize, lanes: usize) -> (usize, &'static str) {
    if wall == 0 {
        (1, "no signature yet")
    } else if cpu * 4 < wall {
        (1, "the token is remote: its calls wait")
    } else if LONGEST_BATCH / wall < 2 {
        (1, "the token is slow: a batch would hold requests up")
    } else {
        let most = usize::try_from((LONGEST_BATCH / wall).min(MAX_BATCH)).unwrap_or(1);
        // Each lane its share of what waits: the others must find work too.
        (
            (queued / lanes).clamp(1, most),
            "the token's calls burn this machine's CPU",
        )
    }
}

/// The pool's clock: nanoseconds since it was opened, never 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
    pub(crate) fn now(self) -> u64 {
        nanos(self.0.elapsed()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pin, Select};
    use crate::driver::TokenFlags;

    fn facts(max_sessions: Option<u64>) -> TokenFacts {
        TokenFacts {
            slot: 0,
            label: String::new(),
            serial: String::new(),
            manufacturer: String::new(),
            model: String::new(),
            firmware: (0, 0),
            flags: TokenFlags(0),
            max_sessions,
        }
    }

    #[test]
    fn the_cap_is_the_least_of_config_token_and_engines_and_says_which() {
        let mut config = TokenConfig::new("t", "/m", Select::Only, Pin::value("1"));
        config.sessions = 256;
        assert_eq!(Cap::of(&config, &facts(None)).sessions, 256);
        let capped = Cap::of(&config, &facts(Some(33)));
        assert_eq!(capped.sessions, 32);
        assert!(capped.reason.contains("allows 33"), "{}", capped.reason);
        config.engines = Some(16);
        let capped = Cap::of(&config, &facts(Some(33)));
        assert_eq!((capped.sessions, capped.reason.contains("engines")), (16, true));
        config.single_session = true;
        assert_eq!(Cap::of(&config, &facts(None)).sessions, 1);
    }

    #[test]
    fn a_batch_is_for_tokens_that_burn_cpu_and_never_starves_the_other_lanes() {
        assert_eq!(batch_size(3_000_000, 20_000, 100, 4).0, 1);
        assert_eq!(batch_size(600_000, 590_000, 8, 4).0, 2);
        assert_eq!(batch_size(600_000, 590_000, 1000, 4).0, 4, "2.5 ms");
        assert_eq!(batch_size(50_000, 50_000, 1000, 4).0, 8);
        assert_eq!(batch_size(2_000_000, 2_000_000, 1000, 4).0, 1);
        assert_eq!(batch_size(600_000, 590_000, 1, 4).0, 1);
        assert_eq!(batch_size(0, 0, 100, 4).0, 1);
    }
}
