//! A `ds:Signature` read strictly: what it says, before any of it is believed.
//!
//! A tree comes in; out goes [`Stated`], which is complete and unambiguous, or the failure that says what is missing,
//! doubled or foreign. Nothing is computed here but base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::error::{Failure, Located};
use super::tree::Node;
use crate::algorithm::{DigestAlgorithm, SignatureAlgorithm};
use crate::build::{ENVELOPED_SIGNATURE, SIGNED_PROPERTIES_TYPE};
use crate::c14n::{Form, Method};
use crate::certificate::{Certificate, KeyParameters};
use crate::scope::Ns;

/// `ds:Reference/@Type` that a counter-signature's reference may carry (XAdES 1.4.2 section 7.2.4.1).
const COUNTERSIGNED_TYPE: &str = "http://uri.etsi.org/01903#CountersignedSignature";

/// What a signature says.
#[derive(Debug)]
pub(super) struct Stated<'t> {
    pub(super) node: &'t Node,
    pub(super) id: &'t str,
    pub(super) signed_info: &'t Node,
    pub(super) canonicalization: Method,
    pub(super) algorithm: SignatureAlgorithm,
    /// The document, or for a counter-signature the value of the signature around it.
    pub(super) subject: Reference,
    /// The signed properties.
    pub(super) properties: Reference,
    pub(super) properties_node: &'t Node,
    pub(super) value_node: &'t Node,
    pub(super) value: Vec<u8>,
    pub(super) certificate: Certificate,
    /// What a differing digest of the subject means.
    pub(super) subject_failure: Failure,
    /// The other certificates of KeyInfo.
    pub(super) others: Vec<Certificate>,
    pub(super) signing_time: Timestamp,
    pub(super) signing_time_text: &'t str,
    pub(super) claimed_role: Option<&'t str>,
    pub(super) counter_signatures: Vec<&'t Node>,
}

/// What a reference says of what it refers to.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) canonicalization: Method,
    pub(super) digest: DigestAlgorithm,
    pub(super) value: Vec<u8>,
    /// The element's number in document order.
    pub(super) ordinal: u64,
}

/// What the first reference of a signature must point to.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// The document that the signature stands in.
    Document,
    /// The SignatureValue with this Id.
    Value(&'a str),
}

pub(super) fn read<'t>(signature: &'t Node, subject: Subject<'_>) -> Result<Stated<'t>, Located> {
    let id = signature
        .attribute("Id")
        .ok_or((Failure::Missing("ds:Signature/@Id"), signature.ordinal))?;
    let signed_info = one(signature, Ns::DS, "SignedInfo", "ds:SignedInfo")?;
    let value_node = one(signature, Ns::DS, "SignatureValue", "ds:SignatureValue")?;
    let key_info = one(signature, Ns::DS, "KeyInfo", "ds:KeyInfo")?;
    let object = one(signature, Ns::DS, "Object", "ds:Object")?;
    if signature.children.len() != 4 {
        return Err(structure(signature, "ds:Signature has children that a seal has not"));
    }
    let qualifying = one(object, Ns::XADES, "QualifyingProperties", "xades:QualifyingProperties")?;
    if qualifying
        .attribute("Target")
        .and_then(|target| target.strip_prefix('#'))
        != Some(id)
    {
        return Err(structure(
            qualifying,
            "QualifyingProperties/@Target is not this signature",
        ));
    }
    let properties_node = one(qualifying, Ns::XADES, "SignedProperties", "xades:SignedProperties")?;
    let properties_id = properties_node
        .attribute("Id")
        .ok_or((Failure::Missing("xades:SignedProperties/@Id"), properties_node.ordinal))?;

    let (canonicalization, algorithm) = methods(signed_info)?;
    let subject_failure = match subject {
        Subject::Document => Failure::DocumentDigest,
        Subject::Value(_) => Failure::CounterSignatureDigest,
    };
    let (subject, properties) = references(signed_info, subject, properties_id)?;

    let stated = one(
        properties_node,
        Ns::XADES,
        "SignedSignatureProperties",
        "xades:SignedSignatureProperties",
    )?;
    let (signing_time, signing_time_text) = signing_time(stated)?;
    let (certificate, others) = certificates(key_info, stated)?;
    check_key_info(key_info, &certificate)?;
    Ok(Stated {
        node: signature,
        id,
        signed_info,
        canonicalization,
        algorithm,
        subject,
        subject_failure,
        properties,
        properties_node,
        value_node,
        value: base64(value_node, "ds:SignatureValue")?,
        certificate,
        others,
        signing_time,
        signing_time_text,
        claimed_role: claimed_role(stated),
        counter_signatures: counter_signatures(qualifying)?,
    })
}

