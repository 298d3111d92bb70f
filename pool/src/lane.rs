//! A lane: an operating system thread that owns one session. Lanes are pooled by deadpool, one pool per slot, which alone knows which lanes
//! there are and which are free. A request that finds a free lane leases it from the pool and hands it over to the lane's own thread, lease and all; while work is queued the lane keeps pulling and
//! keeps its lease, so that under load nothing is handed back and forth per signature. When there is nothing left the
//! thread itself gives the lease back. A lane that failed takes itself out of the pool; one that hangs is taken out by the watchdog.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::Instant;

use cryptoki_sys as ck;
use deadpool::managed::{Manager, Metrics, Object, RecycleResult};
use tokio::sync::oneshot;

use crate::bounded::Race;
use crate::ckr::CkrError;
use crate::config::RsaMechanism;
use crate::driver::{SignCall, TokenSession};
use crate::error::SignError;
use crate::exit;
use crate::job::{Hash, Job, Reply, Signed, Unjudged};
use crate::keys::KeyKind;
use crate::ladder::{self, Rung};
use crate::module::lock;
use crate::queue::passed;
use crate::shared::Shared;
use crate::slot::{Slot, Standing};
use crate::table::{Entry, Handles};

pub(crate) type LanePool = deadpool::managed::Pool<LaneManager>;
pub(crate) type Lease = Object<LaneManager>;

/// A pooled lane: the way to its thread. Dropping it ends the thread once its call is over.
#[derive(Debug)]
pub(crate) struct Lane {
    work: mpsc::Sender<Lease>,
    pub(crate) origin: Arc<Origin>,
}

/// Whose session gave a value: the same for a lane, its thread and its values.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) slot: usize,
    epoch: u64,
    /// A value did not verify: the session is not to be used again.
    condemned: AtomicBool,
}

impl Origin {
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    fn is_over(&self, slot: &Slot) -> bool {
        slot.epoch() != self.epoch || self.is_condemned()
    }
}

/// What a lane's thread and the watchdog share.
#[derive(Debug)]
pub(crate) struct LaneCell {
    origin: Arc<Origin>,
    /// When the call in progress began, on the pool's clock; 0: none is.
    pub(crate) called: AtomicU64,
    pub(crate) held: Mutex<Held>,
}

#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) current: Option<Job>,
    pub(crate) rest: VecDeque<Job>,
    /// Signed, and told together at the end of the batch: a thread that is woken for each answer costs more than all else here.
    pub(crate) answers: Vec<(Job, Signed, Standing)>,
    pub(crate) lease: Option<Lease>,
    /// The watchdog gave this lane up, and took jobs and lease.
    pub(crate) lost: bool,
}

impl LaneCell {
    /// Tells the answers that are held back.
    pub(crate) fn tell(&self) {
        let answers = std::mem::take(&mut lock(&self.held).answers);
        for (job, signed, since) in answers {
            let made = Unjudged {
                signed,
                origin: Arc::clone(&self.origin),
                since,
                tries: job.tries,
            };
            job.answer(Ok(made));
        }
    }
}

/// Opens lanes for deadpool.
#[derive(Debug)]
pub(crate) struct LaneManager {
    pub(crate) shared: Weak<Shared>,
    pub(crate) slot: Weak<Slot>,
}

/// The slot is being closed: no lane is opened, and nobody is to blame.
pub(crate) const CLOSED: CkrError = CkrError {
    function: "C_OpenSession",
    code: ck::CKR_FUNCTION_CANCELED as u64,
};
/// deadpool has no idle lane, and none was to be opened ([`Shared::warm`] asks).
pub(crate) const NOT_ASKED: CkrError = CkrError {
    function: "C_OpenSession",
    code: ck::CKR_CANCEL as u64,
};
const GONE: CkrError = CkrError {
    function: "C_OpenSession",
    code: ck::CKR_CRYPTOKI_NOT_INITIALIZED as u64,
};

impl Manager for LaneManager {
    type Type = Lane;
    type Error = CkrError;

