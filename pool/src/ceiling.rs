//! What a token can do by itself: the raw `C_Sign` rate with so many sessions, by the same call that the lanes make. Every figure of the
//! service is a share of this one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::admin::{LibraryFacts, Object};
use crate::config::TokenConfig;
use crate::driver::{self, Driver, FoundKey, SignCall, TokenFacts, TokenSession};
use crate::error::{CkrError, OpenError};
use crate::exit::Visit;
use crate::health::probe_call;
use crate::job::{Hash, SignInput};
use crate::keys::{KeyId, KeyKind};
use crate::latch::Latches;
use crate::login::login_once;
use crate::qualify::MechanismFacts;
use crate::table::Entry;

/// A measured rate.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling {
    /// Sessions, each on its own thread.
    pub sessions: usize,
    /// Signatures made.
    pub signatures: u64,
    /// Wall time from the first call to the last answer.
    pub elapsed: Duration,
    /// CPU time of this machine inside the calls.
    pub token_cpu: Duration,
}

impl Ceiling {
    /// Signatures per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let signatures = self.signatures as f64;
        signatures / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A token opened beside whatever else uses it, by the driver that the service would use: to measure it, and to look at it.
pub(crate) struct Bench {
    name: String,
    driver: Arc<dyn Driver>,
    pub(crate) facts: TokenFacts,
    single: bool,
    /// The keeper session is this one's, and not that of a pool of this process.
    own_keeper: bool,
    pub(crate) keys: Vec<FoundKey>,
    _visit: Visit,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.own_keeper {
            self.driver.close(self.facts.slot);
        }
    }
}

impl Bench {
    pub(crate) fn open(token: &TokenConfig, latches: &Latches) -> Result<Self, OpenError> {
        let visit = Visit::begin();
        let driver = driver::driver(token, None)?;
        let fails = |error| OpenError::Token {
            token: token.name.clone(),
            error,
        };
        let tokens = driver.start().and_then(|()| driver.tokens()).map_err(fails)?;
        let facts = driver::select(&tokens, &token.select).map_err(OpenError::Selection)?;
        // A login is the application's, not the session's (PKCS#11 3.1, section 5.6.7): where a pool of this process has one, it is shared.
        let own_keeper = !driver.is_open(facts.slot);
        if own_keeper {
            driver.open(facts.slot).map_err(fails)?;
        } else if token.single_session {
            return Err(OpenError::Config(format!(
                "token {:?} has one session, and the pool of this process uses it",
                token.name
            )));
        }
        let mut bench = Self {
            name: token.name.clone(),
            driver,
            facts,
            single: token.single_session,
            own_keeper,
            keys: Vec::new(),
            _visit: visit,
        };
        if own_keeper {
            let Self { driver, facts, .. } = &bench;
            login_once(latches, token, facts, |pin| driver.login(facts.slot, pin))
                .map_err(|e| e.told(latches, &token.name))?;
        }
        bench.keys = bench.driver.discover(bench.facts.slot).map_err(fails)?;
        Ok(bench)
    }

    fn session(&self) -> Result<Box<dyn TokenSession>, CkrError> {
        self.driver.session(self.facts.slot, self.single)
    }

    fn call<T>(&self, result: Result<T, CkrError>) -> Result<T, OpenError> {
        result.map_err(|error| OpenError::Token {
            token: self.name.clone(),
            error,
        })
    }

    pub(crate) fn objects(&self) -> Result<Vec<Object>, OpenError> {
        self.call(self.driver.objects(self.facts.slot))
    }

    pub(crate) fn library(&self) -> Result<LibraryFacts, OpenError> {
        self.call(self.driver.library())
    }

    pub(crate) fn mechanisms(&self) -> Result<Vec<Option<MechanismFacts>>, OpenError> {
        self.call(self.driver.mechanisms(self.facts.slot))
    }

