//! What the module pretends, and the decision for each call. No FFI here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki_sys as ck;

/// A session, as the pretence sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Session {
    pub(crate) slot: u64,
    /// The HSM has forgotten it: every call answers `CKR_SESSION_HANDLE_INVALID`.
    pub(crate) dead: bool,
    /// A failed signature left its operation active for ever.
    pub(crate) stuck: bool,
}

/// When a rule applies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// So many more times.
    Times(u64),
    /// At the call of this number, counted from now, once.
    At(u64),
    /// At each Nth call; the second number counts down to the next.
    Every(u64, u64),
    /// Always.
    Always,
    /// With this probability.
    Chance(f64),
}

/// What a rule does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    /// Answers instead of forwarding.
    Answer(u64),
    /// Answers, and leaves the session's operation active for ever.
    Stick(u64),
    /// Waits for `release`, then goes on.
    Hang,
    /// Flips a bit of the signature.
    Flip,
    /// Aborts the process.
    Crash,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) function: String,
    /// Only on the token with this label.
    pub(crate) label: Option<String>,
    pub(crate) when: When,
    pub(crate) deed: Deed,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) sessions: HashMap<u64, Session>,
    pub(crate) labels: HashMap<u64, String>,
    pub(crate) rules: Vec<Rule>,
    /// Labels of the tokens that are out of their slots.
    pub(crate) removed: Vec<String>,
    /// Slots whose login the HSM has forgotten.
    pub(crate) forgotten_logins: Vec<u64>,
    /// The channel is gone until the module is initialised anew: everything answers this.
    pub(crate) channel: Option<u64>,
    pub(crate) finalized: bool,
    /// Sessions that a slot allows, and whether the token says so.
    pub(crate) cap: Option<(usize, bool)>,
    /// Wrong PINs until the lock, and wrong PINs so far by slot.
    pub(crate) pin_tries: Option<u32>,
    pub(crate) wrong_pins: HashMap<u64, u32>,
    /// Least and most latency of a signature.
    pub(crate) latency: (Duration, Duration),
    /// No signature is made before this instant.
    pub(crate) stalled_until: Option<Instant>,
    /// Further latency of calls, by function; `*` is every one.
    pub(crate) slow: Vec<(String, Duration)>,
    pub(crate) engines: Option<usize>,
    pub(crate) engines_busy: usize,
    /// Signatures are made once per key and then repeated: the module costs no CPU.
    pub(crate) canned: bool,
    /// Read-only sessions are refused, as AWS CloudHSM's library does.
    pub(crate) no_read_only: bool,
    pub(crate) no_locks: bool,
    pub(crate) cans: HashMap<u64, Vec<u8>>,
    pub(crate) calls: BTreeMap<&'static str, u64>,
    /// Calls that hang now.
    pub(crate) hanging: usize,
    /// Bumped by `release`.
    pub(crate) releases: u64,
    pub(crate) random: u64,
}

pub(crate) static STATE: Mutex<Option<State>> = Mutex::new(None);
pub(crate) static CHANGED: Condvar = Condvar::new();

