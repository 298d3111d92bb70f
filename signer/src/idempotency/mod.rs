//! The same key and the same request: the same answer.
//!
//! Comes in: a client's key and the fingerprint of what it asks for. Goes out: the answer that was given before, or the claim
//! to make it; while somebody makes it, others with the same key wait. Only answers are remembered, never refusals: what
//! failed may be tried again. Knows nothing of what an answer is but its bytes.
//!
//! What is remembered lies in a [`Store`]: in memory here, so that a restart forgets; one that writes to disk goes in the
//! same place.

mod memory;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout_at};

pub use self::memory::Memory;
use crate::{
    outside::{LONGEST, Outside},
    refusal::{Limit, Refusal, SOON},
};

/// Bytes of a key: room for a UUID or a digest in hexadecimal, and a name before it.
pub const MAX_KEY: usize = LONGEST;
/// Keys whose first answer is still being made. Each holds a request that passed the door or waits there, so this is only
/// reached where the door's limits are larger.
const MAX_CLAIMS: usize = 65_536;

/// A client's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    client: Arc<str>,
    text: Arc<str>,
}

impl Key {
    /// A client's key.
    ///
    /// # Errors
    /// REQUEST where it is longer than [`MAX_KEY`].
    pub fn new(client: &Arc<str>, text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_KEY || Outside::new(text).as_str() != text {
            return Err(Refusal::Request {
                field: "idempotency_key",
                problem: format!("must have at most {MAX_KEY} bytes, and none that control how a text is shown"),
            });
        }
        Ok(Self {
            client: Arc::clone(client),
            text: text.into(),
        })
    }

    /// Bytes of its texts.
    fn len(&self) -> usize {
        self.client.len() + self.text.len()
    }
}

/// SHA-256 of everything that decides about the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the parts of a request, in their order.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            // With its length, so that no part can pass for the end of the one before.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it answered.
    pub fingerprint: Fingerprint,
    /// The encoded message.
    pub answer: Bytes,
}

/// Where answers are remembered. It may forget at any time: then an answer is made anew.
pub trait Store: std::fmt::Debug + Send + Sync {
    /// What was answered to this key within the window, and until when it is expected to be remembered.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Option<(Record, SystemTime)>>;
    /// Remembers an answer; when this is done it may be given. Says until when it is expected to be remembered; none where there is no
    /// room for it at all.
    fn put(&self, key: Key, record: Record) -> BoxFuture<'_, Option<SystemTime>>;
}

/// Answers by key.
#[derive(Debug)]
pub struct Idempotency {
    store: Box<dyn Store>,
    claims: Mutex<HashMap<Key, Underway>>,
}

/// Somebody makes the answer; the channel closes when that is over.
#[derive(Debug)]
struct Underway {
    fingerprint: Fingerprint,
    over: watch::Receiver<()>,
}

/// What a key leads to.
#[derive(Debug)]
pub enum Found {
    /// The answer that was given before, and until when it is expected to be remembered.
    Answer(Bytes, SystemTime),
    /// Nothing yet: make it.
    Claim(Claim),
}

/// The right to make the answer. Dropped without [`Claim::keep`], it is the next one's.
#[derive(Debug)]
pub struct Claim {
    of: Arc<Idempotency>,
    key: Key,
    fingerprint: Fingerprint,
    _over: watch::Sender<()>,
}

