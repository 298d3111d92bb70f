//! What is on a token, for people.

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::Session;

use crate::ckr::CkrError;
use crate::keys::{self, KeyKind, PUBLIC_PARTS};
use crate::module::ckr;

/// An object on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub cka_id: Vec<u8>,
    /// Type and size, where it is a key whose numbers the token shows.
    pub key: Option<KeyKind>,
    /// CKA_SENSITIVE of a private key.
    pub sensitive: Option<bool>,
    /// CKA_ALWAYS_SENSITIVE of a private key.
    pub always_sensitive: Option<bool>,
    /// CKA_EXTRACTABLE of a private key.
    pub extractable: Option<bool>,
    /// CKA_NEVER_EXTRACTABLE of a private key.
    pub never_extractable: Option<bool>,
    /// CKA_SIGN of a private key.
    pub signs: Option<bool>,
    /// CKA_ALWAYS_AUTHENTICATE of a private key.
    pub always_authenticate: Option<bool>,
    /// CKA_LOCAL: made on the token and never elsewhere.
    pub local: Option<bool>,
    /// A certificate, DER; a public key's SubjectPublicKeyInfo.
    pub der: Option<Vec<u8>>,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A private key.
    PrivateKey,
    /// A public key.
    PublicKey,
    /// A certificate.
    Certificate,
    /// Something else.
    Other,
}

pub(super) fn list(session: &Session) -> Result<Vec<Object>, CkrError> {
    let mut objects = Vec::new();
    for handle in session.find_objects(&[Attribute::Token(true)]).map_err(|e| ckr(&e))? {
        let class = keys::read(session, handle, &[AttributeType::Class])?.class;
        let mut wanted = PUBLIC_PARTS.to_vec();
        let kind = match class {
            Some(ObjectClass::PRIVATE_KEY) => {
                wanted.extend([
                    AttributeType::Sensitive,
                    AttributeType::AlwaysSensitive,
                    AttributeType::Extractable,
                    AttributeType::NeverExtractable,
                    AttributeType::Sign,
                    AttributeType::AlwaysAuthenticate,
                    AttributeType::Local,
                ]);
                ObjectKind::PrivateKey
            }
            Some(ObjectClass::PUBLIC_KEY) => ObjectKind::PublicKey,
            Some(ObjectClass::CERTIFICATE) => {
                wanted = vec![AttributeType::Id, AttributeType::Label, AttributeType::Value];
                ObjectKind::Certificate
            }
            _ => {
                wanted = vec![AttributeType::Label];
                ObjectKind::Other
            }
        };
        let found = keys::read(session, handle, &wanted)?;
        let spki = found.spki();
        let flag = |kind| found.flags.get(&kind).copied();
        objects.push(Object {
            kind,
            key: spki.as_deref().and_then(KeyKind::of_spki),
            sensitive: flag(AttributeType::Sensitive),
            always_sensitive: flag(AttributeType::AlwaysSensitive),
            extractable: flag(AttributeType::Extractable),
            never_extractable: flag(AttributeType::NeverExtractable),
            signs: flag(AttributeType::Sign),
            always_authenticate: flag(AttributeType::AlwaysAuthenticate),
            local: flag(AttributeType::Local),
            der: match kind {
                ObjectKind::Certificate => Some(found.value),
                ObjectKind::PublicKey => spki,
                _ => None,
            },
            label: found.label,
            cka_id: found.id,
        });
    }
    Ok(objects)
}
