//! Whose seal it is: the certificate that the signed properties name, found in KeyInfo, which must not contradict it.

use super::child::{base64, one, structure};
use super::error::{Failure, Located};
use super::references::digest_algorithm;
use super::tree::Node;
use crate::certificate::{Certificate, KeyParameters};
use crate::scope::Ns;

/// A seal's certificate and a chain above it. Every seal that was seen carries its own certificate alone.
const MAX_CERTIFICATES: usize = 16;

/// The certificate that SigningCertificate names first, found in KeyInfo, and the others there.
pub(super) fn certificates(key_info: &Node, properties: &Node) -> Result<(Certificate, Vec<Certificate>), Located> {
    let signing = one(properties, Ns::XADES, "SigningCertificate", "xades:SigningCertificate")?;
    let cert = signing
        .all(Ns::XADES, "Cert")
        .next()
        .ok_or((Failure::Missing("xades:Cert"), signing.ordinal))?;
    let digest = one(cert, Ns::XADES, "CertDigest", "xades:CertDigest")?;
    let algorithm = digest_algorithm(one(digest, Ns::DS, "DigestMethod", "ds:DigestMethod")?)?;
    let value = base64(one(digest, Ns::DS, "DigestValue", "ds:DigestValue")?, "ds:DigestValue")?;

    let data = key_info.all(Ns::DS, "X509Data");
    let written: Vec<_> = data.flat_map(|data| data.all(Ns::DS, "X509Certificate")).collect();
    if written.len() > MAX_CERTIFICATES {
        return Err(structure(key_info, "KeyInfo has more certificates than a chain"));
    }
    let (mut found, mut others) = (None, Vec::new());
    for node in written {
        let der = base64(node, "ds:X509Certificate")?;
        let named = algorithm.digest(&der).as_ref() == value;
        match Certificate::from_der(&der) {
            Ok(certificate) if named && found.is_none() => found = Some(certificate),
            Ok(certificate) => others.push(certificate),
            Err(error) if named => return Err((Failure::Certificate(error), node.ordinal)),
            // One of the chain, of a kind that is not known here: it cannot help, and does no harm.
            Err(_) => {}
        }
    }
    let certificate = found.ok_or((Failure::SigningCertificate("the digest"), digest.ordinal))?;

    let issuer_serial = one(cert, Ns::XADES, "IssuerSerial", "xades:IssuerSerial")?;
    let issuer = one(issuer_serial, Ns::DS, "X509IssuerName", "ds:X509IssuerName")?;
    if !certificate.issuer_is(&issuer.text) {
        return Err((Failure::SigningCertificate("the issuer"), issuer.ordinal));
    }
    let serial = one(issuer_serial, Ns::DS, "X509SerialNumber", "ds:X509SerialNumber")?;
    let digits = serial.text.trim();
    let significant = digits.trim_start_matches('0');
    // Nothing but zeros is zero.
    let significant = if significant.is_empty() {
        &digits[..digits.len().min(1)]
    } else {
        significant
    };
    if significant != certificate.serial_decimal() {
        return Err((Failure::SigningCertificate("the serial number"), serial.ordinal));
    }
    Ok((certificate, others))
}

/// What KeyInfo says beside its certificate must be the certificate's.
pub(super) fn check_key_info(key_info: &Node, certificate: &Certificate) -> Result<(), Located> {
    for value in key_info.all(Ns::DS, "KeyValue") {
        let same = match (certificate.public_key().parameters(), &value.children[..]) {
            (KeyParameters::Rsa { modulus, exponent }, [key]) if key.is(Ns::DS, "RSAKeyValue") => {
                let has = |name, number: &[u8]| -> Result<bool, Located> {
                    let value = base64(one(key, Ns::DS, name, "ds:RSAKeyValue")?, "ds:RSAKeyValue")?;
                    let zeros = value.iter().take_while(|byte| **byte == 0).count();
                    Ok(&value[zeros..] == number)
                };
                has("Modulus", modulus)? && has("Exponent", exponent)?
            }
            (KeyParameters::Ec { curve, point }, [key]) if key.is(Ns::DS_11, "ECKeyValue") => {
                let named = one(key, Ns::DS_11, "NamedCurve", "dsig11:NamedCurve")?;
                let named = named.attribute("URI").and_then(|uri| uri.strip_prefix("urn:oid:"));
                let written = one(key, Ns::DS_11, "PublicKey", "dsig11:PublicKey")?;
                named == Some(curve) && base64(written, "dsig11:PublicKey")? == **point
            }
            _ => false,
        };
        if !same {
            return Err((Failure::KeyInfo("KeyValue"), value.ordinal));
        }
    }
    for name in key_info
        .all(Ns::DS, "X509Data")
        .flat_map(|data| data.all(Ns::DS, "X509SubjectName"))
    {
        if !certificate.subject_is(&name.text) {
            return Err((Failure::KeyInfo("X509SubjectName"), name.ordinal));
        }
    }
    Ok(())
}
