//! Preparing a seal: one pass over the document, and everything but the signature value is there.
//!
//! In comes a document as it was sent, out goes [`Prepared`]: what is to be signed, and where the seal will stand. The
//! pass scans, listens for what the document says about its seal, finds the place, and digests the document *as it will
//! be*, with the placeholder gone and a missing skeleton added. It does not sign, and does not know who does.

mod hand;
mod listener;
mod sealer;
mod spot;

use std::fmt;

use aws_lc_rs::digest::Digest;
use jiff::Timestamp;

pub use self::sealer::{Doubt, Sealer, Unclear};

use self::hand::{Hand, Heard};
use self::spot::Spot;
use crate::algorithm::SignatureAlgorithm;
use crate::build::{Draft, Ids, Unsigned};
use crate::certificate::{Certificate, WrongSignature};
use crate::encoding::Encoding;
use crate::error::{Label, Reason, Refusal};
use crate::limits::Limits;
use crate::policy::Policy;
use crate::profile::{DocumentType, Field, Party};
use crate::scan::{Scanner, is_ncname};
use crate::splice::Seal;

/// How a document is to be sealed.
#[derive(Debug, Clone, Copy)]
pub struct Sealing<'a> {
    /// Whose seal.
    pub certificate: &'a Certificate,
    /// How it is written.
    pub policy: &'a Policy,
    /// How large a document may be.
    pub limits: &'a Limits,
    /// `xades:SigningTime`.
    pub signing_time: Timestamp,
    /// Refuse the document where it is another. `None`: take what comes.
    pub expect: Option<DocumentType>,
}

/// Prepares the seal of a document that is in memory.
///
/// # Errors
/// [`Refusal`]: not well-formed, over the limits, not a document that is sealed here, no place, or sealed already.
pub fn prepare(document: &[u8], sealing: &Sealing<'_>) -> Result<Prepared, Refusal> {
    let mut hand = Hand::new(sealing);
    let encoding = Scanner::new(sealing.limits).run(document, &mut hand)?;
    let digested = Digested::of(hand, encoding, sealing.policy)?;
    Ok(digested.drafted(sealing.certificate, sealing.policy, sealing.signing_time))
}

/// Prepares the seal of a document that comes in pieces, in memory that does not grow with it.
#[derive(Debug)]
pub struct Preparer<'a> {
    sealing: Sealing<'a>,
    scanner: Scanner,
    hand: Hand,
}

impl<'a> Preparer<'a> {
    /// For one document.
    pub fn new(sealing: Sealing<'a>) -> Self {
        Self {
            scanner: Scanner::new(sealing.limits),
            hand: Hand::new(&sealing),
            sealing,
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.scanner.feed(piece, &mut self.hand)
    }

    /// Ends the document.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn finish(self) -> Result<Prepared, Refusal> {
        let sealing = self.sealing;
        let digested = self.digested()?;
        Ok(digested.drafted(sealing.certificate, sealing.policy, sealing.signing_time))
    }

    /// Ends the document, and leaves open with which certificate and when it is sealed: it may have been long on its way.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn digested(mut self) -> Result<Digested, Refusal> {
        self.scanner.finish(&mut self.hand)?;
        Digested::of(self.hand, self.scanner.encoding(), self.sealing.policy)
    }
}

/// A document that was read to its end: of its seal, only the certificate and the time are wanting.
pub struct Digested {
    heard: Heard,
    ids: Ids,
    document_id: Option<String>,
    sealer: Sealer,
    encoding: Encoding,
}

impl fmt::Debug for Digested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digested")
            .field("document_type", &self.heard.document_type)
            .finish_non_exhaustive()
    }
}

/// A certificate whose seals digest otherwise than the document was digested.
#[derive(Debug, thiserror::Error)]
#[error("the document was digested for another kind of key")]
pub struct OtherDigest;

impl Digested {
    fn of(hand: Hand, encoding: Encoding, policy: &Policy) -> Result<Self, Refusal> {
        let refuse = |reason| Refusal::new(reason, None);
        let mut heard = hand.finish().map_err(refuse)?;
        let listener = &mut heard.listener;
        let document_id = listener.take(Field::DocumentId);
        let sealer = Sealer::of(listener.named(Party::Signer), || {
            let owner = listener.named(Party::Identity)?;
            owner.map_or_else(|| listener.named(Party::IdentityElse), |owner| Ok(Some(owner)))
        });
        let wanted = listener.take(Field::SignatureUri);
        let taken = |ids: &Ids| {
            ids.iter()
                .chain(ids.counter().iter())
                .find(|id| listener.has_id(id))
                .map(str::to_owned)
        };
        let ids = signature_ids(wanted.as_deref(), document_id.as_deref(), policy, taken).map_err(refuse)?;
        Ok(Self {
            heard,
            ids,
            document_id,
            sealer,
            encoding,
        })
    }

