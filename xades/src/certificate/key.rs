//! A certificate's public key: read once, checked with often.

use std::sync::OnceLock;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::CertificateError;
use crate::algorithm::{DigestAlgorithm, KeyType, SignatureAlgorithm};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// The signature value is not this key's over these bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify with the certificate's public key")]
pub struct WrongSignature;

/// A public key that seals are checked with.
pub struct PublicKey {
    key_type: KeyType,
    parameters: KeyParameters,
    spki_der: Box<[u8]>,
    /// By digest: SHA-256, SHA-384, SHA-512. A curve uses one of them, RSA whichever a seal names.
    parsed: [OnceLock<Option<ParsedPublicKey>>; 3],
}

/// What `ds:KeyValue` says of a key (XML Signature 1.1 section 4.5.2).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyParameters {
    /// RSA: both as unsigned big-endian bytes without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Box<[u8]>,
        /// The public exponent.
        exponent: Box<[u8]>,
    },
    /// EC: a named curve and the uncompressed point `04‖x‖y`.
    Ec {
        /// The curve's object identifier, dotted.
        curve: &'static str,
        /// The point.
        point: Box<[u8]>,
    },
}

impl PublicKey {
    pub(super) fn from_spki(spki: &SubjectPublicKeyInfoOwned, spki_der: &[u8]) -> Result<Self, CertificateError> {
        let bits = spki.subject_public_key.raw_bytes();
        let (key_type, parameters) = match spki.algorithm.oid {
            RSA_ENCRYPTION => rsa(bits)?,
            EC_PUBLIC_KEY => {
                let curve = spki
                    .algorithm
                    .parameters
                    .as_ref()
                    .and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
                ec(curve, bits)?
            }
            other => return Err(CertificateError::Key(format!("of the unknown type {other}"))),
        };
        let key = Self {
            key_type,
            parameters,
            spki_der: spki_der.into(),
            parsed: [const { OnceLock::new() }; 3],
        };
        // Read it now: a point that is not on its curve is found here, not when the first seal is checked.
        key.parsed(SignatureAlgorithm::for_key(key_type))
            .ok_or_else(|| CertificateError::Key(format!("a broken {key_type} key")))?;
        Ok(key)
    }

    /// RSA by size, or EC by curve.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Modulus and exponent, or curve and point.
    #[must_use]
    pub fn parameters(&self) -> &KeyParameters {
        &self.parameters
    }

    /// Checks a signature value over a digest that was taken with the algorithm's own digest.
    ///
    /// # Errors
    /// [`WrongSignature`], also where the algorithm is not this key's or the value has the wrong length.
    pub fn verify_digest(
        &self,
        algorithm: SignatureAlgorithm,
        digest: &Digest,
        value: &[u8],
    ) -> Result<(), WrongSignature> {
        let key = self.parsed(algorithm).ok_or(WrongSignature)?;
        key.verify_digest_sig(digest, value).map_err(|_| WrongSignature)
    }

    /// Checks a signature value over the bytes of a digest that somebody else took.
    ///
    /// # Errors
    /// As [`verify_digest`](Self::verify_digest), and where the digest has not the length of the algorithm's.
    pub fn verify_prehashed(
        &self,
        algorithm: SignatureAlgorithm,
        digest: &[u8],
        value: &[u8],
    ) -> Result<(), WrongSignature> {
        let known = algorithm.digest().implementation();
        let digest = Digest::import_less_safe(digest, known).map_err(|_| WrongSignature)?;
        self.verify_digest(algorithm, &digest, value)
    }

    /// Checks a signature value over bytes.
    ///
    /// # Errors
    /// As [`verify_digest`](Self::verify_digest).
    pub fn verify(&self, algorithm: SignatureAlgorithm, message: &[u8], value: &[u8]) -> Result<(), WrongSignature> {
        self.verify_digest(algorithm, &algorithm.digest().digest(message), value)
    }

    /// Checks an authority's signature on a certificate: `algorithm` is what the certificate names (RFC 5758, RFC 4055).
    pub(super) fn verify_certificate(&self, algorithm: ObjectIdentifier, tbs: &[u8], value: &[u8]) -> bool {
        authority_algorithm(algorithm, self.key_type).is_some_and(|algorithm| {
            UnparsedPublicKey::new(algorithm, &self.spki_der)
                .verify(tbs, value)
                .is_ok()
        })
    }

