//! The seal itself, written in canonical form by construction.
//!
//! What comes in is a [`Draft`]: the digest of the document, the place of the seal as canonicalization sees it, the
//! certificate, the policy, the time. What goes out is [`Unsigned`]: the canonical bytes of SignedInfo, their digest,
//! and the element with a hole for the signature value. Nothing here reads a document or checks a signature, and
//! nothing is canonicalized: elements are written as C14N writes them (no self-closing tags, attributes in order, its
//! escapes), so that an element and its canonical form differ only in the namespaces of the first start tag.
//!
//! The prefixes are always `ds` and `xades`, as in every seal that was seen, whatever other prefixes the document has
//! for those namespaces. They are declared on `ds:Signature` where the place does not have them, and nowhere again.

mod counter;
mod escape;
mod key_info;
mod place;
mod properties;
mod signature;
mod signed_info;

pub use place::{Ids, Place};
pub use signature::Unsigned;

pub(crate) use key_info::CertificateTexts;

use jiff::Timestamp;

use crate::certificate::Certificate;
use crate::policy::Policy;

/// The namespace of XML Signature.
pub const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
/// The namespace of XAdES 1.3.2.
pub const XADES: &str = "http://uri.etsi.org/01903/v1.3.2#";
/// `ds:Reference/@Type` of the reference to SignedProperties (XAdES 1.4.2 section 6.3.1).
pub const SIGNED_PROPERTIES_TYPE: &str = "http://uri.etsi.org/01903#SignedProperties";
/// The one transform of the reference to the document (XML Signature 1.1 section 6.6.4).
pub const ENVELOPED_SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// Everything that a seal is made of, but the signature value.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Where the seal will stand.
    pub place: &'a Place,
    /// The Ids in it.
    pub ids: &'a Ids,
    /// The digest of the document without its seal, taken with the digest of
    /// [`Policy::signature_algorithm`].
    pub body_digest: &'a [u8],
    /// Whose seal.
    pub certificate: &'a Certificate,
    /// How it is written.
    pub policy: &'a Policy,
    /// When it is made.
    pub signing_time: Timestamp,
    /// `xades:ClaimedRole`, where the document's family has one.
    pub claimed_role: Option<&'a str>,
}
