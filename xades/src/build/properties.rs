//! `xades:SignedProperties`: when the seal was made, with which certificate, in which role.

use super::{Draft, escape};
use crate::algorithm::DigestAlgorithm;

/// An element in canonical form, and how much of it is the start tag: the rest stands in the document as it is.
#[derive(Debug)]
pub(super) struct Canonical {
    pub(super) text: String,
    pub(super) tag: usize,
}

impl Canonical {
    /// Everything after the start tag.
    pub(super) fn content(&self) -> &str {
        &self.text[self.tag..]
    }
}

/// In inclusive C14N 1.0: the reference to SignedProperties carries no transform, and that is what XML Signature 1.1
/// section 4.4.3.2 then takes.
pub(super) fn signed_properties(draft: &Draft<'_>, digest: DigestAlgorithm, signing_time: &str) -> Canonical {
    let texts = draft.certificate.texts();
    let signing_certificate = texts.signing_certificate(digest);
    let mut text = String::with_capacity(draft.place.len_hint() + signing_certificate.len() + 640);
    draft
        .place
        .open_inclusive(&mut text, "xades:SignedProperties", &[("Id", draft.ids.properties())]);
    let tag = text.len();
    text.extend([
        "<xades:SignedSignatureProperties><xades:SigningTime>",
        signing_time,
        "</xades:SigningTime>",
        signing_certificate,
    ]);
    if let Some(role) = draft.claimed_role {
        text.push_str("<xades:SignerRole><xades:ClaimedRoles><xades:ClaimedRole>");
        escape::text(&mut text, role);
        text.push_str("</xades:ClaimedRole></xades:ClaimedRoles></xades:SignerRole>");
    }
    text.push_str("</xades:SignedSignatureProperties></xades:SignedProperties>");
    Canonical { text, tag }
}
