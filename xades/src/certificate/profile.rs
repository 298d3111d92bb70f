//! Which certificates seal: what Kamu SM issues as mali mühür, and the qualified certificate (NES) of a person.
//!
//! Beside its seal a taxpayer holds an encryption certificate of the same subject from the same authority; the usages
//! are all that tells them apart.

use jiff::Timestamp;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};

use super::details::Extensions;
use super::{CertificateError, tlv};

/// Kamu SM's extended key usage for the mali mühür.
const SEALING: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.792.1.2.1.1.5.7.50.1");
/// qcStatements (RFC 3739 section 3.2.6): only qualified certificates carry it.
const QC_STATEMENTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.3");

/// Why a certificate may not seal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Its time is over.
    #[error("the certificate expired on {since}; install its successor")]
    Expired {
        /// The end of its validity.
        since: Timestamp,
    },
    /// Its time has not come.
    #[error("the certificate is not valid before {from}; wait until then, or check the clock")]
    NotYetValid {
        /// The start of its validity.
        from: Timestamp,
    },
    /// KeyUsage without digitalSignature, or with encryption.
    #[error("{0}; a seal needs KeyUsage digitalSignature and no encryption")]
    KeyUsage(&'static str),
    /// Neither the extended key usage of a mali mühür, nor a qualified certificate.
    #[error(
        "the certificate is not for sealing: its ExtendedKeyUsage lacks 2.16.792.1.2.1.1.5.7.50.1 (mali mühür), and it \
         is not a qualified certificate"
    )]
    ExtendedKeyUsage,
    /// An authority's certificate.
    #[error("the certificate is an authority's (CA), not a taxpayer's")]
    Authority,
    /// A name that a seal quotes, and that cannot be written into one.
    #[error("the certificate's {which} {problem}; seals quote that name: order a certificate with plain text in it")]
    Name {
        /// `subject` or `issuer`.
        which: &'static str,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// Nobody's.
    #[error("the certificate names no taxpayer: its subject has no serialNumber of 10 digits (VKN) or 11 (TCKN)")]
    NoTaxpayer,
}

/// Why a name cannot be quoted in XML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// A character that XML 1.0 has no way to write (section 2.2, Char).
    #[error("has the character U+{:04X}, which no XML can carry", u32::from(*.0))]
    Character(char),
    /// Empty, or of a form that has no text.
    #[error("is empty or has no form as text (RFC 4514)")]
    Unreadable,
}

/// The extensions that decide.
#[derive(Debug)]
pub(super) struct Usage {
    key_usage: Option<KeyUsage>,
    sealing: bool,
    qualified: bool,
    authority: bool,
    path_length: Option<usize>,
}

impl Usage {
    pub(super) fn of(extensions: &Extensions<'_>) -> Result<Self, CertificateError> {
        let constraints: Option<BasicConstraints> = decode(extensions)?;
        Ok(Self {
            key_usage: decode(extensions)?,
            sealing: extensions
                .get(ExtendedKeyUsage::OID.as_bytes())?
                .is_some_and(is_for_sealing),
            qualified: extensions.get(QC_STATEMENTS.as_bytes())?.is_some(),
            authority: constraints.as_ref().is_some_and(|constraints| constraints.ca),
            path_length: constraints
                .and_then(|constraints| constraints.path_len_constraint)
                .map(usize::from),
        })
    }

    pub(super) fn path_length(&self) -> Option<usize> {
        self.path_length
    }

    /// An authority by its constraints, and by its key usage where it has one (RFC 5280 section 4.2.1.3).
    pub(super) fn is_authority(&self) -> bool {
        self.authority && self.key_usage.as_ref().is_none_or(KeyUsage::key_cert_sign)
    }

    pub(super) fn fit_for_sealing(&self, taxpayer: Option<&str>) -> Result<(), Unfit> {
        if self.authority {
            return Err(Unfit::Authority);
        }
        let Some(usage) = &self.key_usage else {
            return Err(Unfit::KeyUsage("the certificate has no KeyUsage"));
        };
        if usage.key_encipherment() || usage.key_agreement() || usage.data_encipherment() {
            return Err(Unfit::KeyUsage("this is an encryption certificate"));
        }
        // A qualified certificate may say contentCommitment (nonRepudiation) alone.
        if !(usage.digital_signature() || self.qualified && usage.non_repudiation()) {
            return Err(Unfit::KeyUsage("the certificate is not for signatures"));
        }
        if usage.0.contains(KeyUsages::KeyCertSign) || usage.0.contains(KeyUsages::CRLSign) {
            return Err(Unfit::Authority);
        }
        if !(self.sealing || self.qualified) {
            return Err(Unfit::ExtendedKeyUsage);
        }
        taxpayer.map(drop).ok_or(Unfit::NoTaxpayer)
    }
}

fn decode<'a, T: Decode<'a> + AssociatedOid>(extensions: &Extensions<'a>) -> Result<Option<T>, CertificateError> {
    let value = extensions.get(T::OID.as_bytes())?;
    Ok(value.map(T::from_der).transpose()?)
}

/// Whether the usages of an ExtendedKeyUsage, foreign ones among them, say so.
fn is_for_sealing(usages: &[u8]) -> bool {
    let usages = tlv::next(usages).and_then(|(list, _)| tlv::within(list, tlv::SEQUENCE));
    usages.is_some_and(|usages| {
        usages
            .iter()
            .any(|usage| usage.tag == tlv::OBJECT_IDENTIFIER && usage.content == SEALING.as_bytes())
    })
}
