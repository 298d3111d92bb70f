//! Which certificates seal: what Kamu SM issues as mali mühür, and the qualified certificate (NES) of a person.
//!
//! Beside its seal a taxpayer holds an encryption certificate of the same subject from the same authority; the usages
//! are all that tells them apart.

use jiff::Timestamp;
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};

use super::CertificateError;

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
    /// Nobody's.
    #[error("the certificate names no taxpayer: its subject has no serialNumber of 10 digits (VKN) or 11 (TCKN)")]
    NoTaxpayer,
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
    pub(super) fn of(certificate: &TbsCertificate) -> Result<Self, CertificateError> {
        let key_usage = certificate.get::<KeyUsage>()?.map(|(_, usage)| usage);
        let extended = certificate.get::<ExtendedKeyUsage>()?;
        let constraints = certificate.get::<BasicConstraints>()?;
        Ok(Self {
            key_usage,
            sealing: extended.is_some_and(|(_, usages)| usages.0.contains(&SEALING)),
            qualified: certificate
                .extensions
                .iter()
                .flatten()
                .any(|extension| extension.extn_id == QC_STATEMENTS),
            authority: constraints.as_ref().is_some_and(|(_, constraints)| constraints.ca),
            path_length: constraints
                .and_then(|(_, constraints)| constraints.path_len_constraint)
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
