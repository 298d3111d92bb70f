//! Keys: their types, and how an object of a token is read. What belongs together on a token is found in [`crate::discovery`].

use std::collections::HashMap;
use std::sync::Arc;

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use x509_cert::der::asn1::{Any, BitString, ObjectIdentifier, OctetStringRef, UintRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::certificate::parts;
use crate::ckr::{CkrError, ckr};
use crate::job::Hash;

/// A key of the pool, for as long as the pool lives. The same key on several tokens is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) u32);

impl KeyId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A private key that the pool can sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What [`crate::Pool::sign`] wants to hear.
    pub id: KeyId,
    /// SubjectPublicKeyInfo, DER (RFC 5280, section 4.1.2.7).
    pub spki_der: Arc<[u8]>,
    /// CKA_LABEL on the first token that holds it.
    pub label: String,
    /// CKA_ID on the first token that holds it.
    pub cka_id: Vec<u8>,
    /// Certificates on the tokens that carry this public key, DER, without repetition.
    pub certificates: Vec<Vec<u8>>,
    /// Configured names of the tokens that hold it.
    pub tokens: Vec<Arc<str>>,
    /// Type and size.
    pub kind: KeyKind,
}

/// Type and size of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// 2048, 3072, 4096.
        bits: usize,
    },
    /// EC on a NIST curve.
    Ec(Curve),
}

/// A curve (RFC 5480, section 2.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

impl Curve {
    pub(crate) const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
            Self::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
            Self::P521 => ObjectIdentifier::new_unwrap("1.3.132.0.35"),
        }
    }

    /// The curve that CKA_EC_PARAMS names (PKCS#11 3.1, section 6.3.3), where it is one of these.
    pub(crate) fn of_params(params: &[u8]) -> Option<Self> {
        let named = ObjectIdentifier::from_der(params).ok()?;
        Self::ALL.into_iter().find(|curve| curve.oid() == named)
    }

    /// Bytes of a coordinate, and of the order.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl KeyKind {
    /// Bytes of a signature: the modulus, or r‖s (PKCS#11 3.1, section 6.3.1).
    #[must_use]
    pub fn signature_len(self) -> usize {
        match self {
            Self::Rsa { bits } => bits.div_ceil(8),
            Self::Ec(curve) => 2 * curve.bytes(),
        }
    }

    /// The hash that goes with the key where nothing else is said: SHA-256, and for the larger curves the one of their strength.
    #[must_use]
    pub fn default_hash(self) -> Hash {
        match self {
            Self::Rsa { .. } | Self::Ec(Curve::P256) => Hash::Sha256,
            Self::Ec(Curve::P384) => Hash::Sha384,
            Self::Ec(Curve::P521) => Hash::Sha512,
        }
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(crate) fn of_spki(spki_der: &[u8]) -> Option<Self> {
        let spki = SubjectPublicKeyInfoOwned::from_der(spki_der).ok()?;
        if spki.algorithm.oid == RSA_ENCRYPTION {
            let key = pkcs1::RsaPublicKey::from_der(spki.subject_public_key.as_bytes()?).ok()?;
            let modulus = key.modulus.as_bytes();
            let leading = modulus.first()?.leading_zeros() as usize;
            return Some(Self::Rsa {
                bits: modulus.len() * 8 - leading,
            });
        }
        let curve: ObjectIdentifier = spki.algorithm.parameters?.decode_as().ok()?;
        Curve::ALL
            .into_iter()
            .find(|c| c.oid() == curve && spki.algorithm.oid == EC_PUBLIC_KEY)
            .map(Self::Ec)
    }
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA-{bits}"),
            Self::Ec(Curve::P256) => f.write_str("EC P-256"),
            Self::Ec(Curve::P384) => f.write_str("EC P-384"),
            Self::Ec(Curve::P521) => f.write_str("EC P-521"),
        }
    }
}

