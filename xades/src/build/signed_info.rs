//! `ds:SignedInfo`: the two digests, and what is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::properties::Canonical;
use super::{DS, ENVELOPED_SIGNATURE, Place, SIGNED_PROPERTIES_TYPE};
use crate::algorithm::SignatureAlgorithm;
use crate::policy::{CanonicalizationMethod, ReferenceOrder};

/// What a reference of ours can point to.
pub(super) enum Target<'a> {
    /// The document without the seal.
    Document,
    /// SignedProperties, by Id.
    Properties(&'a str),
    /// The value of the signature that is counter-signed, by Id.
    Value(&'a str),
}

pub(super) struct Reference<'a> {
    pub(super) target: Target<'a>,
    pub(super) digest: &'a [u8],
}

pub(super) fn signed_info(
    place: &Place,
    method: CanonicalizationMethod,
    algorithm: SignatureAlgorithm,
    order: ReferenceOrder,
    [document, properties]: [Reference<'_>; 2],
) -> Canonical {
    let mut text = String::with_capacity(place.len_hint() + 1400);
    if method.is_exclusive() {
        // Only ds is visibly used, and xml: attributes of ancestors stay where they are.
        text.extend(["<ds:SignedInfo xmlns:ds=\"", DS, "\">"]);
    } else {
        place.open_inclusive(&mut text, "ds:SignedInfo", &[]);
    }
    let tag = text.len();
    text.extend([
        "<ds:CanonicalizationMethod Algorithm=\"",
        method.uri(),
        "\"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"",
        algorithm.uri(),
        "\"></ds:SignatureMethod>",
    ]);
    let references = match order {
        ReferenceOrder::DocumentFirst => [document, properties],
        ReferenceOrder::PropertiesFirst => [properties, document],
    };
    for reference in references {
        write_reference(&mut text, algorithm, &reference);
    }
    text.push_str("</ds:SignedInfo>");
    Canonical { text, tag }
}

/// GİB's Schematron takes one transform at most on the document; SignedProperties have none.
fn write_reference(text: &mut String, algorithm: SignatureAlgorithm, reference: &Reference<'_>) {
    match reference.target {
        Target::Document => transformed(text, "", ENVELOPED_SIGNATURE),
        Target::Value(id) => transformed(text, id, CanonicalizationMethod::Inclusive.uri()),
        Target::Properties(id) => {
            text.extend(["<ds:Reference Type=\"", SIGNED_PROPERTIES_TYPE, "\" URI=\"#", id, "\">"]);
        }
    }
    text.extend([
        "<ds:DigestMethod Algorithm=\"",
        algorithm.digest().uri(),
        "\"></ds:DigestMethod><ds:DigestValue>",
    ]);
    STANDARD.encode_string(reference.digest, text);
    text.push_str("</ds:DigestValue></ds:Reference>");
}

fn transformed(text: &mut String, id: &str, transform: &str) {
    let hash = if id.is_empty() { "" } else { "#" };
    text.extend([
        "<ds:Reference URI=\"",
        hash,
        id,
        "\"><ds:Transforms><ds:Transform Algorithm=\"",
        transform,
    ]);
    text.push_str("\"></ds:Transform></ds:Transforms>");
}
