//! A taxpayer's certificate, as far as a seal needs it.
//!
//! DER or PEM comes in; what a seal quotes (digests, names, serial number, key), what it is checked with (the public
//! key, parsed once) and whether it may seal at all go out. A [`Certificate`] is shared: a clone costs a counter, and
//! what is computed from it once (base64, digests, the text of KeyInfo) stays with it. Nothing here knows documents,
//! and nothing here asks a network: revocation and the chain are somebody else's question.

mod details;
mod key;
mod name;
mod profile;
pub(crate) mod tlv;

use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use x509_cert::der::{self, Decode as _};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub use details::{Details, NO_EXPIRATION};
pub use key::{KeyParameters, PublicKey, WrongSignature};
pub use name::printable;
pub use profile::{NameProblem, Unfit};

use crate::algorithm::{DigestAlgorithm, KeyType, SignatureAlgorithm};
use crate::build::CertificateTexts;
use crate::pem::{self, FileError};

/// An X.509 certificate (RFC 5280) with a key that a seal can be made with.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    der: Box<[u8]>,
    sha256: [u8; 32],
    details: Details,
    key: PublicKey,
    texts: OnceLock<CertificateTexts>,
}

/// The certificates of a file.
#[derive(Debug)]
pub struct Bundle {
    /// Those that a seal can be made, or a chain checked with, in the file's order.
    pub certificates: Vec<Certificate>,
    /// The others, by subject as far as it can be read, each with the reason.
    pub passed_over: Vec<(String, CertificateError)>,
}

/// Why bytes are not a certificate that a seal can be made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file without a certificate in it.
    #[error(transparent)]
    File(FileError),
    /// Not an X.509 certificate (RFC 5280 section 4.1).
    #[error("not an X.509 certificate in DER: {0}")]
    Structure(&'static str),
    /// A part of it that is not the DER it must be.
    #[error("a part of the certificate is not the DER that it must be: {0}")]
    Der(der::Error),
    /// A key that no seal can be made or checked with.
    #[error("the certificate's key is {0}; a seal needs RSA of 2048, 3072 or 4096 bits, or EC P-256, P-384 or P-521")]
    Key(String),
    /// A date outside of what can be counted.
    #[error("the certificate's validity is not a date that can be used")]
    Validity,
}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Der(error)
    }
}

