//! A taxpayer's certificate, as far as a seal needs it.
//!
//! DER or PEM comes in; what a seal quotes (digests, names, serial number, key), what it is checked with (the public
//! key, parsed once) and whether it may seal at all go out. A [`Certificate`] is shared: a clone costs a counter, and
//! what is computed from it once (base64, digests, the text of KeyInfo) stays with it. Nothing here knows documents,
//! and nothing here asks a network: revocation and the chain are somebody else's question.

mod key;
mod name;
mod profile;

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode as _, Encode as _, Reader as _};

pub use key::{KeyParameters, PublicKey, WrongSignature};
pub use profile::Unfit;

use crate::algorithm::{DigestAlgorithm, KeyType, SignatureAlgorithm};
use crate::build::CertificateTexts;

/// An X.509 certificate (RFC 5280) with a key that a seal can be made with.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    der: Box<[u8]>,
    /// The part that the authority signed, as a range of `der`.
    tbs: std::ops::Range<usize>,
    authority_algorithm: ObjectIdentifier,
    authority_signature: Box<[u8]>,
    sha256: [u8; 32],
    subject: String,
    issuer: String,
    subject_der: Box<[u8]>,
    issuer_der: Box<[u8]>,
    title: String,
    taxpayer: Option<String>,
    serial_decimal: String,
    not_before: Timestamp,
    not_after: Timestamp,
    spki_der: Box<[u8]>,
    key: PublicKey,
    usage: profile::Usage,
    texts: OnceLock<CertificateTexts>,
}

/// Why bytes are not a certificate that a seal can be made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// No `-----BEGIN CERTIFICATE-----` block, or what stands in it is not base64.
    #[error("no PEM certificate: expected base64 between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----")]
    Pem,
    /// Not the DER of an X.509 certificate.
    #[error("not an X.509 certificate in DER: {0}")]
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
        let parsed = x509_cert::Certificate::from_der(der)?;
        let tbs = &parsed.tbs_certificate;
        let spki_der = tbs.subject_public_key_info.to_der()?;
        let key = PublicKey::from_spki(&tbs.subject_public_key_info, &spki_der)?;
        let timestamp = |time: &x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs())
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds).ok())
                .ok_or(CertificateError::Validity)
        };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(DigestAlgorithm::Sha256.digest(der).as_ref());
        Ok(Self(Arc::new(Inner {
            der: der.into(),
            tbs: tbs_range(der)?,
            authority_algorithm: parsed.signature_algorithm.oid,
            authority_signature: parsed.signature.raw_bytes().into(),
            sha256,
            subject: name::rfc4514(&tbs.subject),
            issuer: name::rfc4514(&tbs.issuer),
            subject_der: tbs.subject.to_der()?.into(),
            issuer_der: tbs.issuer.to_der()?.into(),
            title: name::attribute(&tbs.subject, name::COMMON_NAME).unwrap_or_default(),
            taxpayer: name::attribute(&tbs.subject, name::SERIAL_NUMBER).filter(|number| is_taxpayer(number)),
            serial_decimal: decimal(tbs.serial_number.as_bytes()),
            not_before: timestamp(&tbs.validity.not_before)?,
            not_after: timestamp(&tbs.validity.not_after)?,
            spki_der: spki_der.into(),
            key,
            usage: profile::Usage::of(tbs)?,
            texts: OnceLock::new(),
        })))
    }

    /// Reads the first certificate of a PEM file (RFC 7468); text around the block is passed over.
    ///
    /// # Errors
    /// [`CertificateError`] where there is none, or it cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        pem_blocks(pem)
            .next()
            .ok_or(CertificateError::Pem)?
            .and_then(|der| Self::from_der(&der))
    }

    /// Reads every certificate of a PEM file, as a bundle of trust anchors is.
    ///
    /// # Errors
    /// [`CertificateError`] where there is none, or one of them cannot be used.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let all: Vec<_> = pem_blocks(pem)
            .map(|der| Self::from_der(&der?))
            .collect::<Result<_, _>>()?;
        if all.is_empty() {
            Err(CertificateError::Pem)
        } else {
            Ok(all)
        }
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
        self.0.taxpayer.as_deref()
    }

    /// The subject's common name: the company's title, or a person's name. May exceed X.520's 64 characters.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.0.title
    }

    /// The subject as RFC 4514 text, with readable attribute names: `CN=…,SERIALNUMBER=1234567801`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The issuer as RFC 4514 text: `CN=…,O=…,C=TR`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The serial number in decimal, as `ds:X509SerialNumber` has it.
    #[must_use]
    pub fn serial_decimal(&self) -> &str {
        &self.0.serial_decimal
    }

    /// The first instant of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.0.not_before
    }

    /// The last instant of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.0.not_after
    }

    /// SubjectPublicKeyInfo in DER: what a key on a token is matched with.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki_der
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
        if at < self.0.not_before {
            return Err(Unfit::NotYetValid {
                from: self.0.not_before,
            });
        }
        if at > self.0.not_after {
            return Err(Unfit::Expired {
                since: self.0.not_after,
            });
        }
        self.fits_profile()
    }

    /// As [`fit_for_sealing`](Self::fit_for_sealing), whatever the time.
    ///
    /// # Errors
    /// [`Unfit`], never for the time.
    pub fn fits_profile(&self) -> Result<(), Unfit> {
        self.0.usage.fit_for_sealing(self.taxpayer())
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
        self.0.usage.is_authority()
    }

    /// How many authorities may stand between an authority and a taxpayer's certificate (pathLenConstraint).
    pub(crate) fn path_length(&self) -> Option<usize> {
        self.0.usage.path_length()
    }

    /// Whether `issuer` is named as the issuer of this certificate, and its key made this certificate's signature.
    #[must_use]
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.0.issuer_der == issuer.0.subject_der
            && issuer.0.key.verify_certificate(
                self.0.authority_algorithm,
                &self.0.der[self.0.tbs.clone()],
                &self.0.authority_signature,
            )
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
            .field("subject", &self.0.subject)
            .field("serial", &self.0.serial_decimal)
            .field("key", &self.key_type())
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

/// Where the signed part lies: the first element of the outer SEQUENCE.
fn tbs_range(der: &[u8]) -> Result<std::ops::Range<usize>, der::Error> {
    let mut reader = der::SliceReader::new(der)?;
    der::Header::decode(&mut reader)?;
    let start = usize::try_from(reader.position())?;
    let len = reader.tlv_bytes()?.len();
    Ok(start..start + len)
}

/// VKN: 10 digits. TCKN: 11 digits.
fn is_taxpayer(number: &str) -> bool {
    matches!(number.len(), 10 | 11) && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn pem_blocks(pem: &[u8]) -> impl Iterator<Item = Result<Vec<u8>, CertificateError>> + '_ {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(pem).unwrap_or_default();
    text.split(BEGIN).skip(1).map(|block| {
        let body = block.split_once(END).ok_or(CertificateError::Pem)?.0;
        let base64: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(base64).map_err(|_| CertificateError::Pem)
    })
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
        assert_eq!(Certificate::from_pem(b"nothing").unwrap_err(), CertificateError::Pem);
        let broken = b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----";
        assert!(matches!(
            Certificate::from_pem(broken).unwrap_err(),
            CertificateError::Der(_)
        ));
        assert!(matches!(
            Certificate::from_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Err(CertificateError::Der(_))
        ));
    }
}
