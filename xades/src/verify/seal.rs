//! A `ds:Signature` read strictly: what it says, before any of it is believed.
//!
//! A tree comes in; out goes [`Stated`], which is complete and unambiguous, or the failure that says what is missing,
//! doubled or foreign. Nothing is computed here but base64.

use jiff::Timestamp;

use super::child::{at_most_one, base64, one, structure};
use super::error::{Failure, Located};
use super::key_info::{certificates, check_key_info};
use super::references::{Reference, Subject, canonicalization, references};
use super::tree::Node;
use crate::algorithm::SignatureAlgorithm;
use crate::c14n::Method;
use crate::certificate::Certificate;
use crate::scope::Ns;

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
    let subject_failure = subject.differs();
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

fn signing_time(properties: &Node) -> Result<(Timestamp, &str), Located> {
    let node = one(properties, Ns::XADES, "SigningTime", "xades:SigningTime")?;
    let text = node.text.trim();
    // xs:dateTime may lack its zone; then nobody knows when it was.
    let time = text
        .parse()
        .map_err(|_| (Failure::Value("xades:SigningTime"), node.ordinal))?;
    Ok((time, text))
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
