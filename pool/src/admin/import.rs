//! A private key from outside, taken apart for `C_CreateObject`.

use cryptoki::object::{Attribute, KeyType, ObjectClass};
use pkcs8::PrivateKeyInfo;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Encode};

use crate::keys::Curve;

/// The attributes of both halves.
pub(super) struct Parts {
    pub(super) private: Vec<Attribute>,
    pub(super) public: Vec<Attribute>,
}

pub(super) fn parse(pkcs8_der: &[u8]) -> Result<Parts, String> {
    let info = PrivateKeyInfo::try_from(pkcs8_der).map_err(|e| format!("not a PKCS#8 private key: {e}"))?;
    match info.algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => rsa(info.private_key),
        "1.2.840.10045.2.1" => {
            let curve = info
                .algorithm
                .parameters_oid()
                .map_err(|e| format!("an EC key without a named curve: {e}"))?;
            let curve = Curve::ALL
                .into_iter()
                .find(|c| c.oid().to_string() == curve.to_string())
                .ok_or_else(|| format!("the curve {curve} is none that can seal"))?;
            ec(curve, info.private_key)
        }
        other => Err(format!("the key algorithm {other} is none that can seal")),
    }
}

fn rsa(key: &[u8]) -> Result<Parts, String> {
    let key = pkcs1::RsaPrivateKey::from_der(key).map_err(|e| format!("not an RSA private key: {e}"))?;
    let number = |number: pkcs1::UintRef<'_>| number.as_bytes().to_vec();
    Ok(Parts {
        private: vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::RSA),
            Attribute::Modulus(number(key.modulus)),
            Attribute::PublicExponent(number(key.public_exponent)),
            Attribute::PrivateExponent(number(key.private_exponent)),
            Attribute::Prime1(number(key.prime1)),
            Attribute::Prime2(number(key.prime2)),
            Attribute::Exponent1(number(key.exponent1)),
            Attribute::Exponent2(number(key.exponent2)),
            Attribute::Coefficient(number(key.coefficient)),
        ],
        public: vec![
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::RSA),
            Attribute::Modulus(number(key.modulus)),
            Attribute::PublicExponent(number(key.public_exponent)),
        ],
    })
}

fn ec(curve: Curve, key: &[u8]) -> Result<Parts, String> {
    let key = sec1::EcPrivateKey::from_der(key).map_err(|e| format!("not an EC private key: {e}"))?;
    let params = curve.oid().to_der().map_err(|e| e.to_string())?;
    let point = match key.public_key {
        Some(point) => point.to_vec(),
        None => public_point(curve, key.private_key)?,
    };
    let point = OctetStringRef::new(&point)
        .and_then(|point| point.to_der())
        .map_err(|e| e.to_string())?;
    Ok(Parts {
        private: vec![
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(params.clone()),
            Attribute::Value(key.private_key.to_vec()),
        ],
        public: vec![
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(params),
            Attribute::EcPoint(point),
        ],
    })
}

/// The public point of a private key that comes without (RFC 5915 leaves it optional).
fn public_point(curve: Curve, private_key: &[u8]) -> Result<Vec<u8>, String> {
    use aws_lc_rs::agreement;
    let algorithm = match curve {
        Curve::P256 => &agreement::ECDH_P256,
        Curve::P384 => &agreement::ECDH_P384,
        Curve::P521 => &agreement::ECDH_P521,
    };
    let unfit = |_| "the EC private key is out of range".to_owned();
    let key = agreement::PrivateKey::from_private_key(algorithm, private_key).map_err(unfit)?;
    let public = key
        .compute_public_key()
        .map_err(|_| "the EC private key has no public point".to_owned())?;
    Ok(public.as_ref().to_vec())
}
