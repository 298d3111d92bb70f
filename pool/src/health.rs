//! Health: the watchdog, which measures every call from outside it, and the heartbeat, a real signature on a slot that lies idle: an HSM
//! reaps idle channels after 25 to 60 seconds, and the next customer should not be the one to notice.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use deadpool::managed::Object;

use crate::ckr::CkrError;
use crate::config::RsaMechanism;
use crate::driver::{Driver, SignCall};
use crate::job::{Hash, Job, Reply, SignInput};
use crate::keys::KeyKind;
use crate::ladder;
use crate::lane::LaneCell;
use crate::module::lock;
use crate::shared::Shared;
use crate::slot::{Slot, nanos};

/// How often the watchdog looks. A hang is noticed within its budget and this.
const LOOK: Duration = Duration::from_millis(20);

/// What is signed to see whether signing works: not a document's digest.
const PROBE: &[u8] = b"muhurdar heartbeat";

/// Looks at every lane until the pool is gone.
pub(crate) fn watch(pool: &Weak<Shared>) {
    while let Some(shared) = pool.upgrade() {
        if shared.closing.load(Ordering::Acquire)
            && shared
                .slots
                .iter()
                .all(|s| s.counters.live.load(Ordering::Acquire) == 0)
        {
            return;
        }
        for slot in &shared.slots {
            look(&shared, slot);
        }
        shared.watched.store(shared.clock.now(), Ordering::Relaxed);
        drop(shared);
        std::thread::sleep(LOOK);
    }
}

fn look(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    let now = shared.clock.now();
    let budget = nanos(slot.config.call_budget);
    let cells: Vec<_> = lock(&slot.cells).iter().filter_map(Weak::upgrade).collect();
    for cell in cells {
        let called = cell.called.load(Ordering::Acquire);
        if called == 0 {
            continue;
        }
        let takes = now.saturating_sub(called);
        if takes > nanos(LOOK).min(budget) {
            // What is signed already must not wait for what may hang.
            cell.tell();
        }
        if takes > budget {
            give_up(shared, slot, &cell, called);
        }
    }
    // The supervisor itself may hang in a call: then its slot's requests must not wait for it.
    let recovering = slot.recovering_since.load(Ordering::Acquire);
    if recovering != 0 && now.saturating_sub(recovering) > budget && lock(&shared.dispatch).places[slot.index].ready {
        tracing::error!(token = %slot.name, "bringing the slot back takes longer than a call may; its circuit opens");
        shared.set(slot, false, false);
    }
}

fn give_up(shared: &Arc<Shared>, slot: &Arc<Slot>, cell: &LaneCell, called: u64) {
    let (current, rest, lease) = {
        let mut held = lock(&cell.held);
        // It may have come back between the look and the lock.
        if held.lost || cell.called.load(Ordering::Acquire) != called {
            return;
        }
        held.lost = true;
        // Counted before the thread can see that it is lost, so that it never subtracts first.
        slot.counters.lost.fetch_add(1, Ordering::AcqRel);
        slot.counters.given_up.fetch_add(1, Ordering::Relaxed);
        (held.current.take(), std::mem::take(&mut held.rest), held.lease.take())
    };
    if let Some(lease) = lease {
        drop(Object::take(lease));
    }
    shared.lane_lost(slot, current, rest);
}

/// How long until a heartbeat is due, where the slot wants any.
pub(crate) fn until_heartbeat(shared: &Shared, slot: &Slot) -> Option<Duration> {
    if slot.config.heartbeat.is_zero() {
        return None;
    }
    let since = Duration::from_nanos(
        shared
            .clock
            .now()
            .saturating_sub(slot.counters.last_signature.load(Ordering::Relaxed)),
    );
    Some(
        slot.config
            .heartbeat
            .saturating_sub(since)
            .max(Duration::from_millis(10)),
    )
}