    fn parsed(&self, algorithm: SignatureAlgorithm) -> Option<&ParsedPublicKey> {
        if !algorithm.fits(self.key_type) {
            return None;
        }
        let slot = match algorithm.digest() {
            DigestAlgorithm::Sha256 => &self.parsed[0],
            DigestAlgorithm::Sha384 => &self.parsed[1],
            DigestAlgorithm::Sha512 => &self.parsed[2],
        };
        slot.get_or_init(|| ParsedPublicKey::new(algorithm.verification(), &self.spki_der).ok())
            .as_ref()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicKey").field(&self.key_type).finish()
    }
}

impl std::fmt::Debug for KeyParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa { modulus, .. } => write!(f, "Rsa({} bits)", bits_of(modulus)),
            Self::Ec { curve, .. } => write!(f, "Ec({curve})"),
        }
    }
}

/// RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017 appendix A.1.1).
fn rsa(der: &[u8]) -> Result<(KeyType, KeyParameters), CertificateError> {
    let (modulus, exponent) = SliceReader::new(der)?.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        Ok((modulus, UintRef::decode(reader)?))
    })?;
    let modulus: Box<[u8]> = modulus.as_bytes().into();
    let key_type = match bits_of(&modulus) {
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        other => return Err(CertificateError::Key(format!("RSA of {other} bits"))),
    };
    Ok((
        key_type,
        KeyParameters::Rsa {
            modulus,
            exponent: exponent.as_bytes().into(),
        },
    ))
}

/// A named curve and a point (RFC 5480). Explicit curve parameters are refused, as RFC 5480 section 2.1.1 does.
fn ec(curve: Option<ObjectIdentifier>, point: &[u8]) -> Result<(KeyType, KeyParameters), CertificateError> {
    let (key_type, curve, coordinate) = match curve {
        Some(P256) => (KeyType::EcP256, "1.2.840.10045.3.1.7", 32),
        Some(P384) => (KeyType::EcP384, "1.3.132.0.34", 48),
        Some(P521) => (KeyType::EcP521, "1.3.132.0.35", 66),
        Some(other) => return Err(CertificateError::Key(format!("EC on the curve {other}"))),
        None => return Err(CertificateError::Key("EC without a named curve".to_owned())),
    };
    if point.len() != 1 + 2 * coordinate || point[0] != 4 {
        return Err(CertificateError::Key(format!(
            "{key_type} without an uncompressed point"
        )));
    }
    Ok((
        key_type,
        KeyParameters::Ec {
            curve,
            point: point.into(),
        },
    ))
}

fn bits_of(unsigned: &[u8]) -> usize {
    let leading = unsigned.first().map_or(0, |byte| byte.leading_zeros() as usize);
    unsigned.len() * 8 - leading
}

fn authority_algorithm(oid: ObjectIdentifier, key: KeyType) -> Option<&'static dyn VerificationAlgorithm> {
    const SHA256_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
    const SHA384_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
    const SHA512_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
    const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
    const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
    const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
    Some(match (oid, key) {
        (SHA256_RSA, key) if key.is_rsa() => &signature::RSA_PKCS1_2048_8192_SHA256,
        (SHA384_RSA, key) if key.is_rsa() => &signature::RSA_PKCS1_2048_8192_SHA384,
        (SHA512_RSA, key) if key.is_rsa() => &signature::RSA_PKCS1_2048_8192_SHA512,
        (ECDSA_SHA256, KeyType::EcP256) => &signature::ECDSA_P256_SHA256_ASN1,
        (ECDSA_SHA384, KeyType::EcP256) => &signature::ECDSA_P256_SHA384_ASN1,
        (ECDSA_SHA512, KeyType::EcP256) => &signature::ECDSA_P256_SHA512_ASN1,
        (ECDSA_SHA256, KeyType::EcP384) => &signature::ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, KeyType::EcP384) => &signature::ECDSA_P384_SHA384_ASN1,
        (ECDSA_SHA512, KeyType::EcP384) => &signature::ECDSA_P384_SHA512_ASN1,
        (ECDSA_SHA256, KeyType::EcP521) => &signature::ECDSA_P521_SHA256_ASN1,
        (ECDSA_SHA384, KeyType::EcP521) => &signature::ECDSA_P521_SHA384_ASN1,
        (ECDSA_SHA512, KeyType::EcP521) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}
