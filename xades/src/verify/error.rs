//! What can be wrong with a seal, each by its name.

use std::fmt;

use jiff::Timestamp;

use crate::algorithm::{KeyType, SignatureAlgorithm};
use crate::certificate::{CertificateError, Unfit};
use crate::error::{Position, Refusal};

/// A failure and the number of the element it is about.
pub(super) type Located = (Failure, u64);

/// Why a seal does not verify, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    failure: Failure,
    position: Option<Position>,
}

impl VerifyError {
    pub(super) fn new(failure: Failure, position: Option<Position>) -> Self {
        Self { failure, position }
    }

    /// What is wrong.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Where in the document, if it is about one place.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, &self.position) {
            // A refusal names its own place.
            (Failure::Document(_), _) | (_, None) => self.failure.fmt(f),
            (_, Some(position)) => write!(f, "{position}: {}", self.failure),
        }
    }
}

impl std::error::Error for VerifyError {}

/// What is wrong with a seal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The document cannot be read at all.
    #[error(transparent)]
    Document(Refusal),
    /// No `ds:Signature` anywhere.
    #[error("the document carries no seal (ds:Signature)")]
    NotSealed,
    /// More than one, and the second is not a counter-signature within the first.
    #[error("the document carries a second ds:Signature; which one is the seal cannot be told")]
    SecondSignature,
    /// The root is not of a family that is sealed, so that no place is right.
    #[error("the root element is not that of a document that is sealed")]
    DocumentType,
    /// The signature stands where the family has none: moved, or wrapped around something else.
    #[error("the seal does not stand where {0} carries it")]
    Place(&'static str),
    /// An element that a seal must have is not there.
    #[error("the seal is not built as a seal is: {0} is missing")]
    Missing(&'static str),
    /// An element stands twice that must stand once.
    #[error("the seal is not built as a seal is: {0} stands twice")]
    Doubled(&'static str),
    /// Something is where it does not belong.
    #[error("the seal is not built as a seal is: {0}")]
    Structure(&'static str),
    /// Another element has an Id that the seal uses: what a reference means depends on who looks.
    #[error("an Id of the seal stands on another element too")]
    DuplicateId,
    /// A reference that a seal does not have, or one that a seal must have is missing.
    #[error("the references of the seal are not exactly the document and the signed properties: {0}")]
    References(&'static str),
    /// An algorithm that a seal must not use, SHA-1 among them.
    #[error("{0} is not among the algorithms that a seal may use")]
    Algorithm(&'static str),
    /// Not base64, not a decimal number, not a time.
    #[error("{0} cannot be read")]
    Value(&'static str),
    /// The certificate in KeyInfo cannot be read.
    #[error("the certificate in KeyInfo: {0}")]
    Certificate(CertificateError),
    /// No certificate in KeyInfo is the one that SigningCertificate names.
    #[error("SigningCertificate does not name the certificate in KeyInfo: {0} differs")]
    SigningCertificate(&'static str),
    /// KeyInfo contradicts its own certificate.
    #[error("{0} in KeyInfo is not that of the certificate")]
    KeyInfo(&'static str),
    /// The algorithm cannot be that of the key.
    #[error("the seal says {} but its certificate's key is {key}", .algorithm.uri())]
    AlgorithmForKey {
        /// What SignatureMethod says.
        algorithm: SignatureAlgorithm,
        /// What the certificate has.
        key: KeyType,
    },
    /// SignedInfo was changed, or the value is another key's.
    #[error("the signature value does not verify: SignedInfo or the value was changed, or another key signed")]
    SignatureValue,
    /// The document was changed after it was sealed.
    #[error("the document was changed after it was sealed: its digest differs")]
    DocumentDigest,
    /// The signed properties were changed after the seal was made.
    #[error("the signed properties were changed after sealing: their digest differs")]
    PropertiesDigest,
    /// The counter-signature is over another value.
    #[error("the counter-signature is not over this seal: the digest of SignatureValue differs")]
    CounterSignatureDigest,
    /// The certificate may not seal, or could not at SigningTime.
    #[error("at the time of signing: {0}")]
    Unfit(Unfit),
    /// SigningTime lies ahead of the time of verification.
    #[error("the seal claims to be made at {0}, which is in the future")]
    FromTheFuture(Timestamp),
    /// No path to a trust anchor.
    #[error("no chain of valid certificates leads from the seal's certificate to a trust anchor")]
    Untrusted,
}
