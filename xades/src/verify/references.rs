//! The references of a seal: exactly two, to what they must be, over no transforms but those a seal has.

use super::child::{at_most_one, base64, one, structure};
use super::error::{Failure, Located};
use super::tree::Node;
use crate::algorithm::DigestAlgorithm;
use crate::build::{ENVELOPED_SIGNATURE, SIGNED_PROPERTIES_TYPE};
use crate::c14n::{Form, Method};
use crate::scope::Ns;

/// `ds:Reference/@Type` that a counter-signature's reference may carry (XAdES 1.4.2 section 7.2.4.1).
const COUNTERSIGNED_TYPE: &str = "http://uri.etsi.org/01903#CountersignedSignature";

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

impl Subject<'_> {
    /// What it means that its digest differs.
    pub(super) fn differs(self) -> Failure {
        match self {
            Self::Document => Failure::DocumentDigest,
            Self::Value(_) => Failure::CounterSignatureDigest,
        }
    }
}

/// Exactly the subject and the signed properties, in either order.
pub(super) fn references(
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
    let canonicalization = subject_canonicalization(subject_node, subject)?;
    Ok((reference(subject_node, canonicalization)?, properties))
}

/// What is left to do with the subject of a reference that points to it and nowhere else.
fn subject_canonicalization(node: &Node, subject: Subject<'_>) -> Result<Method, Located> {
    let refuse = |why| Err((Failure::References(why), node.ordinal));
    let (uri, own_type) = (node.attribute("URI"), node.attribute("Type"));
    match subject {
        Subject::Document => {
            if uri != Some("") || own_type.is_some() {
                return refuse("one refers to something else than the document");
            }
            match transforms(node)? {
                Some([one]) if one.attribute("Algorithm") == Some(ENVELOPED_SIGNATURE) && one.children.is_empty() => {
                    Ok(Method::INCLUSIVE)
                }
                _ => refuse("the document has other transforms than enveloped-signature"),
            }
        }
        Subject::Value(id) => {
            let is_subject = uri.and_then(|uri| uri.strip_prefix('#')) == Some(id);
            if !is_subject || own_type.is_some_and(|own| own != COUNTERSIGNED_TYPE) {
                return refuse("the counter-signature refers to something else than the value");
            }
            optional_canonicalization(node)
        }
    }
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

pub(super) fn digest_algorithm(method: &Node) -> Result<DigestAlgorithm, Located> {
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

pub(super) fn canonicalization(node: &Node) -> Option<Method> {
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