    /// Signs once, with this hash or the one that goes with the key; answers whether the signature verifies with the key's own public key.
    pub(crate) fn once(&self, token: &TokenConfig, key: &FoundKey, hash: Option<Hash>) -> Result<bool, CkrError> {
        let invalid = CkrError {
            function: "C_SignInit",
            code: cryptoki_sys::CKR_KEY_TYPE_INCONSISTENT as u64,
        };
        let kind = KeyKind::of_spki(&key.spki_der).ok_or(invalid)?;
        let hash = hash.unwrap_or_else(|| kind.default_hash());
        let input = SignInput::message(hash, &b"muhurdar check"[..]);
        let mut data = Vec::new();
        let mechanism = probe_call(kind, token.rsa_mechanism, &input, &mut data);
        let made = self.session()?.sign(&SignCall {
            handle: key.handle,
            mechanism,
            data: &data,
            length: kind.signature_len(),
        })?;
        let entry = Entry::new(KeyId(0), kind, key);
        Ok(entry.verify(&input, &made.value) != Some(false))
    }

    /// Signs with `sessions` threads for `duration`.
    pub(crate) fn run(
        &self,
        token: &TokenConfig,
        key: &FoundKey,
        sessions: usize,
        duration: Duration,
    ) -> Result<Ceiling, CkrError> {
        let invalid = CkrError {
            function: "C_SignInit",
            code: cryptoki_sys::CKR_KEY_TYPE_INCONSISTENT as u64,
        };
        let kind = KeyKind::of_spki(&key.spki_der).ok_or(invalid)?;
        let input = SignInput::message(kind.default_hash(), &b"muhurdar ceiling"[..]);
        let mut data = Vec::new();
        let mechanism = probe_call(kind, token.rsa_mechanism, &input, &mut data);
        let call = SignCall {
            handle: key.handle,
            mechanism,
            data: &data,
            length: kind.signature_len(),
        };
        // One after the other: SoftHSM2 2.6.1 can crash when many open at once.
        let opened = (0..if self.single { 1 } else { sessions.max(1) })
            .map(|_| self.session())
            .collect::<Result<Vec<_>, _>>()?;
        let count = opened.len();
        let (stop, start) = (AtomicBool::new(false), Barrier::new(count + 1));
        let work = |mut session: Box<dyn TokenSession>| -> Result<(u64, Duration), CkrError> {
            start.wait();
            let (mut signatures, mut cpu) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                cpu += session.sign(&call)?.cpu;
                signatures += 1;
            }
            Ok((signatures, cpu))
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = opened
                .into_iter()
                .map(|session| scope.spawn(|| work(session)))
                .collect();
            start.wait();
            let begun = Instant::now();
            std::thread::sleep(duration);
            stop.store(true, Ordering::Relaxed);
            let mut total = Ceiling {
                sessions: count,
                signatures: 0,
                elapsed: Duration::ZERO,
                token_cpu: Duration::ZERO,
            };
            // Every one, before an error ends this: a scope by itself does not wait for what a library does at a thread's end.
            let ended: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
            for outcome in ended {
                let (signatures, cpu) = outcome.unwrap_or(Err(invalid))?;
                total.signatures += signatures;
                total.token_cpu += cpu;
            }
            total.elapsed = begun.elapsed();
            Ok(total)
        })
    }
}

/// Measures the raw rate of a token: `sessions` threads call `C_SignInit` and `C_Sign` for `duration`, with the key that has this public
/// key (SubjectPublicKeyInfo, DER), or with any. Blocks. Runs beside an open pool as well, and then takes its share from it.
///
/// # Errors
/// Where the token cannot be opened, its PIN is latched, it has no such key, or it fails.
pub fn ceiling(
    token: &TokenConfig,
    latches: &Latches,
    spki_der: Option<&[u8]>,
    sessions: usize,
    duration: Duration,
) -> Result<Ceiling, OpenError> {
    let bench = Bench::open(token, latches)?;
    let key = bench
        .keys
        .iter()
        .find(|key| key.refused.is_none() && spki_der.is_none_or(|spki| *spki == *key.spki_der))
        .ok_or_else(|| OpenError::Selection(format!("token {} has no such key to sign with", token.name)))?;
    bench
        .run(token, key, sessions, duration)
        .map_err(|error| OpenError::Token {
            token: token.name.clone(),
            error,
        })
}