    /// Which document it is.
    pub fn document_type(&self) -> DocumentType {
        self.heard.document_type
    }

    /// Whom the document names as its sealer.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Drafts the seal, with the policy that the document was read with.
    ///
    /// # Errors
    /// [`OtherDigest`] where the certificate's key goes with another digest than that of the certificate which the document
    /// was read with.
    pub fn draft(
        self,
        certificate: &Certificate,
        policy: &Policy,
        signing_time: Timestamp,
    ) -> Result<Prepared, OtherDigest> {
        if !self.fits(certificate, policy) {
            return Err(OtherDigest);
        }
        Ok(self.drafted(certificate, policy, signing_time))
    }

    /// Whether [`draft`](Self::draft) takes this certificate.
    pub fn fits(&self, certificate: &Certificate, policy: &Policy) -> bool {
        policy.signature_algorithm(certificate).digest().output_len() == self.heard.digest.as_ref().len()
    }

    fn drafted(self, certificate: &Certificate, policy: &Policy, signing_time: Timestamp) -> Prepared {
        let Self {
            heard,
            ids,
            document_id,
            sealer,
            encoding,
        } = self;
        let claimed_role = if heard.document_type.is_ubl() {
            policy.claimed_role.as_deref()
        } else {
            None
        };
        let draft = Draft {
            place: &heard.spot.place,
            ids: &ids,
            body_digest: heard.digest.as_ref(),
            certificate,
            policy,
            signing_time,
            claimed_role,
        };
        let unsigned = draft.build();
        // Only a seal that will be counter-signed is drafted again.
        let counter = (heard.document_type == DocumentType::UserAccount).then(|| Counter {
            ids,
            policy: policy.clone(),
            signing_time,
        });
        Prepared {
            document_type: heard.document_type,
            document_id,
            sealer,
            unsigned,
            first: None,
            counter,
            certificate: certificate.clone(),
            encoding,
            spot: heard.spot,
        }
    }
}

/// The Ids of the seal: the one that the document gives it, else one made of the document's own identifier.
fn signature_ids(
    wanted: Option<&str>,
    document_id: Option<&str>,
    policy: &Policy,
    taken: impl Fn(&Ids) -> Option<String>,
) -> Result<Ids, Reason> {
    const URI: &str = "cac:Signature/cac:DigitalSignatureAttachment/cac:ExternalReference/cbc:URI";
    if let Some(uri) = wanted
        .map(|uri| uri.strip_prefix('#').unwrap_or(uri))
        .filter(|uri| !uri.is_empty())
    {
        if !is_ncname(uri) {
            return Err(Reason::SealId {
                id: Label::new(uri.as_bytes()),
                place: URI,
            });
        }
        let ids = Ids::new(uri);
        return match taken(&ids) {
            Some(id) => Err(Reason::SealIdTaken {
                id: Label::new(id.as_bytes()),
            }),
            None => Ok(ids),
        };
    }
    let made = ncname(&policy.signature_id_of(document_id.unwrap_or_default()));
    let ids = Ids::new(&*made);
    // Nobody refers to an Id that is made here: where a berat has copied that of its ledger, another does as well.
    if taken(&ids).is_none() {
        return Ok(ids);
    }
    let others = (2..100).map(|number| Ids::new(format!("{made}-{number}")));
    others
        .into_iter()
        .find(|ids| taken(ids).is_none())
        .ok_or_else(|| Reason::SealIdTaken {
            id: Label::new(made.as_bytes()),
        })
}

/// `text` with `_` for what an NCName may not have.
fn ncname(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if name.is_empty() && !is_ncname(c.encode_utf8(&mut [0; 4])) {
            name.push('_');
        }
        let follows = ['_', c].iter().collect::<String>();
        name.push(if is_ncname(&follows) { c } else { '_' });
    }
    name
}

/// What is needed to draft the counter-signature.
struct Counter {
    ids: Ids,
    policy: Policy,
    signing_time: Timestamp,
}

