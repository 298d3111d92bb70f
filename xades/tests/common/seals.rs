//! Sealed invoices of our own, small enough to look at, and ways to tamper with them.

use muhurdar_xades::build::{Draft, Ids, Place};
use muhurdar_xades::c14n::{self, Method, Subset};
use muhurdar_xades::verify::Failure;
use muhurdar_xades::{Limits, Policy, Verified, VerifyOptions, verify};

use super::Identity;

pub const EXT: &str = "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2";
pub const INVOICE: &str = "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2";

pub fn check(document: &str) -> Result<Verified, Failure> {
    verify(document.as_bytes(), &VerifyOptions::default()).map_err(|error| error.failure().clone())
}

/// An invoice in two halves, around its seal.
pub fn invoice() -> (String, &'static str) {
    let before = format!(
        "<Invoice xmlns=\"{INVOICE}\" xmlns:ext=\"{EXT}\"><ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent>"
    );
    let after = "</ext:ExtensionContent></ext:UBLExtension></ext:UBLExtensions><a Id=\"x\">Ş</a><b/></Invoice>";
    (before, after)
}

pub fn sealed_at(identity: &Identity, policy: &Policy, signing_time: &str) -> String {
    let (before, after) = invoice();
    let algorithm = policy.signature_algorithm(&identity.certificate);
    let body = format!("{before}{after}");
    let canonical = c14n::canonicalize(
        body.as_bytes(),
        &Method::INCLUSIVE,
        Subset::Document,
        &Limits::default(),
        Vec::new(),
    );
    let body_digest = algorithm.digest().digest(&canonical.unwrap());
    let draft = Draft {
        place: &Place::new([("", INVOICE), ("ext", EXT)], []),
        ids: &Ids::new("Signature_1"),
        body_digest: body_digest.as_ref(),
        certificate: &identity.certificate,
        policy,
        signing_time: signing_time.parse().unwrap(),
        claimed_role: policy.claimed_role.as_deref(),
    };
    let unsigned = draft.build();
    let value = identity.sign(algorithm, unsigned.signed_info());
    format!("{before}{}{after}", unsigned.assemble(&value))
}

pub fn sealed(identity: &Identity) -> String {
    sealed_at(identity, &Policy::default(), "2026-05-15T12:43:13Z")
}

/// Replaces one occurrence, and only one there may be.
pub fn with(document: &str, from: &str, to: &str) -> String {
    assert_eq!(document.matches(from).count(), 1, "{from} in {document}");
    document.replace(from, to)
}

/// The `ds:Signature` element.
pub fn signature(document: &str) -> &str {
    let start = document.find("<ds:Signature ").unwrap();
    let end = document.rfind("</ds:Signature>").unwrap() + "</ds:Signature>".len();
    &document[start..end]
}