/// CanonicalizationMethod and SignatureMethod.
fn methods(signed_info: &Node) -> Result<(Method, SignatureAlgorithm), Located> {
    let node = one(
        signed_info,
        Ns::DS,
        "CanonicalizationMethod",
        "ds:CanonicalizationMethod",
    )?;
    let canonicalization =
        canonicalization(node).ok_or((Failure::Algorithm("CanonicalizationMethod"), node.ordinal))?;
    let node = one(signed_info, Ns::DS, "SignatureMethod", "ds:SignatureMethod")?;
    let algorithm = node
        .attribute("Algorithm")
        .and_then(SignatureAlgorithm::from_uri)
        .ok_or((Failure::Algorithm("SignatureMethod"), node.ordinal))?;
    Ok((canonicalization, algorithm))
}

/// Exactly the subject and the signed properties, in either order.
fn references(
    signed_info: &Node,
    subject: Subject<'_>,
    properties_id: &str,
) -> Result<(Reference, Reference), Located> {
    let all: Vec<_> = signed_info.all(Ns::DS, "Reference").collect();
    if signed_info.children.len() != 2 + all.len() {
        return Err(structure(signed_info, "ds:SignedInfo has children that a seal has not"));
    }
    let &[first, second] = &all[..] else {
        return Err((Failure::References("there must be two"), signed_info.ordinal));
    };
    let is_properties = |node: &Node| node.attribute("Type") == Some(SIGNED_PROPERTIES_TYPE);
    let (subject_node, properties_node) = match (is_properties(first), is_properties(second)) {
        (false, true) => (first, second),
        (true, false) => (second, first),
        _ => {
            return Err((
                Failure::References("one must have the Type of SignedProperties"),
                signed_info.ordinal,
            ));
        }
    };
    if properties_node.attribute("URI").and_then(|uri| uri.strip_prefix('#')) != Some(properties_id) {
        return Err((
            Failure::References("one refers to other properties than this seal's"),
            properties_node.ordinal,
        ));
    }
    let properties = reference(properties_node, optional_canonicalization(properties_node)?)?;
    let uri = subject_node.attribute("URI").unwrap_or("(none)");
    let canonicalization = match subject {
        Subject::Document if !uri.is_empty() || subject_node.attribute("Type").is_some() => {
            return Err((
                Failure::References("one refers to something else than the document"),
                subject_node.ordinal,
            ));
        }
        Subject::Document => {
            let only_enveloped = transforms(subject_node)?.is_some_and(|transforms| {
                matches!(transforms, [one] if one.attribute("Algorithm") == Some(ENVELOPED_SIGNATURE)
                    && one.children.is_empty())
            });
            if !only_enveloped {
                let failure = Failure::References("the document has other transforms than enveloped-signature");
                return Err((failure, subject_node.ordinal));
            }
            Method::INCLUSIVE
        }
        Subject::Value(id) => {
            let own_type = subject_node
                .attribute("Type")
                .is_none_or(|own| own == COUNTERSIGNED_TYPE);
            if uri.strip_prefix('#') != Some(id) || !own_type {
                let failure = Failure::References("the counter-signature refers to something else than the value");
                return Err((failure, subject_node.ordinal));
            }
            optional_canonicalization(subject_node)?
        }
    };
    Ok((reference(subject_node, canonicalization)?, properties))
}

fn reference(node: &Node, canonicalization: Method) -> Result<Reference, Located> {
    let method = one(node, Ns::DS, "DigestMethod", "ds:DigestMethod")?;
    let value = one(node, Ns::DS, "DigestValue", "ds:DigestValue")?;
    let digest = digest_algorithm(method)?;
    Ok(Reference {
        canonicalization,
        digest,
        value: base64(value, "ds:DigestValue")?,
        ordinal: node.ordinal,
    })
}

fn digest_algorithm(method: &Node) -> Result<DigestAlgorithm, Located> {
    method
        .attribute("Algorithm")
        .and_then(DigestAlgorithm::from_uri)
        .ok_or((Failure::Algorithm("DigestMethod"), method.ordinal))
}

/// The transforms of a reference; `None` where it has none.
fn transforms(reference: &Node) -> Result<Option<&[Node]>, Located> {
    let Some(transforms) = at_most_one(reference, Ns::DS, "Transforms", "ds:Transforms")? else {
        return Ok(None);
    };
    if transforms.children.iter().all(|child| child.is(Ns::DS, "Transform")) {
        Ok(Some(&transforms.children))
    } else {
        Err(structure(
            transforms,
            "ds:Transforms has children that are no ds:Transform",
        ))
    }
}

/// At most a canonicalization; without one it is inclusive C14N 1.0 (XML Signature 1.1 section 4.4.3.2). Comments are
/// gone already, since a same-document reference leaves them out (section 4.4.3.3), whatever the method says.
fn optional_canonicalization(reference: &Node) -> Result<Method, Located> {
    match transforms(reference)? {
        None | Some([]) => Ok(Method::INCLUSIVE),
        Some([one]) => canonicalization(one)
            .map(|method| Method {
                comments: false,
                ..method
            })
            .ok_or((Failure::Algorithm("ds:Transform"), one.ordinal)),
        Some(_) => Err((Failure::References("more than one transform"), reference.ordinal)),
    }
}

