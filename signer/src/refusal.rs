//! Why a request is not answered with a seal: one type from every room of the service, mapped to the wire in one place
//! (`server::status`). A message says what to do next and never holds a document, a PIN or a key.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use muhurdar_pool::SignError;
use muhurdar_xades::{self as xades, DocumentType};
use tonic::Code;

use crate::{admission::Bound, outside::Outside};

/// When to come back after a refusal for load.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// When to come back after a token's failure, where the pool does not say.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// Which certificate: SHA-256 of its DER.
pub(crate) type SealId = [u8; 32];

/// A digest as people compare it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// As the configuration, and the wire, call it.
    pub name: &'static str,
    /// Its value, where it is a number.
    pub value: Option<u64>,
    /// Of what.
    pub unit: &'static str,
}

impl Limit {
    pub(crate) const fn new(name: &'static str, value: u64, unit: &'static str) -> Self {
        Self {
            name,
            value: Some(value),
            unit,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.value {
            write!(f, "{value} ")?;
        }
        f.write_str(self.unit)
    }
}

/// A refusal. Each variant is a row of the contract's error table.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The document: malformed, a DTD, over a limit, of no known type, without a place for the seal, or sealed already.
    #[error(transparent)]
    Document(#[from] xades::Refusal),
    /// A document whose seal is known is of another type than the request says.
    #[error("the document is {}, but {} was announced", named.name(), requested.name())]
    DocumentType {
        /// What was said.
        requested: DocumentType,
        /// What it is.
        named: DocumentType,
    },
    /// The document is larger than this call, or this caller, may bring; it was not read.
    #[error("the document is too large: at most {limit} bytes are taken ({name}){}", if *name == "document_bytes" { "; SealLarge takes larger ones" } else { "" })]
    DocumentTooLarge {
        /// The limit's name.
        name: &'static str,
        /// Bytes of a document.
        limit: u64,
        /// Its own, where they are known.
        size: Option<u64>,
    },
    /// A message has more bytes than may come at once; it was not read.
    #[error("{}the message is too large: at most {limit} bytes are taken; {}SealLarge takes larger documents", item.map_or_else(String::new, |item| format!("with items[{item}] ")), if item.is_some() { "send the batch in parts; " } else { "" })]
    MessageTooLarge {
        /// Bytes of a message.
        limit: u64,
        /// Its own, where they are known.
        size: Option<u64>,
        /// The item of a batch that was too much.
        item: Option<usize>,
    },
    /// The document names another taxpayer than the request, several or none.
    #[error("the request asks for the seal of taxpayer {requested}, but {problem}")]
    TaxpayerMismatch {
        /// Whose seal was asked for.
        requested: Outside,
        /// Whom the document names.
        named: Option<Outside>,
        /// What it says.
        problem: String,
    },
    /// The certificate cannot seal now.
    #[error("the certificate {serial} of taxpayer {taxpayer} cannot seal: {problem}")]
    CertificateUnusable {
        /// Its taxpayer.
        taxpayer: Outside,
        /// Its serial number, decimal.
        serial: String,
        /// Its digest.
        id: SealId,
        /// The date or the property that stands in the way.
        problem: String,
    },
    /// Another certificate seals than the one that the request needs.
    #[error(
        "another certificate of this taxpayer seals now than the one that the request names; ask GetSeal for it, and make anew what was made for \
         the other, or name none"
    )]
    CertificateChanged {
        /// The certificate that the request needs.
        requested: SealId,
        /// The one that seals.
        named: SealId,
        /// The field that names the former.
        field: &'static str,
    },
    /// No seal of that taxpayer, or of that id.
    #[error("there is no seal of {0} here, or none that this client may know of")]
    SealUnknown(Outside),
    /// A field of the request makes no sense.
    #[error("{field}: {problem}")]
    Request {
        /// The field, as the proto names it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The idempotency key belongs to another request.
    #[error(
        "this idempotency key belongs to another request: it was used with another taxpayer, document, level or certificate, or in another kind of call; make a key for each document"
    )]
    KeyReused,
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
    #[error("the service has reached its limit of {limit}; try again later")]
    Overloaded {
        /// Which limit.
        limit: Limit,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller has reached a limit of its own.
    #[error("the client has reached its quota of {limit}; try again later")]
    Quota {
        /// Which bound.
        bound: Bound,
        /// The same in words.
        limit: Limit,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller's deadline cannot be met, or has passed.
    #[error("the deadline {0}")]
    Deadline(&'static str),
    /// No token can sign now.
    #[error("no token can sign now; try again later")]
    TokenUnavailable {
        /// What the pool says: for the log, since nobody but an operator can do anything about it.
        reason: String,
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
    pub(crate) const REASONS: [&str; 21] = [
        "XML_MALFORMED",
        "XML_DTD_FORBIDDEN",
        "XML_LIMIT",
        "DOCUMENT_TYPE",
        "SEAL_PLACE",
        "ALREADY_SEALED",
        "TAXPAYER_MISMATCH",
        "CERTIFICATE_UNUSABLE",
        "CERTIFICATE_CHANGED",
        "SEAL_UNKNOWN",
        "REQUEST",
        "MESSAGE_TOO_LARGE",
        "IDEMPOTENCY_KEY_REUSED",
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
            Self::DocumentType { .. } => "DOCUMENT_TYPE",
            Self::DocumentTooLarge { .. } => "XML_LIMIT",
            Self::MessageTooLarge { .. } => "MESSAGE_TOO_LARGE",
            Self::TaxpayerMismatch { .. } => "TAXPAYER_MISMATCH",
            Self::CertificateUnusable { .. } => "CERTIFICATE_UNUSABLE",
            Self::CertificateChanged { .. } => "CERTIFICATE_CHANGED",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
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
        let reason = error.to_string();
        match error {
            SignError::Deadline => Self::Deadline("passed before a token could sign"),
            SignError::Overloaded { limit } => Self::Overloaded {
                limit: Limit::new("in_flight", limit as u64, "documents waiting for a token"),
                retry_after: SOON,
            },
            SignError::Unavailable { retry_after, .. } => Self::TokenUnavailable {
                reason,
                retry_after: retry_after.unwrap_or(LATER),
            },
            _ => Self::TokenUnavailable {
                reason,
                retry_after: LATER,
            },
        }
    }
}
