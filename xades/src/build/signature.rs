//! `ds:Signature`, but for its value.

use std::fmt;

use aws_lc_rs::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::properties::{Canonical, signed_properties};
use super::signed_info::{Reference, Target, signed_info};
use super::{Draft, Ids, Place};
use crate::algorithm::SignatureAlgorithm;

const END: &str = "</xades:QualifyingProperties></ds:Object></ds:Signature>";

/// A seal that waits for its signature value.
pub struct Unsigned {
    signed_info: String,
    digest: Digest,
    algorithm: SignatureAlgorithm,
    signing_time: String,
    /// The whole element without the value.
    element: String,
    /// Where the value goes, as an offset into `element`.
    hole: usize,
}

impl Draft<'_> {
    /// Writes the seal.
    #[must_use]
    pub fn build(&self) -> Unsigned {
        self.build_over(Reference {
            target: Target::Document,
            digest: self.body_digest,
        })
    }

    /// Writes the seal with `first` in the place of the reference to the document.
    pub(super) fn build_over(&self, first: Reference<'_>) -> Unsigned {
        let algorithm = self.policy.signature_algorithm(self.certificate);
        let digest = algorithm.digest();
        let signing_time = self.policy.zone.format(self.signing_time);
        let properties = signed_properties(self, digest, &signing_time);
        let properties_digest = digest.digest(properties.text.as_bytes());
        let second = Reference {
            target: Target::Properties(self.ids.properties()),
            digest: properties_digest.as_ref(),
        };
        let signed_info = signed_info(
            self.place,
            self.policy.canonicalization,
            algorithm,
            self.policy.reference_order,
            [first, second],
        );
        let (element, hole) = self.element(&signed_info, &properties);
        let digest = digest.digest(signed_info.text.as_bytes());
        Unsigned {
            signed_info: signed_info.text,
            digest,
            algorithm,
            signing_time,
            element,
            hole,
        }
    }

    fn element(&self, signed_info: &Canonical, properties: &Canonical) -> (String, usize) {
        let (ids, texts) = (self.ids, self.certificate.texts());
        let value = self.certificate.key_type().signature_len().div_ceil(3) * 4;
        let mut out = String::with_capacity(
            signed_info.text.len() + properties.text.len() + texts.len_hint() + value + 8 * ids.value().len() + 512,
        );
        out.extend([
            "<ds:Signature",
            self.place.declarations(),
            " Id=\"",
            ids.signature(),
            "\"><ds:SignedInfo>",
        ]);
        out.push_str(signed_info.content());
        out.extend(["<ds:SignatureValue Id=\"", ids.value(), "\">"]);
        let hole = out.len();
        out.push_str("</ds:SignatureValue>");
        texts.write_key_info(&mut out, &self.policy.key_info);
        out.extend([
            "<ds:Object><xades:QualifyingProperties Target=\"#",
            ids.signature(),
            "\">",
        ]);
        out.extend(["<xades:SignedProperties Id=\"", ids.properties(), "\">"]);
        out.push_str(properties.content());
        out.push_str(END);
        (out, hole)
    }
}

impl Unsigned {
    /// The canonical bytes of SignedInfo: what is signed.
    #[must_use]
    pub fn signed_info(&self) -> &[u8] {
        self.signed_info.as_bytes()
    }

    /// The digest of SignedInfo, with the algorithm's own digest: what a token gets.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What the value must be made with.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// `xades:SigningTime`, character for character.
    #[must_use]
    pub fn signing_time(&self) -> &str {
        &self.signing_time
    }

    /// The element with its value, as it stands in the document. The value is not checked here.
    #[must_use]
    pub fn assemble(mut self, value: &[u8]) -> String {
        // The hole lies in front of the larger part, but a kilobyte moved costs less than a second buffer.
        self.element.insert_str(self.hole, &STANDARD.encode(value));
        self.element
    }

    /// As [`assemble`](Self::assemble), with a counter-signature in its unsigned properties.
    #[must_use]
    pub fn assemble_countersigned(self, value: &[u8], counter_signature: &str) -> String {
        let mut element = self.assemble(value);
        let at = element.len() - END.len();
        let properties = format!(
            "<xades:UnsignedProperties><xades:UnsignedSignatureProperties><xades:CounterSignature>{counter_signature}</\
             xades:CounterSignature></xades:UnsignedSignatureProperties></xades:UnsignedProperties>"
        );
        element.insert_str(at, &properties);
        element
    }
}

impl fmt::Debug for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsigned")
            .field("algorithm", &self.algorithm)
            .field("signing_time", &self.signing_time)
            .finish_non_exhaustive()
    }
}

/// `ds:SignatureValue` in inclusive C14N 1.0: what a counter-signature refers to.
pub(super) fn canonical_value(place: &Place, ids: &Ids, value: &[u8]) -> String {
    let mut text = String::with_capacity(place.len_hint() + value.len() * 2 + 128);
    place.open_inclusive(&mut text, "ds:SignatureValue", &[("Id", ids.value())]);
    STANDARD.encode_string(value, &mut text);
    text.push_str("</ds:SignatureValue>");
    text
}
