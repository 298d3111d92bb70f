//! What is on a token, for people: each object with what discovery has found out about it, so that what is said here is what the pool does.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::ckr::{CkrError, ckr};
use crate::driver::FoundKey;
use crate::keys::{self, KeyKind, PUBLIC_PARTS};

/// An object on a token.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub cka_id: Vec<u8>,
    /// Type and size, where it is a key whose public half is known.
    pub key: Option<KeyKind>,
    /// SubjectPublicKeyInfo, DER: what tells which objects belong together, since neither CKA_ID nor label need do. That of a private key which
    /// does not show it is found by a signature.
    pub public_key: Option<Vec<u8>>,
    /// Why the pool cannot sign with a private key, or leaves another object out; `None` where nothing speaks against it.
    pub unusable: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

impl Object {
    /// What it is, with its names.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            ObjectKind::PrivateKey => "key",
            ObjectKind::PublicKey => "public key",
            ObjectKind::Certificate => "certificate",
            ObjectKind::Other => "object",
        };
        format!("{kind} {:?} (CKA_ID {})", self.label, keys::hex(&self.cka_id))
    }

    /// Whether it is a private key that is not for signing (CKA_SIGN = false): no seal, and nothing to worry about.
    #[must_use]
    pub fn is_not_for_signing(&self) -> bool {
        self.kind == ObjectKind::PrivateKey && self.signs == Some(false)
    }
}

/// Lists what the session sees. `discovered` is what discovery has found by it.
pub(crate) fn list(session: &Session, discovered: &[FoundKey]) -> Result<Vec<Object>, CkrError> {
    let handles = session.find_objects(&[Attribute::Token(true)]).map_err(|e| ckr(&e))?;
    let objects = handles.into_iter().map(|object| {
        let about = discovered.iter().find(|found| found.handle == keys::handle(object));
        describe(session, object, about)
    });
    let mut objects: Vec<Object> = objects.collect();
    // The same key may be written in more than one way: as the pool has it.
    for object in &mut objects {
        let Some(own) = &object.public_key else { continue };
        let known = discovered.iter().find(|key| keys::same_key(&key.spki_der, own));
        if let Some(key) = known {
            object.public_key = Some(key.spki_der.clone());
        }
    }
    Ok(objects)
}

/// One object, as far as it can be read.
fn describe(session: &Session, object: ObjectHandle, about: Option<&FoundKey>) -> Object {
    let class = keys::read(session, object, &[AttributeType::Class])
        .ok()
        .and_then(|read| read.class);
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
    let (found, unreadable) = match keys::read(session, object, &wanted) {
        Ok(found) => (found, None),
        Err(error) => {
            let named = keys::read(session, object, &[AttributeType::Id, AttributeType::Label]);
            (named.unwrap_or_default(), Some(format!("it cannot be read: {error}")))
        }
    };
    let public_key = match kind {
        ObjectKind::Certificate => keys::certificate_spki(&found.value),
        _ => found.spki(),
    };
    let public_key = about
        .map(|key| key.spki_der.clone())
        .filter(|spki| !spki.is_empty())
        .or(public_key);
    let flag = |kind| found.flags.get(&kind).copied();
    Object {
        kind,
        key: public_key
            .as_deref()
            .filter(|_| kind != ObjectKind::Certificate)
            .and_then(KeyKind::of_spki),
        unusable: about.and_then(|key| key.refused.clone()).or(unreadable),
        sensitive: flag(AttributeType::Sensitive),
        always_sensitive: flag(AttributeType::AlwaysSensitive),
        extractable: flag(AttributeType::Extractable),
        never_extractable: flag(AttributeType::NeverExtractable),
        signs: flag(AttributeType::Sign),
        always_authenticate: flag(AttributeType::AlwaysAuthenticate),
        local: flag(AttributeType::Local),
        der: match kind {
            ObjectKind::Certificate => Some(found.value),
            ObjectKind::PublicKey => public_key.clone(),
            _ => None,
        },
        public_key,
        label: found.label,
        cka_id: found.id,
    }
}
