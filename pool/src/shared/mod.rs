//! What requests, lanes, supervisors and the watchdog share, and the moves between them. Nothing here calls a token.
//!
//! Here is how a request comes in; `lanes` is how lanes are woken, opened and lost; `failed` is what becomes of a request that a token failed.

mod failed;
mod lanes;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::dispatch::Dispatch;
use crate::error::SignError;
use crate::job::{Job, Reply, SignInput, Tries, Unjudged};
use crate::ladder::SlotState;
use crate::module::lock;
use crate::queue::TokenMask;
use crate::slot::{Clock, Slot};
use crate::supervisor::Event;
use crate::table::{Entry, Table};

pub(crate) struct Shared {
    pub(crate) dispatch: Mutex<Dispatch>,
    pub(crate) slots: Vec<Arc<Slot>>,
    /// The supervisor of each slot's module, by slot.
    pub(crate) supervisors: Vec<mpsc::Sender<Event>>,
    pub(crate) keys: Table,
    /// How often something else was found on a token than before.
    pub(crate) found: watch::Sender<u64>,
    pub(crate) clock: Clock,
    pub(crate) queue_limit: usize,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) closing: AtomicBool,
    /// When the watchdog has looked last, in nanoseconds of the clock.
    pub(crate) watched: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

pub(crate) type Answer = oneshot::Receiver<Result<Unjudged, SignError>>;

/// What a caller wants, kept for as long as no value of it was right.
pub(crate) struct Ask {
    pub(crate) entry: Arc<Entry>,
    pub(crate) input: SignInput,
    pub(crate) tag: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) queued: Instant,
}

impl Ask {
    /// A request for it.
    pub(crate) fn job(&self, reply: Reply) -> Job {
        Job {
            tokens: self.entry.tokens(),
            entry: Arc::clone(&self.entry),
            tag: self.tag,
            deadline: self.deadline,
            queued: self.queued,
            tries: Tries::default(),
            input: self.input.clone(),
            reply,
        }
    }
}

impl Shared {
    /// Puts a request into the queue and wakes a lane for it.
    pub(crate) fn submit(self: &Arc<Self>, ask: &Ask) -> Result<Answer, SignError> {
        let (reply, answer) = oneshot::channel();
        let job = ask.job(Reply::Caller(reply));
        let tokens = job.tokens;
        let claimed = {
            let mut dispatch = lock(&self.dispatch);
            if dispatch.closed {
                return Err(SignError::Closed);
            }
            if tokens.and(dispatch.ready()).is_empty() {
                drop(dispatch);
                return Err(self.unavailable(tokens));
            }
            if dispatch.waiting() >= self.queue_limit || dispatch.queue.push(job).is_some() {
                return Err(SignError::Overloaded {
                    limit: self.queue_limit,
                });
            }
            self.claim(&dispatch, tokens, None)
        };
        if let Some(lane) = claimed {
            self.set_to_work(lane);
        }
        Ok(answer)
    }

    /// Why none of these tokens can sign.
    pub(crate) fn unavailable(&self, tokens: TokenMask) -> SignError {
        if tokens.is_empty() {
            return SignError::Unavailable {
                reason: "the key is on no token any more".into(),
                retry_after: None,
            };
        }
        let mut reasons = Vec::new();
        let mut retry_after = None;
        for slot in self.slots.iter().filter(|slot| tokens.has(slot.index)) {
            let opened = lock(&slot.opened);
            let state = match &opened.state {
                SlotState::Ready => "not ready".to_owned(),
                SlotState::Recovering { rung } => format!("being brought back ({rung:?})"),
                SlotState::Open { rung, attempts } => {
                    retry_after = Some(slot.config.backoff_min.max(Duration::from_millis(100)));
                    format!("circuit open ({rung:?}, {attempts} attempts)")
                }
                SlotState::Latched { .. } => "its PIN waits for an operator".to_owned(),
            };
            let cause = match opened.last_error {
                _ if opened.distrusted => ", after signatures that did not verify".to_owned(),
                Some((error, _)) => format!(", after {error}"),
                None => String::new(),
            };
            reasons.push(format!("{}: {state}{cause}", slot.name));
        }
        SignError::Unavailable {
            reason: reasons.join("; "),
            retry_after,
        }
    }

    /// Opens or closes a slot's gate and circuit, and refuses what no slot can serve any more.
    pub(crate) fn set(self: &Arc<Self>, slot: &Slot, gate: bool, ready: bool) {
        let stranded = {
            let mut dispatch = lock(&self.dispatch);
            dispatch.places[slot.index].gate = gate;
            dispatch.places[slot.index].ready = ready;
            if ready { Vec::new() } else { dispatch.evict() }
        };
        for job in stranded {
            let why = self.unavailable(job.tokens);
            job.answer(Err(why));
        }
        if gate {
            self.kick(slot.index);
        }
    }
}