impl Certificate {
    /// Reads DER. Names may be longer than X.520's bounds: titles of Turkish companies are.
    ///
    /// # Errors
    /// [`CertificateError`] where this is no certificate, or its key is none that seals.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        Self::with_details(der, Details::from_der(der)?)
    }

    fn with_details(der: &[u8], details: Details) -> Result<Self, CertificateError> {
        let spki_der = details.spki_der();
        let key = PublicKey::from_spki(&SubjectPublicKeyInfoOwned::from_der(spki_der)?, spki_der)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(DigestAlgorithm::Sha256.digest(der).as_ref());
        Ok(Self(Arc::new(Inner {
            der: der.into(),
            sha256,
            details,
            key,
            texts: OnceLock::new(),
        })))
    }

    /// Reads the first certificate of a file: PEM (RFC 7468) with whatever stands around it, or DER.
    ///
    /// # Errors
    /// [`CertificateError`] where there is none, or it cannot be used.
    pub fn from_pem(file: &[u8]) -> Result<Self, CertificateError> {
        let all = pem::certificates(file).map_err(CertificateError::File)?;
        all.first()
            .ok_or(CertificateError::Structure("there is none"))
            .and_then(|der| Self::from_der(der))
    }

    /// Reads every certificate of a file, PEM or DER, as a bundle of trust anchors is. A foreign one among them (a key that
    /// no seal is made with) is passed over, and does not spoil its neighbours.
    ///
    /// # Errors
    /// [`FileError`] where the file holds no certificate at all, or is damaged.
    pub fn all_of(file: &[u8]) -> Result<Bundle, FileError> {
        let mut bundle = Bundle {
            certificates: Vec::new(),
            passed_over: Vec::new(),
        };
        for der in pem::certificates(file)? {
            let details = Details::from_der(&der);
            let subject = details
                .as_ref()
                .map_or_else(|_| String::new(), |details| details.subject().to_owned());
            match details.and_then(|details| Self::with_details(&der, details)) {
                Ok(certificate) => bundle.certificates.push(certificate),
                Err(error) => bundle.passed_over.push((subject, error)),
            }
        }
        Ok(bundle)
    }

    /// What it says, but for its key.
    #[must_use]
    pub fn details(&self) -> &Details {
        &self.0.details
    }

    /// The DER it was read from, byte for byte.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.0.sha256
    }

    /// Whom it seals for: the subject's serialNumber where that is a VKN (10 digits) or a TCKN (11 digits).
    #[must_use]
    pub fn taxpayer(&self) -> Option<&str> {
        self.0.details.taxpayer.as_deref()
    }

    /// The subject's common name: the company's title, or a person's name. May exceed X.520's 64 characters.
    #[must_use]
    pub fn title(&self) -> &str {
        self.0.details.title()
    }

    /// The subject as RFC 4514 text, with readable attribute names: `CN=…,SERIALNUMBER=1234567801`.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.0.details.subject()
    }

    /// The issuer as RFC 4514 text: `CN=…,O=…,C=TR`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.0.details.issuer()
    }

    /// The serial number in decimal, as `ds:X509SerialNumber` has it.
    #[must_use]
    pub fn serial_decimal(&self) -> &str {
        self.0.details.serial_decimal()
    }

    /// The first instant of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.0.details.not_before()
    }

    /// The last instant of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.0.details.not_after()
    }

    /// SubjectPublicKeyInfo in DER: what a key on a token is matched with.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        self.0.details.spki_der()
    }

    /// The public key, parsed once.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.0.key
    }

    /// RSA by size, or EC by curve.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.0.key.key_type()
    }

    /// What seals of this key are made with where nothing else is configured.
    #[must_use]
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::for_key(self.key_type())
    }

    /// Whether this certificate may seal at an instant: within its validity, for signing and not for encrypting, for
    /// sealing by its extended key usage (or a qualified certificate of a person), and naming its taxpayer.
    ///
    /// # Errors
    /// [`Unfit`], a sentence with the date or the usage that is in the way.
    pub fn fit_for_sealing(&self, at: Timestamp) -> Result<(), Unfit> {
        if at < self.not_before() {
            return Err(Unfit::NotYetValid {
                from: self.not_before(),
            });
        }
        if at > self.not_after() {
            return Err(Unfit::Expired {
                since: self.not_after(),
            });
        }
        self.fits_profile()
    }

    /// As [`fit_for_sealing`](Self::fit_for_sealing), whatever the time.
    ///
    /// # Errors
    /// [`Unfit`], never for the time.
    pub fn fits_profile(&self) -> Result<(), Unfit> {
        let details = &self.0.details;
        details.usage.fit_for_sealing(self.taxpayer())?;
        details.unwritable.clone().map_or(Ok(()), Err)
    }

    /// Whether a text names this certificate's issuer, however it is written: with or without spaces, `SERIALNUMBER=` or
    /// `2.5.4.5=#130a…`. Order counts.
    #[must_use]
    pub fn issuer_is(&self, text: &str) -> bool {
        name::match_texts(self.issuer(), text)
    }

    /// Whether a text names this certificate's subject.
    #[must_use]
    pub fn subject_is(&self, text: &str) -> bool {
        name::match_texts(self.subject(), text)
    }

    pub(crate) fn texts(&self) -> &CertificateTexts {
        self.0.texts.get_or_init(|| CertificateTexts::of(self))
    }

    /// Whether this certificate is an authority's, that may sign others (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.0.details.is_authority()
    }

    /// How many authorities may stand between an authority and a taxpayer's certificate (pathLenConstraint).
    pub(crate) fn path_length(&self) -> Option<usize> {
        self.0.details.usage.path_length()
    }

    /// Whether `issuer` is named as the issuer of this certificate, and its key made this certificate's signature.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let details = &self.0.details;
        let signed = &self.0.der[details.tbs.clone()];
        details.names_as_issuer(issuer.details())
            && details.authority_algorithm.is_some_and(|algorithm| {
                issuer
                    .0
                    .key
                    .verify_certificate(algorithm, signed, &details.authority_signature)
            })
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("serial", &self.serial_decimal())
            .field("key", &self.key_type())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// VKN: 10 digits. TCKN: 11 digits.
fn is_taxpayer(number: &str) -> bool {
    matches!(number.len(), 10 | 11) && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// The decimal digits of a DER INTEGER's content: big-endian two's complement.
fn decimal(integer: &[u8]) -> String {
    let negative = integer.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut number = integer.to_vec();
    if negative {
        let mut carry = true;
        for byte in number.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut digits = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut remainder = 0u16;
        for byte in &mut number {
            let value = remainder << 8 | u16::from(*byte);
            *byte = (value / 10).to_le_bytes()[0];
            remainder = value % 10;
        }
        digits.push(b'0' + remainder.to_le_bytes()[0]);
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    if negative {
        digits.push(b'-');
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_written_in_decimal() {
        assert_eq!(decimal(&[0x00]), "0");
        assert_eq!(decimal(&[0x9a]), "-102");
        assert_eq!(decimal(&[0x00, 0x9a, 0x5a, 0x19, 0xc4, 0x6a]), "662936601706");
        assert_eq!(decimal(&[0x7f; 20]), "727885129180488904360266563744972327436484050815");
    }

    #[test]
    fn a_taxpayer_has_ten_digits_or_eleven() {
        assert!(is_taxpayer("1234567801") && is_taxpayer("12345678901"));
        assert!(!is_taxpayer("123456789") && !is_taxpayer("123456789012") && !is_taxpayer("12345678ab"));
        assert!(!is_taxpayer("١٢٣٤٥"), "ten bytes, no ASCII digit");
    }

    #[test]
    fn what_is_no_certificate_is_refused_in_words() {
        assert!(matches!(
            Certificate::from_pem(b"nothing").unwrap_err(),
            CertificateError::File(FileError::Unknown(_))
        ));
        let broken = b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----";
        assert!(matches!(
            Certificate::from_pem(broken).unwrap_err(),
            CertificateError::Structure(_)
        ));
        assert!(matches!(
            Certificate::from_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Err(CertificateError::Structure(_))
        ));
    }
}