fn canonicalization(node: &Node) -> Option<Method> {
    let method = node.attribute("Algorithm").and_then(Method::from_uri)?;
    let inclusive_prefixes = match &node.children[..] {
        [] => Vec::new(),
        [one] if method.form == Form::Exclusive && one.local == "InclusiveNamespaces" => one
            .attribute("PrefixList")?
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    Some(Method {
        inclusive_prefixes,
        ..method
    })
}

fn signing_time(properties: &Node) -> Result<(Timestamp, &str), Located> {
    let node = one(properties, Ns::XADES, "SigningTime", "xades:SigningTime")?;
    let text = node.text.trim();
    // xs:dateTime may lack its zone; then nobody knows when it was.
    let time = text
        .parse()
        .map_err(|_| (Failure::Value("xades:SigningTime"), node.ordinal))?;
    Ok((time, text))
}

/// The certificate that SigningCertificate names first, found in KeyInfo, and the others there.
fn certificates(key_info: &Node, properties: &Node) -> Result<(Certificate, Vec<Certificate>), Located> {
    let signing = one(properties, Ns::XADES, "SigningCertificate", "xades:SigningCertificate")?;
    let cert = signing
        .all(Ns::XADES, "Cert")
        .next()
        .ok_or((Failure::Missing("xades:Cert"), signing.ordinal))?;
    let digest = one(cert, Ns::XADES, "CertDigest", "xades:CertDigest")?;
    let algorithm = digest_algorithm(one(digest, Ns::DS, "DigestMethod", "ds:DigestMethod")?)?;
    let value = base64(one(digest, Ns::DS, "DigestValue", "ds:DigestValue")?, "ds:DigestValue")?;

    let (mut found, mut others) = (None, Vec::new());
    for node in key_info
        .all(Ns::DS, "X509Data")
        .flat_map(|data| data.all(Ns::DS, "X509Certificate"))
    {
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
    if !certificate.issuer_is(issuer.text.trim()) {
        return Err((Failure::SigningCertificate("the issuer"), issuer.ordinal));
    }
    let serial = one(issuer_serial, Ns::DS, "X509SerialNumber", "ds:X509SerialNumber")?;
    if serial.text.trim().trim_start_matches('0') != certificate.serial_decimal() {
        return Err((Failure::SigningCertificate("the serial number"), serial.ordinal));
    }
    Ok((certificate, others))
}

/// What KeyInfo says beside its certificate must be the certificate's.
fn check_key_info(key_info: &Node, certificate: &Certificate) -> Result<(), Located> {
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
        if !certificate.subject_is(name.text.trim()) {
            return Err((Failure::KeyInfo("X509SubjectName"), name.ordinal));
        }
    }
    Ok(())
}

fn claimed_role(properties: &Node) -> Option<&str> {
    let role = properties
        .all(Ns::XADES, "SignerRole")
        .next()?
        .all(Ns::XADES, "ClaimedRoles")
        .next()?;
    role.all(Ns::XADES, "ClaimedRole").next().map(|role| role.text.trim())
}

/// The signatures in `xades:CounterSignature`; the other unsigned properties are an archive's, and not looked at.
fn counter_signatures(qualifying: &Node) -> Result<Vec<&Node>, Located> {
    let Some(unsigned) = at_most_one(qualifying, Ns::XADES, "UnsignedProperties", "xades:UnsignedProperties")? else {
        return Ok(Vec::new());
    };
    let properties = unsigned.all(Ns::XADES, "UnsignedSignatureProperties");
    properties
        .flat_map(|properties| properties.all(Ns::XADES, "CounterSignature"))
        .map(|counter| one(counter, Ns::DS, "Signature", "ds:Signature"))
        .collect()
}

fn one<'t>(parent: &'t Node, ns: Ns, local: &str, what: &'static str) -> Result<&'t Node, Located> {
    at_most_one(parent, ns, local, what)?.ok_or((Failure::Missing(what), parent.ordinal))
}

fn at_most_one<'t>(parent: &'t Node, ns: Ns, local: &str, what: &'static str) -> Result<Option<&'t Node>, Located> {
    let mut all = parent.all(ns, local);
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        (_, Some(second)) => Err((Failure::Doubled(what), second.ordinal)),
    }
}

fn structure(node: &Node, what: &'static str) -> Located {
    (Failure::Structure(what), node.ordinal)
}

/// xs:base64Binary: white space anywhere.
fn base64(node: &Node, what: &'static str) -> Result<Vec<u8>, Located> {
    let compact: String = node.text.split([' ', '\t', '\n', '\r']).collect();
    if !node.children.is_empty() || compact.is_empty() {
        return Err((Failure::Value(what), node.ordinal));
    }
    STANDARD
        .decode(compact)
        .map_err(|_| (Failure::Value(what), node.ordinal))
}