impl Idempotency {
    /// Answers remembered in this store.
    #[must_use]
    pub fn new(store: Box<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            claims: Mutex::default(),
        })
    }

    /// Looks for an answer. Where it is being made, waits for it until `deadline`.
    ///
    /// # Errors
    /// REQUEST where the key was used for something else, DEADLINE where the answer is not there in time.
    pub async fn find(
        self: &Arc<Self>,
        key: Key,
        fingerprint: Fingerprint,
        deadline: Instant,
    ) -> Result<Found, Refusal> {
        loop {
            // The claim comes first: between a look at the store and the claim another could have come and gone.
            let mut over = match self.claim(&key, fingerprint)? {
                Ok(claim) => {
                    return match self.store.get(&key).await {
                        None => Ok(Found::Claim(claim)),
                        Some((record, until)) if record.fingerprint == fingerprint => {
                            Ok(Found::Answer(record.answer, until))
                        }
                        Some(_) => Err(Refusal::KeyReused),
                    };
                }
                Err(over) => over,
            };
            // It is never written to: it changes by closing.
            if timeout_at(deadline.into(), over.changed()).await.is_err() {
                return Err(Refusal::Deadline(
                    "passed while the same request, which came before, was being answered",
                ));
            }
        }
    }

    fn claim(
        self: &Arc<Self>,
        key: &Key,
        fingerprint: Fingerprint,
    ) -> Result<Result<Claim, watch::Receiver<()>>, Refusal> {
        let mut claims = self.lock();
        if let Some(underway) = claims.get(key) {
            if underway.fingerprint != fingerprint {
                return Err(Refusal::KeyReused);
            }
            return Ok(Err(underway.over.clone()));
        }
        if claims.len() >= MAX_CLAIMS {
            return Err(Refusal::Overloaded {
                limit: Limit::new("idempotency", MAX_CLAIMS as u64, "idempotency keys in flight"),
                retry_after: SOON,
            });
        }
        let (over, receiver) = watch::channel(());
        claims.insert(
            key.clone(),
            Underway {
                fingerprint,
                over: receiver,
            },
        );
        Ok(Ok(Claim {
            of: Arc::clone(self),
            key: key.clone(),
            fingerprint,
            _over: over,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Underway>> {
        // Nothing under the lock can panic half way.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The answer is made: from now on it is the answer to this key. Says until when, as far as that can be told; none where there is no
    /// room for it.
    pub async fn keep(self, answer: Bytes) -> Option<SystemTime> {
        let record = Record {
            fingerprint: self.fingerprint,
            answer,
        };
        self.of.store.put(self.key.clone(), record).await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.of.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answers() -> Arc<Idempotency> {
        Idempotency::new(Box::new(Memory::new(&crate::config::Idempotency::default())))
    }

    fn key(text: &str) -> Key {
        Key::new(&"branch".into(), text).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    async fn claim(answers: &Arc<Idempotency>, text: &str, document: &[u8]) -> Claim {
        match answers.find(key(text), Fingerprint::of(&[document]), soon()).await {
            Ok(Found::Claim(claim)) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_was_answered_is_answered_again() {
        let answers = answers();
        claim(&answers, "k", b"d")
            .await
            .keep(Bytes::from_static(b"first"))
            .await;
        match answers.find(key("k"), Fingerprint::of(&[b"d"]), soon()).await {
            Ok(Found::Answer(answer, _)) => assert_eq!(answer, "first"),
            other => panic!("{other:?}"),
        }
        let other = Key::new(&"another".into(), "k").unwrap();
        let found = answers.find(other, Fingerprint::of(&[b"e"]), soon()).await;
        assert!(matches!(found, Ok(Found::Claim(_))), "a key is its client's own");
    }

    #[tokio::test]
    async fn a_key_that_was_used_for_another_document_is_refused() {
        let answers = answers();
        let underway = claim(&answers, "k", b"d").await;
        let other = || answers.find(key("k"), Fingerprint::of(&[b"e"]), soon());
        assert!(matches!(other().await, Err(Refusal::KeyReused)), "in flight");
        underway.keep(Bytes::new()).await;
        assert!(matches!(other().await, Err(Refusal::KeyReused)), "and afterwards");
        assert!(answers.lock().is_empty());
    }

    #[tokio::test]
    async fn a_second_one_waits_for_the_first() {
        let answers = answers();
        let first = claim(&answers, "k", b"d").await;
        let second = tokio::spawn({
            let answers = Arc::clone(&answers);
            async move { answers.find(key("k"), Fingerprint::of(&[b"d"]), soon()).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        first.keep(Bytes::from_static(b"first")).await;
        assert!(matches!(second.await.unwrap(), Ok(Found::Answer(answer, _)) if answer == "first"));
    }

    #[tokio::test]
    async fn where_the_first_fails_or_goes_away_the_second_makes_the_answer() {
        let answers = answers();
        let first = claim(&answers, "k", b"d").await;
        let second = tokio::spawn({
            let answers = Arc::clone(&answers);
            async move { answers.find(key("k"), Fingerprint::of(&[b"d"]), soon()).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(matches!(second.await.unwrap(), Ok(Found::Claim(_))));
        assert!(answers.lock().is_empty());
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_its_deadline() {
        let answers = answers();
        let _first = claim(&answers, "k", b"d").await;
        let found = answers.find(key("k"), Fingerprint::of(&[b"d"]), Instant::now()).await;
        assert!(matches!(found, Err(Refusal::Deadline(_))));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"a", b"bc"]));
        assert!(Key::new(&"c".into(), &"k".repeat(MAX_KEY + 1)).is_err());
    }
}