/// The state, under its lock.
pub(crate) struct Locked(MutexGuard<'static, Option<State>>);

pub(crate) fn lock() -> Locked {
    let mut guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_with(|| State {
        random: 0x9e37_79b9_7f4a_7c15,
        ..State::default()
    });
    Locked(guard)
}

impl std::ops::Deref for Locked {
    type Target = State;
    fn deref(&self) -> &State {
        self.0.as_ref().expect("lock() has put a state there")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("lock() has put a state there")
    }
}

impl Locked {
    /// Waits until something changes.
    fn wait(self) -> Self {
        Self(CHANGED.wait(self.0).unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        #[allow(clippy::cast_precision_loss)]
        let share = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        share
    }

    pub(crate) fn latency(&mut self) -> Duration {
        let (least, most) = self.latency;
        least + most.saturating_sub(least).mul_f64(self.chance())
    }

    /// Takes the first rule that applies to this call.
    fn rule(&mut self, function: &str, slot: Option<u64>) -> Option<Deed> {
        let label = slot.and_then(|slot| self.labels.get(&slot).cloned());
        for at in 0..self.rules.len() {
            let rule = &self.rules[at];
            if rule.function != function || rule.label.is_some() && rule.label != label {
                continue;
            }
            let deed = rule.deed;
            match rule.when {
                When::Always => return Some(deed),
                When::Chance(probability) => {
                    if self.chance() < probability {
                        return Some(deed);
                    }
                }
                When::Times(0) | When::At(0) => {}
                When::Every(n, left) => {
                    let due = left <= 1;
                    self.rules[at].when = When::Every(n, if due { n } else { left - 1 });
                    if due {
                        return Some(deed);
                    }
                }
                When::At(left) => {
                    self.rules[at].when = When::At(left - 1);
                    if left == 1 {
                        return Some(deed);
                    }
                }
                When::Times(left) => {
                    self.rules[at].when = When::Times(left - 1);
                    return Some(deed);
                }
            }
        }
        None
    }

    pub(crate) fn is_removed(&self, slot: u64) -> bool {
        self.labels.get(&slot).is_some_and(|label| self.removed.contains(label))
    }
}

/// Counts a call of `C_Login` where `FAULTY_TOKEN_LOGINS` names a file: a byte each, before anything else happens, so that a call counts whatever
/// becomes of it and whichever process made it.
pub(crate) fn count_login() {
    let Some(path) = std::env::var_os("FAULTY_TOKEN_LOGINS") else {
        return;
    };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    if let Err(error) = opened.and_then(|mut file| std::io::Write::write_all(&mut file, b".")) {
        // A count that is short would let a test pass.
        eprintln!("faulty token: cannot count in {}: {error}", path.display());
        std::process::abort();
    }
}

/// The calls of `C_Login` of all processes, where they are counted.
pub(crate) fn logins() -> Option<u64> {
    let path = std::env::var_os("FAULTY_TOKEN_LOGINS")?;
    Some(std::fs::metadata(path).map_or(0, |file| file.len()))
}

/// What a call does after the pretence has had its say.
pub(crate) struct Verdict {
    pub(crate) flip: bool,
}

/// Takes as long as calls of this function were told to.
pub(crate) fn dawdle(function: &str) {
    let of = |(name, _): &&(String, Duration)| name == "*" || name == function;
    let slow = lock().slow.iter().filter(of).map(|(_, time)| *time).sum();
    if slow > Duration::ZERO {
        std::thread::sleep(slow);
    }
}

/// Decides on a call: `Err` is its answer.
pub(crate) fn decide(function: &'static str, session: Option<u64>, slot: Option<u64>) -> Result<Verdict, u64> {
    dawdle(function);
    let mut state = lock();
    *state.calls.entry(function).or_default() += 1;
    if state.finalized {
        return Err(ck::CKR_CRYPTOKI_NOT_INITIALIZED as u64);
    }
    if let Some(code) = state.channel {
        return Err(code);
    }
    let known = session.and_then(|session| state.sessions.get(&session).copied());
    let slot = slot.or(known.map(|known| known.slot));
    if session.is_some() && known.is_none_or(|known| known.dead) {
        return Err(ck::CKR_SESSION_HANDLE_INVALID as u64);
    }
    if slot.is_some_and(|slot| state.is_removed(slot)) {
        let code = if session.is_some() {
            ck::CKR_DEVICE_REMOVED
        } else {
            ck::CKR_TOKEN_NOT_PRESENT
        };
        return Err(code as u64);
    }
    if function == "C_SignInit" {
        if known.is_some_and(|known| known.stuck) {
            return Err(ck::CKR_OPERATION_ACTIVE as u64);
        }
        if slot.is_some_and(|slot| state.forgotten_logins.contains(&slot)) {
            return Err(ck::CKR_USER_NOT_LOGGED_IN as u64);
        }
    }
    match state.rule(function, slot) {
        None => Ok(Verdict { flip: false }),
        Some(Deed::Flip) => Ok(Verdict { flip: true }),
        Some(Deed::Answer(code)) => Err(code),
        Some(Deed::Stick(code)) => {
            if let Some(session) = session.and_then(|session| state.sessions.get_mut(&session)) {
                session.stuck = true;
            }
            Err(code)
        }
        Some(Deed::Crash) => std::process::abort(),
        Some(Deed::Hang) => {
            let until = state.releases;
            state.hanging += 1;
            while state.releases == until {
                state = state.wait();
            }
            state.hanging -= 1;
            Ok(Verdict { flip: false })
        }
    }
}

/// Takes an engine, waits as long as the HSM would, gives the engine back.
pub(crate) fn work() {
    let mut state = lock();
    while state.engines.is_some_and(|engines| state.engines_busy >= engines) {
        state = state.wait();
    }
    state.engines_busy += 1;
    let stalled = state
        .stalled_until
        .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
    let latency = state.latency() + stalled;
    drop(state);
    if !latency.is_zero() {
        // The kernel lets a sleeper oversleep by 50 us unless it is told not to; an HSM of 3 ms would be one of 3.05 ms.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        std::thread::sleep(latency);
    }
    let mut state = lock();
    state.engines_busy -= 1;
    let waited_for = state.engines.is_some();
    drop(state);
    if waited_for {
        CHANGED.notify_one();
    }
}