/// Queues a heartbeat for a slot that has signed nothing for its interval.
pub(crate) fn heartbeat_if_idle(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    let now = shared.clock.now();
    let since = now.saturating_sub(slot.counters.last_signature.load(Ordering::Relaxed));
    if slot.config.heartbeat.is_zero() || since < nanos(slot.config.heartbeat) {
        return;
    }
    let Some(entry) = lock(&slot.opened).handles.any().and_then(|key| shared.keys.get(key)) else {
        return;
    };
    // Until the answer comes, no second one.
    slot.counters.last_signature.store(now, Ordering::Relaxed);
    slot.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
    let input = SignInput::message(entry.kind.default_hash(), PROBE);
    let job = Job {
        tokens: entry.tokens(),
        entry,
        tag: 0,
        deadline: None,
        queued: Instant::now(),
        attempts: 0,
        blamed: 0,
        avoid: None,
        input,
        reply: Reply::Nobody,
    };
    lock(&shared.dispatch).push_heartbeat(slot.index, job);
    shared.kick(slot.index);
}

/// A signature on a session of its own before a slot takes work: an opened token that cannot sign is not open.
pub(crate) struct Proof {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl Proof {
    pub(crate) fn of(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Self {
        Self {
            shared: Arc::clone(shared),
            slot: Arc::clone(slot),
        }
    }

    /// Makes it, in slot `id` of the module.
    pub(crate) fn made(&self, driver: &dyn Driver, id: u64) -> Result<(), CkrError> {
        let Self { shared, slot } = self;
        let handles = Arc::clone(&lock(&slot.opened).handles);
        let Some(entry) = handles.any().and_then(|key| shared.keys.get(key)) else {
            return Ok(());
        };
        let Some(handle) = handles.of(entry.id) else {
            return Ok(());
        };
        let input = SignInput::message(entry.kind.default_hash(), PROBE);
        let mut data = Vec::new();
        let mechanism = probe_call(entry.kind, slot.config.rsa_mechanism, &input, &mut data);
        let mut session = driver.session(id, slot.config.single_session)?;
        let made = session.sign(&SignCall {
            handle,
            mechanism,
            data: &data,
            length: entry.kind.signature_len(),
        });
        match made {
            Ok(made) if entry.verify(&input, &made.value) != Some(false) => {
                slot.counters
                    .last_signature
                    .store(shared.clock.now(), Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => Err(CkrError {
                function: "C_Sign",
                code: cryptoki_sys::CKR_SIGNATURE_INVALID as u64,
            }),
            // A token that only wants another mechanism is `check`'s to tell and must not be brought down for it.
            Err(error) if ladder::classify(&error, &slot.config.module_fault_codes) == ladder::Rung::Request => {
                tracing::warn!(token = %slot.name, %error, "the token answers but does not sign; `muhurdar check` says what it wants");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// The mechanism and data of a signature over `input`.
pub(crate) fn probe_call(kind: KeyKind, rsa: RsaMechanism, input: &SignInput, data: &mut Vec<u8>) -> u64 {
    data.clear();
    match (kind, rsa) {
        (KeyKind::Rsa { .. }, RsaMechanism::Pkcs) => {
            data.extend_from_slice(&input.hash().digest_info_prefix());
            data.extend_from_slice(input.as_digest());
            cryptoki_sys::CKM_RSA_PKCS as u64
        }
        (KeyKind::Rsa { .. }, RsaMechanism::ShaPkcs) => {
            data.extend_from_slice(input.as_message().unwrap_or_default());
            sha_rsa(input.hash())
        }
        (KeyKind::Ec(_), _) => {
            data.extend_from_slice(input.as_digest());
            cryptoki_sys::CKM_ECDSA as u64
        }
    }
}

/// The mechanism that hashes on the token.
pub(crate) fn sha_rsa(hash: Hash) -> u64 {
    match hash {
        Hash::Sha256 => cryptoki_sys::CKM_SHA256_RSA_PKCS as u64,
        Hash::Sha384 => cryptoki_sys::CKM_SHA384_RSA_PKCS as u64,
        Hash::Sha512 => cryptoki_sys::CKM_SHA512_RSA_PKCS as u64,
    }
}
