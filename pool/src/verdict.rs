//! Signing, and what a value was found to be. A token is asked for a value, whoever wanted it checks it, and the pool learns the verdict: a
//! right one is counted as a signature, a wrong one costs its session, is held against its token, and is made again elsewhere. There is
//! no other way to a value, so that no token can be wrong unnoticed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::SignError;
use crate::job::{Job, Reply, SignInput, Signed, Tries, Unjudged};
use crate::keys::KeyId;
use crate::ladder::WRONG_VALUE;
use crate::lane::Origin;
use crate::pool::Pool;
use crate::shared::{Answer, Ask, Shared};
use crate::slot::Standing;
use crate::supervisor::Event;
use crate::trust::Lie;

impl Pool {
    /// Signs, and checks the value with the key's public key.
    ///
    /// # Errors
    /// See [`SignError`]; nothing was released then. A future that is dropped takes its request out of the queue, or drops the signature.
    pub async fn sign(&self, key: KeyId, input: SignInput, deadline: Option<Instant>) -> Result<Signed, SignError> {
        let entry = self.shared.keys.get(key).ok_or(SignError::UnknownKey)?;
        if !entry.can_verify(input.hash()) {
            return Err(SignError::Unfit(
                "a signature of this key over this hash cannot be verified; sign with the hash that goes with the key",
            ));
        }
        let over = input.clone();
        let check = |signed: &Signed| (entry.verify(&over, &signed.value) == Some(true)).then_some(());
        Ok(self.sign_checked(key, input, deadline, 0, check).await?.0)
    }

    /// Signs until the caller takes the value: `check` is given each one, and answers with what it made of it, or with nothing where it does
    /// not verify. The pool goes on with another session or token then, as with any other failure, and holds it against the one that
    /// gave it. The tag is for the queue: the caller's class, branch or priority in whatever form the queue understands.
    ///
    /// # Errors
    /// As [`Pool::sign`].
    pub async fn sign_checked<T>(
        &self,
        key: KeyId,
        input: SignInput,
        deadline: Option<Instant>,
        tag: u64,
        mut check: impl FnMut(&Signed) -> Option<T>,
    ) -> Result<(Signed, T), SignError> {
        let entry = self.shared.keys.get(key).ok_or(SignError::UnknownKey)?;
        let ask = Ask {
            entry,
            input,
            tag,
            deadline,
            queued: Instant::now(),
        };
        let mut answer = self.shared.submit(&ask)?;
        loop {
            let made = wait(answer, deadline).await?;
            if let Some(found) = check(&made.signed) {
                self.shared.right(&made.origin);
                return Ok((made.signed, found));
            }
            answer = self.shared.again(&ask, &made);
        }
    }
}

async fn wait(answer: Answer, deadline: Option<Instant>) -> Result<Unjudged, SignError> {
    let answered = match deadline {
        None => answer.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answered) => answered,
            Err(_) => return Err(SignError::Deadline),
        },
    };
    // A job that was dropped unanswered was dropped with the pool.
    answered.unwrap_or(Err(SignError::Closed))
}

impl Shared {
    /// A value was right.
    pub(crate) fn right(&self, origin: &Origin) {
        self.slots[origin.slot]
            .counters
            .signatures
            .fetch_add(1, Ordering::Relaxed);
    }

    /// A value was wrong: its session is used no more, and the supervisor hears of it.
    pub(crate) fn wrong(self: &Arc<Self>, origin: &Origin, since: Standing, key: KeyId, heartbeat: bool) {
        let slot = &self.slots[origin.slot];
        slot.counters.wrong.fetch_add(1, Ordering::Relaxed);
        slot.last_error(&WRONG_VALUE);
        origin.condemn();
        drop(slot.lanes().retain(|lane, _| !lane.origin.is_condemned()));
        self.replace(slot);
        let lie = Lie {
            key,
            truths: slot.counters.signatures.load(Ordering::Relaxed),
            at: Instant::now(),
        };
        // The supervisor lives as long as the pool; at its end nobody needs to know.
        let _ = self.supervisors[slot.index].send(Event::Lied {
            slot: slot.index,
            since,
            lie,
            heartbeat,
        });
    }

    /// A value was wrong: the request goes on, and not where that came from if there is another way.
    fn again(self: &Arc<Self>, ask: &Ask, made: &Unjudged) -> Answer {
        self.wrong(&made.origin, made.since, ask.entry.id, false);
        let tries = Tries {
            wrong: made.tries.wrong.saturating_add(1),
            ..made.tries
        };
        let (reply, answer) = tokio::sync::oneshot::channel();
        let job = Job {
            tokens: ask.entry.tokens(),
            tries,
            ..ask.job(Reply::Caller(reply))
        };
        let why = SignError::Wrong {
            token: made.signed.token.to_string(),
        };
        self.retry(&self.slots[made.origin.slot], job, why, false);
        answer
    }
}
