//! What the pool answers when it cannot sign, and when it cannot open.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::ckr::CkrError;

/// Why a signature was not made. Nothing was released: the same request may be made again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No token with this key can sign now: its circuit is open, its PIN is latched, or it is being brought back.
    #[error("no token with this key can sign now: {reason}")]
    Unavailable {
        /// What the tokens suffer from, for people.
        reason: String,
        /// When to try again, where the pool knows.
        retry_after: Option<Duration>,
    },
    /// The deadline passed before a token could sign.
    #[error("the deadline passed before a token could sign")]
    Deadline,
    /// The token refused, and a retry elsewhere did too or was not possible.
    #[error("token {token}: {error}")]
    Token {
        /// The token's configured name.
        token: String,
        /// The call and its return value.
        error: CkrError,
    },
    /// A call did not come back within its budget, and no other session could take the request.
    #[error("token {token} did not answer within {budget:?}")]
    Hung {
        /// The token's configured name.
        token: String,
        /// The call budget.
        budget: Duration,
    },
    /// The token gave a signature that its own public key does not verify. It was not released.
    #[error("token {token} gave a signature that does not verify")]
    Wrong {
        /// The token's configured name.
        token: String,
    },
    /// The key is not known to the pool.
    #[error("no such key on any configured token")]
    UnknownKey,
    /// The input does not fit the key or its token.
    #[error("{0}")]
    Unfit(&'static str),
    /// The queue is full.
    #[error("the queue in front of the tokens is full ({limit} requests)")]
    Overloaded {
        /// The configured limit.
        limit: usize,
    },
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}

/// Why the pool could not be opened, or a token could not be administered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("token configuration: {0}")]
    Config(String),
    /// The module's library cannot be loaded.
    #[error("cannot load the PKCS#11 module {}: {cause}; give the path of the vendor's library", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        cause: String,
    },
    /// A PKCS#11 call failed.
    #[error("token {token}: {error}")]
    Token {
        /// The token's configured name, or its module's path.
        token: String,
        /// The call and its return value.
        error: CkrError,
    },
    /// No token answers to the selection, or more than one does.
    #[error("{0}")]
    Selection(String),
    /// The PIN could not be read, or is not what anybody would type.
    #[error("the PIN of token {token} cannot be used, and was not tried: {cause}")]
    Pin {
        /// The token's configured name.
        token: String,
        /// Where it was sought, and what went wrong. Never the PIN.
        cause: String,
    },
    /// The token's PIN was refused, or may not be risked: no login is tried until an operator acts.
    #[error("token {token}: the PIN is latched: {reason}. {}", crate::latch::advice(way_back))]
    Latched {
        /// The token's configured name.
        token: String,
        /// What the token said, or would have been risked. Never the PIN.
        reason: String,
        /// What an operator does to have the PIN tried once more.
        way_back: String,
    },
    /// It cannot be written down that the PIN is tried, so it is not.
    #[error(
        "token {token}: the PIN was not tried, since that cannot be written down in {}: {cause}; server.state_dir must be a folder that \
         this user may write to, the same for service and commands", path.display()
    )]
    Unwritable {
        /// The token's configured name.
        token: String,
        /// The latch's file.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// Another login on the same token has not come to its end.
    #[error(
        "token {token}: the PIN was not tried, since process {pid} is logging in to this token and has not come back"
    )]
    Busy {
        /// The token's configured name.
        token: String,
        /// The process.
        pid: u32,
    },
    /// The token is unfit in a way that waiting does not mend.
    #[error("token {token}: {cause}")]
    Unfit {
        /// The token's configured name.
        token: String,
        /// What is the matter, and what to do.
        cause: String,
    },
    /// The child process of an isolated module failed.
    #[error("the child process of module {}: {cause}", path.display())]
    Child {
        /// The library.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// An operating system call failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's answer.
        #[source]
        cause: std::io::Error,
    },
}
