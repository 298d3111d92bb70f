//! Reading a seal as somebody who does not trust it.
//!
//! A document comes in; out goes [`Verified`], or the one thing that is wrong with it by name and place. Strict where a
//! forger could gain by it: exactly one seal, where the document's family carries it; exactly two references, to the
//! whole document and to the seal's own properties; every Id once; the certificate that is named inside what is signed.
//! Lenient where the field differs: either order, any of the canonicalization methods, KeyInfo in any order, prefixes of
//! any kind, unsigned properties of an archive. What is not asked here: revocation, time stamps.
//!
//! Three steps, each on its own: `tree` finds the signature, `seal` reads what it says, and this file checks that
//! it is true.

mod chain;
mod child;
mod digests;
mod error;
mod key_info;
mod place;
mod position;
mod references;
mod seal;
mod tree;

use jiff::{SignedDuration, Timestamp};

pub use error::{Failure, VerifyError};

use self::digests::Wanted;
use self::error::Located;
use self::references::Subject;
use self::seal::Stated;
use crate::DocumentType;
use crate::algorithm::SignatureAlgorithm;
use crate::c14n::Subset;
use crate::certificate::Certificate;
use crate::limits::Limits;

/// Counter-signatures on one seal: HR-XML has one. Each costs three more canonical forms in the pass that digests.
const MAX_COUNTER_SIGNATURES: usize = 4;

/// How far a signer's clock may run ahead of ours.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What to verify against.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions<'a> {
    /// Trust anchors. With none the chain is not looked at, and [`Chain::NotChecked`] says so.
    pub trust: &'a [Certificate],
    /// The time of verification: a seal made later is refused. `None`: not looked at.
    pub at: Option<Timestamp>,
    /// Bounds on the document.
    pub limits: Limits,
}

impl<'a> VerifyOptions<'a> {
    /// With these trust anchors, at this time.
    #[must_use]
    pub fn new(trust: &'a [Certificate], at: Option<Timestamp>) -> Self {
        Self {
            trust,
            at,
            limits: Limits::default(),
        }
    }
}

/// A seal that verified.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// What was sealed.
    pub document_type: DocumentType,
    /// `Signature/@Id`.
    pub signature_id: String,
    /// VKN or TCKN of whose seal it is.
    pub taxpayer: String,
    /// When it says it was made. Signed, but only the signer's word.
    pub signing_time: Timestamp,
    /// `xades:SigningTime`, character for character.
    pub signing_time_text: String,
    /// `xades:ClaimedRole`.
    pub claimed_role: Option<String>,
    /// Whose seal it is.
    pub certificate: Certificate,
    /// What it was made with.
    pub algorithm: SignatureAlgorithm,
    /// Whether the certificate is trusted.
    pub chain: Chain,
    /// The certificates of counter-signatures, each verified as the seal itself.
    pub counter_signed_by: Vec<Certificate>,
}

/// Whether a certificate leads to a trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// It leads to one of those given.
    Trusted,
    /// None was given.
    NotChecked,
}

/// Verifies the seal of a document.
///
/// # Errors
/// [`VerifyError`] names the first thing that is wrong, in this order: the document, the place, what the seal says, its
/// signature value, its digests, its certificate.
pub fn verify(document: &[u8], options: &VerifyOptions<'_>) -> Result<Verified, VerifyError> {
    let refused = |refusal| VerifyError::new(Failure::Document(refusal), None);
    let found = tree::read(document, &options.limits).map_err(refused)?;
    let located =
        |(failure, ordinal): Located| VerifyError::new(failure, position::of(document, &options.limits, ordinal));
    if let Some(second) = found.second {
        return Err(located((Failure::SecondSignature, second)));
    }
    let Some(signature) = &found.signature else {
        return Err(VerifyError::new(Failure::NotSealed, None));
    };
    let document_type = found.document_type.ok_or_else(|| located((Failure::DocumentType, 0)))?;
    place::check(document_type, &found.path).map_err(|failure| located((failure, signature.ordinal)))?;

    let seal = seal::read(signature, Subject::Document).map_err(located)?;
    let counters = read_counters(&seal).map_err(located)?;
    let all: Vec<_> = std::iter::once(&seal).chain(&counters).collect();
    let wanted = wanted(&all);
    let taken = digests::take(document, &options.limits, &wanted).map_err(refused)?;
    if let Some(ordinal) = taken.duplicate_id {
        return Err(located((Failure::DuplicateId, ordinal)));
    }
    for (seal, digests) in all.iter().zip(taken.digests.chunks_exact(SUBSETS)) {
        check(seal, digests, options).map_err(located)?;
    }
    Ok(Verified {
        document_type,
        signature_id: seal.id.to_owned(),
        // The profile was checked: it names a taxpayer.
        taxpayer: seal.certificate.taxpayer().unwrap_or_default().to_owned(),
        signing_time: seal.signing_time,
        signing_time_text: seal.signing_time_text.to_owned(),
        claimed_role: seal.claimed_role.map(str::to_owned),
        algorithm: seal.algorithm,
        chain: if options.trust.is_empty() {
            Chain::NotChecked
        } else {
            Chain::Trusted
        },
        counter_signed_by: counters.iter().map(|counter| counter.certificate.clone()).collect(),
        certificate: seal.certificate,
    })
}

