//! The keys of all tokens in one table: the same public key on several tokens is one entry. Entries are never removed, so that a
//! [`KeyId`] stays what it was; a key that left its tokens has none to sign with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};

use crate::driver::FoundKey;
use crate::job::{Hash, SignInput};
use crate::keys::{Curve, Key, KeyId, KeyKind};
use crate::queue::TokenMask;

pub(crate) struct Entry {
    pub(crate) id: KeyId,
    pub(crate) kind: KeyKind,
    spki_der: Arc<[u8]>,
    label: String,
    cka_id: Vec<u8>,
    certificates: RwLock<Vec<Vec<u8>>>,
    tokens: AtomicU64,
    /// The public key, parsed once, for each hash that goes with it.
    verifiers: [Option<ParsedPublicKey>; 3],
}

impl Entry {
    pub(crate) fn new(id: KeyId, kind: KeyKind, found: &FoundKey) -> Self {
        let verifiers = [Hash::Sha256, Hash::Sha384, Hash::Sha512]
            .map(|hash| ParsedPublicKey::new(algorithm(kind, hash)?, &found.spki_der).ok());
        Self {
            id,
            kind,
            spki_der: found.spki_der.as_slice().into(),
            label: found.label.clone(),
            cka_id: found.cka_id.clone(),
            certificates: RwLock::default(),
            tokens: AtomicU64::new(0),
            verifiers,
        }
    }

    pub(crate) fn tokens(&self) -> TokenMask {
        TokenMask(self.tokens.load(Ordering::Acquire))
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The key cannot be used on a token, until it is found there anew.
    pub(crate) fn leaves(&self, token: usize) {
        self.tokens.fetch_and(!TokenMask::one(token).0, Ordering::AcqRel);
    }

    /// Whether a signature over this hash can be verified.
    pub(crate) fn can_verify(&self, hash: Hash) -> bool {
        self.verifiers[hash as usize].is_some()
    }

    /// Verifies a signature; `None` where the hash does not go with the key, so that it cannot be told.
    pub(crate) fn verify(&self, input: &SignInput, signature: &[u8]) -> Option<bool> {
        let verifier = self.verifiers[input.hash() as usize].as_ref()?;
        let digest = Digest::import_less_safe(input.as_digest(), input.hash().algorithm()).ok()?;
        Some(verifier.verify_digest_sig(&digest, signature).is_ok())
    }
}

/// Whether a signature verifies with this public key; not so either where the two do not go together.
pub(crate) fn verifies(kind: KeyKind, spki_der: &[u8], input: &SignInput, signature: &[u8]) -> bool {
    let verified = || {
        let key = ParsedPublicKey::new(algorithm(kind, input.hash())?, spki_der).ok()?;
        let digest = Digest::import_less_safe(input.as_digest(), input.hash().algorithm()).ok()?;
        key.verify_digest_sig(&digest, signature).ok()
    };
    verified().is_some()
}

fn algorithm(kind: KeyKind, hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (kind, hash) {
        (KeyKind::Rsa { .. }, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa { .. }, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa { .. }, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Ec(Curve::P256), Hash::Sha256) => &signature::ECDSA_P256_SHA256_FIXED,
        (KeyKind::Ec(Curve::P384), Hash::Sha384) => &signature::ECDSA_P384_SHA384_FIXED,
        (KeyKind::Ec(Curve::P521), Hash::Sha256) => &signature::ECDSA_P521_SHA256_FIXED,
        (KeyKind::Ec(Curve::P521), Hash::Sha384) => &signature::ECDSA_P521_SHA384_FIXED,
        (KeyKind::Ec(Curve::P521), Hash::Sha512) => &signature::ECDSA_P521_SHA512_FIXED,
        (KeyKind::Ec(_), _) => return None,
    })
}

/// Handles of one slot's epoch, by key.
#[derive(Debug, Default)]
pub(crate) struct Handles(Vec<Option<u64>>);

impl Handles {
    pub(crate) fn of(&self, key: KeyId) -> Option<u64> {
        self.0.get(key.index()).copied().flatten()
    }

    /// The keys that there are.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> {
        let there = self.0.iter().enumerate().filter(|(_, handle)| handle.is_some());
        there.filter_map(|(index, _)| u32::try_from(index).ok().map(KeyId))
    }

    /// The same without these keys.
    pub(crate) fn without(&self, keys: &[KeyId]) -> Self {
        let mut handles = self.0.clone();
        for key in keys {
            if let Some(handle) = handles.get_mut(key.index()) {
                *handle = None;
            }
        }
        Self(handles)
    }
}

#[derive(Default)]
pub(crate) struct Table {
    entries: RwLock<Vec<Arc<Entry>>>,
}

impl Table {
    pub(crate) fn get(&self, key: KeyId) -> Option<Arc<Entry>> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key.index())
            .cloned()
    }

    /// Takes what a token holds now; answers the handles.
    pub(crate) fn merge(&self, token: usize, found: &[FoundKey]) -> Handles {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let bit = TokenMask::one(token).0;
        let mut handles = Handles::default();
        for key in found.iter().filter(|key| key.refused.is_none()) {
            let Some(kind) = KeyKind::of_spki(&key.spki_der) else {
                continue;
            };
            let index = match entries.iter().position(|entry| *entry.spki_der == *key.spki_der) {
                Some(index) => index,
                None => {
                    let Ok(id) = u32::try_from(entries.len()) else { continue };
                    entries.push(Arc::new(Entry::new(KeyId(id), kind, key)));
                    entries.len() - 1
                }
            };
            let entry = &entries[index];
            let mut certificates = entry.certificates.write().unwrap_or_else(PoisonError::into_inner);
            for certificate in &key.certificates {
                if !certificates.contains(certificate) {
                    certificates.push(certificate.clone());
                }
            }
            if handles.0.len() <= index {
                handles.0.resize(index + 1, None);
            }
            handles.0[index] = Some(key.handle);
        }
        for (index, entry) in entries.iter().enumerate() {
            if handles.0.get(index).copied().flatten().is_some() {
                entry.tokens.fetch_or(bit, Ordering::AcqRel);
            } else {
                entry.tokens.fetch_and(!bit, Ordering::AcqRel);
            }
        }
        handles
    }

    pub(crate) fn list(&self, names: &[Arc<str>]) -> Vec<Key> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|entry| Key {
                id: entry.id,
                spki_der: Arc::clone(&entry.spki_der),
                label: entry.label.clone(),
                cka_id: entry.cka_id.clone(),
                certificates: entry
                    .certificates
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
                tokens: names
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| entry.tokens().has(*i))
                    .map(|(_, n)| Arc::clone(n))
                    .collect(),
                kind: entry.kind,
            })
            .collect()
    }
}
