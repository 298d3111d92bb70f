//! The keys of all tokens in one table: the same public key on several tokens is one entry. Entries are never removed, so that a
//! [`KeyId`] stays what it was; a key that left its tokens has none to sign with.

use std::collections::BTreeMap;
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
    /// Those beside it on each token that holds it, DER.
    certificates: RwLock<BTreeMap<usize, Vec<Vec<u8>>>>,
    /// Tokens that hold it.
    held: AtomicU64,
    /// Of them, those that it can be used on.
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
            held: AtomicU64::new(0),
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

    /// Those beside it on any token, without repetition.
    fn certificates(&self) -> Vec<Vec<u8>> {
        let by_token = self.certificates.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Vec<u8>> = Vec::new();
        for certificate in by_token.values().flatten() {
            if !all.contains(certificate) {
                all.push(certificate.clone());
            }
        }
        all
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
#[derive(Debug, Default, PartialEq, Eq)]
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

/// What is different on a token since it was read last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Labels of keys.
    pub(crate) new_keys: Vec<String>,
    pub(crate) gone_keys: Vec<String>,
    /// Certificates beside its keys.
    pub(crate) new_certificates: usize,
    pub(crate) gone_certificates: usize,
}

impl News {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
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

    /// Takes what a token holds now; answers the handles, and what is different from before.
    pub(crate) fn merge(&self, token: usize, found: &[FoundKey]) -> (Handles, News) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let bit = TokenMask::one(token).0;
        let (mut handles, mut news) = (Handles::default(), News::default());
        let mut beside: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
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
            let beside = beside.entry(index).or_default();
            for certificate in &key.certificates {
                if !beside.contains(certificate) {
                    beside.push(certificate.clone());
                }
            }
            if handles.0.len() <= index {
                handles.0.resize(index + 1, None);
            }
            handles.0[index] = Some(key.handle);
        }
        for (index, entry) in entries.iter().enumerate() {
            let held = handles.0.get(index).copied().flatten().is_some();
            let before = if held {
                entry.tokens.fetch_or(bit, Ordering::AcqRel);
                entry.held.fetch_or(bit, Ordering::AcqRel)
            } else {
                entry.tokens.fetch_and(!bit, Ordering::AcqRel);
                entry.held.fetch_and(!bit, Ordering::AcqRel)
            };
            match (before & bit != 0, held) {
                (false, true) => news.new_keys.push(entry.label.clone()),
                (true, false) => news.gone_keys.push(entry.label.clone()),
                _ => {}
            }
            let now = beside.remove(&index).unwrap_or_default();
            let mut certificates = entry.certificates.write().unwrap_or_else(PoisonError::into_inner);
            let before = certificates.get(&token).map_or(&[] as &[_], Vec::as_slice);
            news.new_certificates += now.iter().filter(|one| !before.contains(one)).count();
            news.gone_certificates += before.iter().filter(|one| !now.contains(one)).count();
            if now.is_empty() {
                certificates.remove(&token);
            } else {
                certificates.insert(token, now);
            }
        }
        (handles, news)
    }

    /// The keys that are on a token.
    pub(crate) fn list(&self, names: &[Arc<str>]) -> Vec<Key> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter(|entry| entry.held.load(Ordering::Acquire) != 0)
            .map(|entry| Key {
                id: entry.id,
                spki_der: Arc::clone(&entry.spki_der),
                label: entry.label.clone(),
                cka_id: entry.cka_id.clone(),
                certificates: entry.certificates(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 key whose point is no point: the table only compares.
    fn found(number: u8, certificates: &[&[u8]]) -> FoundKey {
        let mut spki_der = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ];
        spki_der.resize(91, number);
        FoundKey {
            handle: number.into(),
            label: format!("key {number}"),
            cka_id: vec![number],
            spki_der,
            certificates: certificates.iter().map(|der| der.to_vec()).collect(),
            refused: None,
        }
    }

    #[test]
    fn what_came_and_what_went_is_told_and_what_went_is_forgotten() {
        let table = Table::default();
        let names = [Arc::from("east"), Arc::from("west")];
        let (_, news) = table.merge(0, &[found(1, &[b"old"]), found(2, &[])]);
        assert_eq!(news.new_keys, ["key 1", "key 2"]);
        let (_, news) = table.merge(1, &[found(1, &[b"old"])]);
        assert_eq!((news.new_keys, news.new_certificates), (vec!["key 1".to_owned()], 1));
        // A successor for the one, and the other is deleted.
        let (handles, news) = table.merge(0, &[found(1, &[b"new"])]);
        assert_eq!(news.gone_keys, ["key 2"]);
        assert_eq!((news.new_certificates, news.gone_certificates), (1, 1));
        let keys = table.list(&names);
        assert_eq!(
            keys[0].certificates,
            [b"new".to_vec(), b"old".to_vec()],
            "west has the old one still"
        );
        assert_eq!(keys.len(), 1);
        let (_, news) = table.merge(1, &[found(1, &[])]);
        assert!(!news.is_none());
        assert_eq!(table.list(&names)[0].certificates, [b"new".to_vec()]);
        assert_eq!(table.merge(0, &[found(1, &[b"new"])]), (handles, News::default()));
    }
}