    async fn create(&self) -> Result<Lane, CkrError> {
        let (Some(shared), Some(slot)) = (self.shared.upgrade(), self.slot.upgrade()) else {
            return Err(GONE);
        };
        if !slot.counters.asked.load(Ordering::Acquire) {
            return Err(NOT_ASKED);
        }
        let origin = Arc::new(Origin {
            slot: slot.index,
            epoch: slot.epoch(),
            condemned: AtomicBool::new(false),
        });
        let handles = Arc::clone(&lock(&slot.opened).handles);
        let cell = Arc::new(LaneCell {
            origin: Arc::clone(&origin),
            called: AtomicU64::new(0),
            held: Mutex::default(),
        });
        let (work, receiver) = mpsc::channel();
        let (ready, opened) = oneshot::channel();
        let opening = Opening {
            slot: Arc::clone(&slot),
            given_up: Arc::default(),
            done: false,
        };
        let thread = Thread {
            shared,
            slot: Arc::clone(&slot),
            cell: Arc::clone(&cell),
            handles,
        };
        let given_up = Arc::clone(&opening.given_up);
        // Counted first and asked then: whoever closes the slot forbids first and counts then, so that one of the two sees the other.
        slot.counters.live.fetch_add(1, Ordering::SeqCst);
        if !slot.counters.opens.load(Ordering::SeqCst) {
            slot.counters.live.fetch_sub(1, Ordering::SeqCst);
            opening.finish();
            return Err(CLOSED);
        }
        let spawned = exit::spawn(format!("lane-{}", slot.index), move || {
            thread.run(&receiver, ready, &given_up);
        });
        if spawned.is_err() {
            slot.counters.live.fetch_sub(1, Ordering::AcqRel);
            opening.finish();
            return Err(CkrError {
                function: "C_OpenSession",
                code: ck::CKR_HOST_MEMORY as u64,
            });
        }
        let answer = opened.await;
        opening.finish();
        answer.unwrap_or(Err(GONE))?;
        let mut cells = lock(&slot.cells);
        cells.retain(|cell| cell.strong_count() > 0);
        cells.push(Arc::downgrade(&cell));
        drop(cells);
        Ok(Lane { work, origin })
    }

    /// Asks the token nothing: a check would cost a round trip per lease and prove nothing about the next call.
    async fn recycle(&self, lane: &mut Lane, _: &Metrics) -> RecycleResult<CkrError> {
        match self.slot.upgrade() {
            Some(slot) if !lane.origin.is_over(&slot) => Ok(()),
            _ => Err(deadpool::managed::RecycleError::message(
                "its session is not to be used again",
            )),
        }
    }
}

/// A session that is being opened. When deadpool's time-out drops the waiting, the thread counts as lost until the call returns.
struct Opening {
    slot: Arc<Slot>,
    given_up: Arc<Race>,
    done: bool,
}

