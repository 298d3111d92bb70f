//! What becomes of a request that a token failed, and how the supervisor hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::ckr::CkrError;
use crate::error::SignError;
use crate::job::{Job, Reply};
use crate::ladder::Rung;
use crate::module::lock;
use crate::queue::TokenMask;
use crate::slot::{Slot, Standing};
use crate::supervisor::Event;

/// Times that a request is tried at most beyond once for each session of its slot: all of them can be dead at once, and each
/// is found out by a request.
const MAX_ATTEMPTS: usize = 4;
/// Times that a request is tried where the failure may be its own.
const MAX_BLAMED: u8 = 2;
/// Values that did not verify until the request is given up. Where another token is ready, it is asked after the first; a token that is
/// the only one and is wrong now and then is not wrong so often in a row.
const MAX_WRONG: u8 = 4;

impl Shared {
    /// Tells the supervisor of a failure; from the login rung on, the gate closes at once.
    pub(crate) fn slot_failed(&self, slot: &Slot, since: Standing, rung: Rung, error: CkrError) {
        {
            // Asked under the lock that opens the gate: a failure that is already mended must not close it behind the supervisor.
            let mut dispatch = lock(&self.dispatch);
            if !slot.concerns(since, rung) {
                return;
            }
            if rung >= Rung::Login {
                dispatch.places[slot.index].gate = false;
            }
        }
        // The supervisor lives as long as the pool; at its end nobody needs to know.
        let _ = self.supervisors[slot.index].send(Event::Failed {
            slot: slot.index,
            since,
            rung,
            error,
        });
    }

    /// A job failed on `slot` and nothing was released: again elsewhere, or on another session, or its answer.
    pub(crate) fn retry(self: &Arc<Self>, slot: &Slot, mut job: Job, why: SignError, blame: bool) {
        if let Reply::Nobody = job.reply {
            return;
        }
        let tries = &mut job.tries;
        tries.attempts = tries.attempts.saturating_add(1);
        tries.blamed += u8::from(blame);
        tries.avoid = Some(slot.index);
        let tries = *tries;
        let claimed = {
            let mut dispatch = lock(&self.dispatch);
            let most = (MAX_ATTEMPTS + slot.counters.cap.load(Ordering::Relaxed)).min(usize::from(u8::MAX));
            let spent = usize::from(tries.attempts) >= most || tries.blamed >= MAX_BLAMED || tries.wrong >= MAX_WRONG;
            if spent || dispatch.closed || job.tokens.and(dispatch.ready()).is_empty() {
                drop(dispatch);
                let why = if spent { why } else { self.unavailable(job.tokens) };
                job.answer(Err(why));
                return;
            }
            let tokens = job.tokens;
            dispatch.push_retry(job);
            self.claim(&dispatch, tokens, tries.avoid)
        };
        if let Some(lane) = claimed {
            self.set_to_work(lane);
        }
    }

    /// A job that this slot will not take: another one may, else its answer is `why`.
    pub(crate) fn failed_elsewhere(self: &Arc<Self>, slot: &Slot, mut job: Job, why: SignError) {
        let elsewhere = TokenMask(job.tokens.0 & !TokenMask::one(slot.index).0);
        let other = !elsewhere.and(lock(&self.dispatch).ready()).is_empty();
        if other && job.tries.attempts == 0 {
            job.tokens = elsewhere;
            self.retry(slot, job, why, true);
        } else {
            job.answer(Err(why));
        }
    }
}
