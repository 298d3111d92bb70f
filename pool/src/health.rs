//! Health: the watchdog, which measures every call from outside it, and the heartbeat, a real signature on a slot that lies idle: an HSM
//! reaps idle channels after 25 to 60 seconds, and the next customer should not be the one to notice.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use deadpool::managed::Object;

use crate::config::RsaMechanism;
use crate::job::{Hash, Reply, SignInput};
use crate::keys::KeyKind;
use crate::lane::LaneCell;
use crate::module::lock;
use crate::shared::{Ask, Shared};
use crate::slot::{Slot, nanos};

/// How often the watchdog looks. A hang is noticed within its budget and this.
const LOOK: Duration = Duration::from_millis(20);

/// What is signed to see whether signing works: not a document's digest.
pub(crate) const PROBE: &[u8] = b"muhurdar heartbeat";

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
    if !slot.config.heartbeat.is_zero() && since >= nanos(slot.config.heartbeat) {
        heartbeat(shared, slot);
    }
}

/// Queues a heartbeat. Its lane checks what the token answers.
pub(crate) fn heartbeat(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    let Some(entry) = lock(&slot.opened)
        .handles
        .keys()
        .next()
        .and_then(|key| shared.keys.get(key))
    else {
        return;
    };
    // Until the answer comes, no second one.
    slot.counters
        .last_signature
        .store(shared.clock.now(), Ordering::Relaxed);
    slot.counters.heartbeats.fetch_add(1, Ordering::Relaxed);
    let ask = Ask {
        input: SignInput::message(entry.kind.default_hash(), PROBE),
        entry,
        tag: 0,
        deadline: None,
        queued: Instant::now(),
    };
    lock(&shared.dispatch).push_heartbeat(slot.index, ask.job(Reply::Nobody));
    shared.kick(slot.index);
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