/// A document that waits for its signature value.
pub struct Prepared {
    document_type: DocumentType,
    document_id: Option<String>,
    sealer: Sealer,
    unsigned: Unsigned,
    /// The seal itself with its value, where `unsigned` is its counter-signature.
    first: Option<(Unsigned, Vec<u8>)>,
    counter: Option<Counter>,
    certificate: Certificate,
    encoding: Encoding,
    spot: Spot,
}

/// A signature value that the certificate's public key does not verify. Nothing was made with it; what was prepared can be
/// signed again.
#[derive(Debug, thiserror::Error)]
#[error("the signature value does not verify with the certificate's public key")]
pub struct Unverified(Box<Prepared>);

impl Unverified {
    #[cold]
    fn new(prepared: Prepared) -> Self {
        Self(Box::new(prepared))
    }

    /// What was to be signed.
    #[must_use]
    pub fn into_prepared(self) -> Prepared {
        *self.0
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("document_type", &self.document_type)
            .field("algorithm", &self.unsigned.algorithm())
            .finish_non_exhaustive()
    }
}

impl Prepared {
    /// Which document it is.
    pub fn document_type(&self) -> DocumentType {
        self.document_type
    }

    /// The document's own identifier, if it has one.
    pub fn document_id(&self) -> Option<&str> {
        self.document_id.as_deref()
    }

    /// Whom the document names as its sealer.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Whose key must sign.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What the value must be made with.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.unsigned.algorithm()
    }

    /// The canonical bytes of SignedInfo: what is signed.
    pub fn signed_info(&self) -> &[u8] {
        self.unsigned.signed_info()
    }

    /// Their digest, with the algorithm's own: what a token gets.
    pub fn digest(&self) -> &[u8] {
        self.unsigned.digest().as_ref()
    }

    /// `xades:SigningTime`, character for character.
    pub fn signing_time(&self) -> &str {
        self.first
            .as_ref()
            .map_or(self.unsigned.signing_time(), |(first, _)| first.signing_time())
    }

    /// The encoding of the document, and of the seal in it.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether the seal must be counter-signed before it is finished (HR-XML): sign [`digest`](Self::digest), hand the
    /// value to [`countersign`](Self::countersign), sign again, and finish what it gave.
    pub fn wants_countersignature(&self) -> bool {
        self.counter.is_some()
    }

    /// Takes the value of the seal, and prepares its counter-signature by the same key.
    ///
    /// # Errors
    /// [`Unverified`] where the value does not verify. Where no counter-signature is wanted,
    /// [`wants_countersignature`](Self::wants_countersignature), nothing is added: the same seal must be signed again.
    pub fn countersign(mut self, signature_value: &[u8]) -> Result<Self, Unverified> {
        if self.check(signature_value).is_err() {
            return Err(Unverified::new(self));
        }
        let Some(counter) = self.counter.take() else {
            return Ok(self);
        };
        let draft = Draft {
            place: &self.spot.place,
            ids: &counter.ids,
            body_digest: &[],
            certificate: &self.certificate,
            policy: &counter.policy,
            signing_time: counter.signing_time,
            claimed_role: None,
        };
        let second = draft.build_counter(signature_value);
        let first = std::mem::replace(&mut self.unsigned, second);
        self.first = Some((first, signature_value.to_vec()));
        Ok(self)
    }

    /// Checks the value with the certificate's public key and makes the seal: there is no [`Seal`] that did not verify.
    ///
    /// # Errors
    /// [`Unverified`] where the value does not verify.
    pub fn finish(self, signature_value: &[u8]) -> Result<Seal, Unverified> {
        if self.check(signature_value).is_err() {
            return Err(Unverified::new(self));
        }
        let (element, value) = match self.first {
            None => (self.unsigned.assemble(signature_value), signature_value.to_vec()),
            Some((first, value)) => {
                let counter = self.unsigned.assemble(signature_value);
                (first.assemble_countersigned(&value, &counter), value)
            }
        };
        Ok(Seal::new(
            self.spot.range,
            &[&self.spot.before, &element, &self.spot.after],
            self.encoding,
            value,
        ))
    }

    fn check(&self, signature_value: &[u8]) -> Result<(), WrongSignature> {
        let digest: &Digest = self.unsigned.digest();
        self.certificate
            .public_key()
            .verify_digest(self.unsigned.algorithm(), digest, signature_value)
    }
}