/// Attributes of one object, of those that were asked and given.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) class: Option<ObjectClass>,
    pub(crate) key_type: Option<KeyType>,
    pub(crate) id: Vec<u8>,
    pub(crate) label: String,
    pub(crate) modulus: Vec<u8>,
    pub(crate) exponent: Vec<u8>,
    pub(crate) ec_params: Vec<u8>,
    pub(crate) ec_point: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) flags: HashMap<AttributeType, bool>,
}

pub(crate) fn read(session: &Session, object: ObjectHandle, wanted: &[AttributeType]) -> Result<Read, CkrError> {
    let mut read = Read::default();
    for attribute in session.get_attributes(object, wanted).map_err(|e| ckr(&e))? {
        let kind = attribute.attribute_type();
        match attribute {
            Attribute::Class(class) => read.class = Some(class),
            Attribute::KeyType(key_type) => read.key_type = Some(key_type),
            Attribute::Id(id) => read.id = id,
            Attribute::Label(label) => read.label = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Modulus(modulus) => read.modulus = modulus,
            Attribute::PublicExponent(exponent) => read.exponent = exponent,
            Attribute::EcParams(params) => read.ec_params = params,
            Attribute::EcPoint(point) => read.ec_point = point,
            Attribute::Value(value) => read.value = value,
            Attribute::Sign(is)
            | Attribute::AlwaysAuthenticate(is)
            | Attribute::Sensitive(is)
            | Attribute::AlwaysSensitive(is)
            | Attribute::Extractable(is)
            | Attribute::NeverExtractable(is)
            | Attribute::Private(is)
            | Attribute::Local(is)
            | Attribute::Token(is) => {
                read.flags.insert(kind, is);
            }
            _ => {}
        }
    }
    Ok(read)
}

pub(crate) const PUBLIC_PARTS: [AttributeType; 7] = [
    AttributeType::KeyType,
    AttributeType::Id,
    AttributeType::Label,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
];

impl Read {
    /// The public key, where its parts were given.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        match self.key_type {
            Some(KeyType::RSA) if !self.modulus.is_empty() && !self.exponent.is_empty() => {
                rsa_spki(&self.modulus, &self.exponent)
            }
            Some(KeyType::EC) if !self.ec_point.is_empty() => ec_spki(&self.ec_params, &self.ec_point),
            _ => None,
        }
    }
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let key = pkcs1::RsaPublicKey {
        modulus: UintRef::new(modulus).ok()?,
        public_exponent: UintRef::new(exponent).ok()?,
    };
    let spki = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: RSA_ENCRYPTION,
            parameters: Some(Any::null()),
        },
        subject_public_key: BitString::from_bytes(&key.to_der().ok()?).ok()?,
    };
    spki.to_der().ok()
}

fn ec_spki(params: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    let curve = Curve::of_params(params)?;
    // CKA_EC_POINT is the point in a DER OCTET STRING (PKCS#11 3.1, section 6.3.3); some modules give it bare.
    let bare = 1 + 2 * curve.bytes();
    let point = if point.len() == bare {
        point
    } else {
        OctetStringRef::from_der(point).ok()?.as_bytes()
    };
    let spki = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: EC_PUBLIC_KEY,
            parameters: Some(Any::from(curve.oid())),
        },
        subject_public_key: BitString::from_bytes(point).ok()?,
    };
    spki.to_der().ok()
}

/// The certificate's SubjectPublicKeyInfo, DER.
pub(crate) fn certificate_spki(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(parts(certificate).ok()?.public_key.to_vec())
}

/// `ObjectHandle` keeps its number to itself, but shows it.
pub(crate) fn handle(object: ObjectHandle) -> u64 {
    object.handle().into()
}

/// Whether two SubjectPublicKeyInfos carry the same key, whatever their parameters are written like.
pub(crate) fn same_key(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let bits = |der| {
        SubjectPublicKeyInfoOwned::from_der(der)
            .ok()
            .map(|s| (s.algorithm.oid, s.subject_public_key))
    };
    matches!((bits(a), bits(b)), (Some(a), Some(b)) if a == b)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
