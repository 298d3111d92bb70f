//! Why a request is not answered with a seal: one type from every room of the service, mapped to the wire in one place
//! (`server::status`). A message says what to do next and never holds a document, a PIN or a key.

use std::time::Duration;

use muhurdar_pool::SignError;
use muhurdar_xades as xades;
use tonic::Code;

use crate::{admission::Bound, outside::Outside};

/// When to come back after a refusal for load.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// When to come back after a token's failure, where the pool does not say.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// A refusal. Each variant is a row of the contract's error table.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The document: malformed, a DTD, over a limit, of no known type, without a place for the seal, or sealed already.
    #[error(transparent)]
    Document(#[from] xades::Refusal),
    /// The message is larger than any document may be; it was not read.
    #[error("the message is larger than a document may be ({limit} bytes)")]
    TooLarge {
        /// Bytes of a document.
        limit: u64,
    },
    /// The document names another taxpayer than the request.
    #[error("{0}")]
    TaxpayerMismatch(String),
    /// The certificate cannot seal now.
    #[error("{0}")]
    CertificateUnusable(String),
    /// No seal of that taxpayer.
    #[error("no seal of taxpayer {0} is on any token; `muhurdar token list` shows which are")]
    SealUnknown(Outside),
    /// A field of the request makes no sense.
    #[error("{field}: {problem}")]
    Request {
        /// The field, as the proto names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The call itself is none that this service can take: bytes that are no message, a method that does not exist.
    #[error("{problem}")]
    Call {
        /// What gRPC's libraries say to it.
        code: Code,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller showed no client certificate, or one that holds no more.
    #[error(
        "no client certificate that holds now: connect with one that the server's client_ca has issued, and that has neither ended nor been revoked"
    )]
    Unauthenticated,
    /// The caller is known, or at least certified, but may not do this.
    #[error("{0}")]
    Access(String),
    /// Too much is admitted and unanswered already.
    #[error("the service has reached {limit}; try again in {retry_after:?}")]
    Overloaded {
        /// Which limit, with its value.
        limit: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller has reached a limit of its own.
    #[error("the client has reached its quota of {limit}; try again in {retry_after:?}")]
    Quota {
        /// Which bound.
        bound: Bound,
        /// Its value.
        limit: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller's deadline cannot be met, or has passed.
    #[error("the deadline {0}")]
    Deadline(&'static str),
    /// No token can sign now.
    #[error("{message}")]
    TokenUnavailable {
        /// What the pool says.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The service is shutting down.
    #[error("the service is shutting down; call another instance")]
    Draining,
    /// A defect of the service itself. Its details are in the log, under the request's id.
    #[error("internal error; the server's log has the details")]
    Internal,
}

impl Refusal {
    /// Every reason that [`Refusal::reason`] has.
    pub(crate) const REASONS: [&str; 18] = [
        "XML_MALFORMED",
        "XML_DTD_FORBIDDEN",
        "XML_LIMIT",
        "DOCUMENT_TYPE",
        "SEAL_PLACE",
        "ALREADY_SEALED",
        "TAXPAYER_MISMATCH",
        "CERTIFICATE_UNUSABLE",
        "SEAL_UNKNOWN",
        "REQUEST",
        "CLIENT_CERTIFICATE",
        "ACCESS",
        "OVERLOADED",
        "QUOTA",
        "DEADLINE",
        "TOKEN_UNAVAILABLE",
        "DRAINING",
        "INTERNAL",
    ];

    /// The stable `reason` of `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use xades::RefusalKind;
        match self {
            Self::Document(refusal) => match refusal.kind() {
                RefusalKind::Malformed => "XML_MALFORMED",
                RefusalKind::DtdForbidden => "XML_DTD_FORBIDDEN",
                RefusalKind::Limit => "XML_LIMIT",
                RefusalKind::DocumentType => "DOCUMENT_TYPE",
                RefusalKind::AlreadySealed => "ALREADY_SEALED",
                // The engine's kinds may grow; a place for the seal is what a document lacks that has no other fault.
                _ => "SEAL_PLACE",
            },
            Self::TooLarge { .. } => "XML_LIMIT",
            Self::TaxpayerMismatch(_) => "TAXPAYER_MISMATCH",
            Self::CertificateUnusable(_) => "CERTIFICATE_UNUSABLE",
            Self::SealUnknown(_) => "SEAL_UNKNOWN",
            Self::Request { .. } | Self::Call { .. } => "REQUEST",
            Self::Access(_) => "ACCESS",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Quota { .. } => "QUOTA",
            Self::Deadline(_) => "DEADLINE",
            Self::TokenUnavailable { .. } => "TOKEN_UNAVAILABLE",
            Self::Draining => "DRAINING",
            Self::Internal => "INTERNAL",
            Self::Unauthenticated => "CLIENT_CERTIFICATE",
        }
    }
}

impl From<SignError> for Refusal {
    fn from(error: SignError) -> Self {
        let message = error.to_string();
        match error {
            SignError::Deadline => Self::Deadline("passed before a token could sign"),
            SignError::Overloaded { limit } => Self::Overloaded {
                limit: format!("its limit of {limit} documents waiting for a token"),
                retry_after: SOON,
            },
            SignError::Unavailable { retry_after, .. } => Self::TokenUnavailable {
                message,
                retry_after: retry_after.unwrap_or(LATER),
            },
            _ => Self::TokenUnavailable {
                message,
                retry_after: LATER,
            },
        }
    }
}
