//! One request on its way through the pool.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::SignError;
use crate::keys::KeyId;
use crate::lane::Origin;
use crate::queue::TokenMask;
use crate::slot::Standing;
use crate::table::Entry;

/// The hash that a signature is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// Length of a digest in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The DER of a DigestInfo up to the digest (RFC 8017, section 9.2, note 1).
    pub(crate) fn digest_info_prefix(self) -> [u8; 19] {
        let (oid, len) = match self {
            Self::Sha256 => (1, 32),
            Self::Sha384 => (2, 48),
            Self::Sha512 => (3, 64),
        };
        [
            0x30,
            17 + len,
            0x30,
            0x0d,
            0x06,
            0x09,
            0x60,
            0x86,
            0x48,
            0x01,
            0x65,
            0x03,
            0x04,
            0x02,
            oid,
            0x05,
            0x00,
            0x04,
            len,
        ]
    }
}

/// What is to be signed: a digest, and the message where a token wants to hash for itself.
#[derive(Clone)]
pub struct SignInput {
    hash: Hash,
    digest: [u8; 64],
    message: Option<Arc<[u8]>>,
}

impl SignInput {
    /// Over a digest.
    ///
    /// # Errors
    /// Where the digest's length is not the hash's.
    pub fn digest(hash: Hash, digest: &[u8]) -> Result<Self, SignError> {
        if digest.len() != hash.bytes() {
            return Err(SignError::Unfit("the digest's length is not its hash's"));
        }
        let mut padded = [0; 64];
        padded[..digest.len()].copy_from_slice(digest);
        Ok(Self {
            hash,
            digest: padded,
            message: None,
        })
    }

    /// Over a message, which is hashed here; tokens that want to hash for themselves get it whole.
    #[must_use]
    pub fn message(hash: Hash, message: impl Into<Arc<[u8]>>) -> Self {
        let message = message.into();
        let mut digest = [0; 64];
        digest[..hash.bytes()].copy_from_slice(aws_lc_rs::digest::digest(hash.algorithm(), &message).as_ref());
        Self {
            hash,
            digest,
            message: Some(message),
        }
    }

    /// The hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The digest.
    #[must_use]
    pub fn as_digest(&self) -> &[u8] {
        &self.digest[..self.hash.bytes()]
    }

    pub(crate) fn as_message(&self) -> Option<&[u8]> {
        self.message.as_deref()
    }
}

impl Hash {
    pub(crate) fn algorithm(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
}

/// A digest tells whether a known document was sealed: it stays out of logs too.
impl fmt::Debug for SignInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInput")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A signature.
#[derive(Debug, Clone)]
pub struct Signed {
    /// RSA: PKCS#1 v1.5, as long as the modulus. ECDSA: r‖s, each as long as the curve's order.
    pub value: Vec<u8>,
    /// Configured name of the token that signed.
    pub token: Arc<str>,
    /// CPU time inside the token's calls, for this signature.
    pub token_cpu: Duration,
    /// Wait in the queue.
    pub waited: Duration,
    /// Wall time inside the token's calls.
    pub service: Duration,
}

/// A value that waits for its verdict, and whose it is.
#[derive(Debug)]
pub(crate) struct Unjudged {
    pub(crate) signed: Signed,
    pub(crate) origin: Arc<Origin>,
    pub(crate) since: Standing,
    pub(crate) tries: Tries,
}

/// What a request has been through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    /// Times that a token was tried.
    pub(crate) attempts: u8,
    /// Of them, those whose failure may have been the request's own,
    pub(crate) blamed: u8,
    /// and those that gave a value that did not verify.
    pub(crate) wrong: u8,
    /// The token that failed it, to be avoided where another is ready.
    pub(crate) avoid: Option<usize>,
}

/// A request in the queue. The queue sees what it needs to choose by; what is to be signed stays closed.
pub struct Job {
    pub(crate) entry: Arc<Entry>,
    pub(crate) tokens: TokenMask,
    pub(crate) tag: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) queued: Instant,
    pub(crate) tries: Tries,
    pub(crate) input: SignInput,
    pub(crate) reply: Reply,
}

pub(crate) enum Reply {
    Caller(oneshot::Sender<Result<Unjudged, SignError>>),
    /// A heartbeat: only the lane and the slot learn from it.
    Nobody,
}

impl Job {
    /// The key.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.entry.id
    }
    /// The tokens that hold the key.
    #[must_use]
    pub fn tokens(&self) -> TokenMask {
        self.tokens
    }
    /// What the caller of [`crate::Pool::sign_checked`] gave: the queue's own class, branch or priority.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }
    /// When the answer is of no more use.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
    /// When it came.
    #[must_use]
    pub fn queued(&self) -> Instant {
        self.queued
    }
    /// Whether the caller has gone away. Such jobs are not signed; a queue may drop them early.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match &self.reply {
            Reply::Caller(reply) => reply.is_closed(),
            Reply::Nobody => false,
        }
    }

    pub(crate) fn answer(self, answer: Result<Unjudged, SignError>) {
        if let Reply::Caller(reply) = self.reply {
            // A caller that went away wants no answer.
            let _ = reply.send(answer);
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("key", &self.entry.id)
            .field("tokens", &self.tokens)
            .field("tag", &self.tag)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}