/// Counter-signatures, one level: none was ever seen on another.
fn read_counters<'t>(seal: &Stated<'t>) -> Result<Vec<Stated<'t>>, Located> {
    if seal.counter_signatures.len() > MAX_COUNTER_SIGNATURES {
        return Err((
            Failure::Structure("more counter-signatures than are read"),
            seal.node.ordinal,
        ));
    }
    let counters = seal.counter_signatures.iter().map(|node| {
        let value_id = seal
            .value_node
            .attribute("Id")
            .ok_or((Failure::Missing("ds:SignatureValue/@Id"), node.ordinal))?;
        let counter = seal::read(node, Subject::Value(value_id))?;
        match counter.counter_signatures.first() {
            Some(nested) => Err((Failure::SecondSignature, nested.ordinal)),
            None => Ok(counter),
        }
    });
    counters.collect()
}

/// Subsets per signature: what it is over, its properties, its SignedInfo.
const SUBSETS: usize = 3;

/// Everything that must be canonicalized, for one more pass over the document.
fn wanted<'s>(seals: &[&'s Stated<'_>]) -> Wanted<'s> {
    let mut wanted = Wanted::default();
    for (i, seal) in seals.iter().enumerate() {
        let over = match i {
            0 => Subset::Without(seal.node.ordinal),
            _ => Subset::Element(seals[0].value_node.ordinal),
        };
        wanted
            .subsets
            .push((over, &seal.subject.canonicalization, seal.subject.digest));
        let properties = Subset::Element(seal.properties_node.ordinal);
        wanted
            .subsets
            .push((properties, &seal.properties.canonicalization, seal.properties.digest));
        let signed_info = Subset::Element(seal.signed_info.ordinal);
        wanted
            .subsets
            .push((signed_info, &seal.canonicalization, seal.algorithm.digest()));
        for node in [seal.node, seal.value_node, seal.properties_node] {
            if let Some(id) = node.attribute("Id") {
                wanted.ids.push((id, node.ordinal));
            }
        }
    }
    wanted
}

/// Whether what a signature says is true.
fn check(seal: &Stated<'_>, digests: &[aws_lc_rs::digest::Digest], options: &VerifyOptions<'_>) -> Result<(), Located> {
    let [over, properties, signed_info] = digests else {
        unreachable!("three subsets were asked for each signature");
    };
    let certificate = &seal.certificate;
    let (key, algorithm) = (certificate.key_type(), seal.algorithm);
    if !algorithm.fits(key) {
        return Err((Failure::AlgorithmForKey { algorithm, key }, seal.signed_info.ordinal));
    }
    certificate
        .public_key()
        .verify_digest(algorithm, signed_info, &seal.value)
        .map_err(|_| (Failure::SignatureValue, seal.value_node.ordinal))?;
    if over.as_ref() != seal.subject.value {
        return Err((seal.subject_failure.clone(), seal.subject.ordinal));
    }
    if properties.as_ref() != seal.properties.value {
        return Err((Failure::PropertiesDigest, seal.properties.ordinal));
    }
    certificate
        .fit_for_sealing(seal.signing_time)
        .map_err(|unfit| (Failure::Unfit(unfit), seal.properties_node.ordinal))?;
    if options.at.is_some_and(|at| {
        at.checked_add(CLOCK_SKEW)
            .is_ok_and(|latest| seal.signing_time > latest)
    }) {
        return Err((Failure::FromTheFuture(seal.signing_time), seal.properties_node.ordinal));
    }
    if !options.trust.is_empty() && !chain::leads_to_anchor(certificate, &seal.others, options.trust, seal.signing_time)
    {
        return Err((Failure::Untrusted, seal.node.ordinal));
    }
    Ok(())
}