impl Opening {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.done {
            // Counted first, so that the thread never subtracts before.
            self.slot.counters.lost.fetch_add(1, Ordering::AcqRel);
            if self.given_up.give_up() {
                self.slot.counters.given_up.fetch_add(1, Ordering::Relaxed);
            } else {
                self.slot.counters.lost.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Sets a leased lane to work.
///
/// # Errors
/// Where its thread has ended; the lease is out of the pool then.
pub(crate) fn run(lease: Lease) -> Result<(), ()> {
    let work = lease.work.clone();
    work.send(lease)
        .map_err(|mpsc::SendError(lease)| drop(Object::take(lease)))
}

/// How a job on a lane ended.
enum Outcome {
    /// The lane may go on.
    Keep,
    /// The session must not be used again.
    Discard,
    /// The watchdog was here.
    Lost,
}

struct Thread {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    cell: Arc<LaneCell>,
    handles: Arc<Handles>,
}

impl Thread {
    fn run(self, work: &mpsc::Receiver<Lease>, ready: oneshot::Sender<Result<(), CkrError>>, given_up: &Race) {
        let session = self
            .slot
            .slot_id()
            .ok_or(GONE)
            .and_then(|id| self.slot.driver.session(id, self.slot.config.single_session));
        let mut lost = false;
        match session {
            Ok(session) => {
                if ready.send(Ok(())).is_ok() {
                    lost = self.serve(work, session);
                } else {
                    drop(session);
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
        let counters = &self.slot.counters;
        counters.live.fetch_sub(1, Ordering::AcqRel);
        if lost || given_up.come_back() {
            counters.lost.fetch_sub(1, Ordering::AcqRel);
            counters.late.fetch_add(1, Ordering::Relaxed);
            self.shared.lane_returned(&self.slot);
        }
    }

    /// Works until the lane is taken out. Answers whether it was lost.
    fn serve(&self, work: &mpsc::Receiver<Lease>, mut session: Box<dyn TokenSession>) -> bool {
        let mut proven = false;
        while let Ok(lease) = work.recv() {
            lock(&self.cell.held).lease = Some(lease);
            loop {
                if self.cell.origin.is_over(&self.slot) {
                    self.retire();
                    return false;
                }
                let jobs = self.shared.take(&self.slot, &self.cell);
                if jobs.is_empty() {
                    break;
                }
                lock(&self.cell.held).rest = jobs;
                let end = loop {
                    match self.next(session.as_mut(), &mut proven) {
                        Some(Outcome::Keep) => {}
                        end => break end,
                    }
                };
                self.cell.tell();
                match end {
                    Some(Outcome::Discard) => {
                        self.retire();
                        return false;
                    }
                    Some(Outcome::Lost) => return true,
                    Some(Outcome::Keep) | None => {}
                }
            }
        }
        false
    }

    /// Leaves the pool for good, and passes on what was taken and not begun.
    fn retire(&self) {
        let (lease, rest) = {
            let mut held = lock(&self.cell.held);
            (held.lease.take(), std::mem::take(&mut held.rest))
        };
        if let Some(lease) = lease {
            drop(Object::take(lease));
        }
        self.shared.lane_left(&self.slot, rest);
    }

    /// Signs the next job of the batch.
    fn next(&self, session: &mut dyn TokenSession, proven: &mut bool) -> Option<Outcome> {
        let mut held = lock(&self.cell.held);
        let job = held.rest.pop_front()?;
        let now = Instant::now();
        if job.is_abandoned() {
            return Some(Outcome::Keep);
        }
        if passed(job.deadline, now) {
            drop(held);
            job.answer(Err(SignError::Deadline));
            return Some(Outcome::Keep);
        }
        let entry = Arc::clone(&job.entry);
        let input = job.input.clone();
        let waited = now.saturating_duration_since(job.queued);
        let mut data = [0; 83];
        let prepared = self.prepare(&entry, &input, &mut data);
        let call = match prepared {
            Ok(call) => call,
            Err(why) => {
                drop(held);
                self.shared.failed_elsewhere(&self.slot, job, why);
                return Some(Outcome::Keep);
            }
        };
        held.current = Some(job);
        self.cell.called.store(self.shared.clock.now(), Ordering::Release);
        let since = self.slot.standing(self.cell.origin.epoch);
        drop(held);

        let made = session.sign(&call);

        let mut held = lock(&self.cell.held);
        self.cell.called.store(0, Ordering::Release);
        if held.lost {
            return Some(Outcome::Lost);
        }
        let job = held.current.take()?;
        drop(held);
        let wall = now.elapsed();
        let made = match made {
            Ok(made) => made,
            Err(error) => return Some(self.failed(job, error, since, *proven)),
        };
        self.slot.counters.made(self.shared.clock.now(), wall, made.cpu);
        *proven = true;
        if let Reply::Nobody = job.reply {
            // Whoever asks for a value says what it is; a heartbeat's is asked for by the pool itself.
            if entry.verify(&input, &made.value) == Some(false) {
                self.shared.wrong(&self.cell.origin, since, entry.id, true);
                return Some(Outcome::Discard);
            }
            self.shared.right(&self.cell.origin);
            return Some(Outcome::Keep);
        }
        let signed = Signed {
            value: made.value,
            token: Arc::clone(&self.slot.name),
            token_cpu: made.cpu,
            waited,
            service: wall,
        };
        lock(&self.cell.held).answers.push((job, signed, since));
        Some(Outcome::Keep)
    }

    /// What `C_Sign` is to be given.
    fn prepare<'a>(
        &self,
        entry: &Entry,
        input: &'a crate::job::SignInput,
        data: &'a mut [u8; 83],
    ) -> Result<SignCall<'a>, SignError> {
        let handle = self.handles.of(entry.id).ok_or(SignError::UnknownKey)?;
        let length = entry.kind.signature_len();
        let (mechanism, data): (_, &[u8]) = match (entry.kind, self.slot.config.rsa_mechanism) {
            (KeyKind::Rsa { .. }, RsaMechanism::Pkcs) => {
                let prefix = input.hash().digest_info_prefix();
                let whole = prefix.len() + input.hash().bytes();
                data[..prefix.len()].copy_from_slice(&prefix);
                data[prefix.len()..whole].copy_from_slice(input.as_digest());
                (ck::CKM_RSA_PKCS, &data[..whole])
            }
            (KeyKind::Rsa { .. }, RsaMechanism::ShaPkcs) => {
                let message = input.as_message().ok_or(SignError::Unfit(
                    "the token hashes for itself (CKM_SHA256_RSA_PKCS) and was given no message",
                ))?;
                let mechanism = match input.hash() {
                    Hash::Sha256 => ck::CKM_SHA256_RSA_PKCS,
                    Hash::Sha384 => ck::CKM_SHA384_RSA_PKCS,
                    Hash::Sha512 => ck::CKM_SHA512_RSA_PKCS,
                };
                (mechanism, message)
            }
            (KeyKind::Ec(_), _) => (ck::CKM_ECDSA, input.as_digest()),
        };
        Ok(SignCall {
            handle,
            mechanism: mechanism as u64,
            data,
            length,
        })
    }

    /// Climbs the ladder with an error.
    fn failed(&self, job: Job, error: CkrError, since: Standing, proven: bool) -> Outcome {
        let rung = ladder::classify(&error, &self.slot.config.module_fault_codes);
        self.slot.note(&error);
        tracing::warn!(token = %self.slot.name, %error, ?rung, "signing failed");
        self.shared.slot_failed(&self.slot, since, rung, error);
        let why = SignError::Token {
            token: self.slot.name.to_string(),
            error,
        };
        if rung == Rung::Request {
            self.shared.failed_elsewhere(&self.slot, job, why);
            // A refused C_SignInit has begun nothing.
            return if error.function == "C_SignInit" {
                Outcome::Keep
            } else {
                Outcome::Discard
            };
        }
        // A session that has signed before and fails now says nothing against the request, nor does one that is gone; one
        // that never signed may.
        let gone = [ck::CKR_SESSION_HANDLE_INVALID, ck::CKR_SESSION_CLOSED].contains(&error.code);
        let blame = rung != Rung::Session || !(proven || gone);
        self.shared.retry(&self.slot, job, why, blame);
        Outcome::Discard
    }
}
