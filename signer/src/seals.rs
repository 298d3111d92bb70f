//! Taxpayer → seal: which key on which token, with which certificate.
//!
//! Comes in: the keys that the pool has found, with the certificates beside them. Goes out: for each taxpayer the one
//! certificate that seals. A certificate counts only where its public key is the token's key; an encryption certificate
//! (`…ENCR0`) never seals, even where it is all there is.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use jiff::Timestamp;
use muhurdar_pool::{Key, KeyId};
use muhurdar_xades::Certificate;

use crate::{
    credentials::{self, CredentialError},
    refusal::Refusal,
};

/// A taxpayer's seal.
#[derive(Debug, Clone)]
pub struct Seal {
    /// The key on the token or tokens.
    pub key: KeyId,
    /// Its certificate.
    pub certificate: Certificate,
    /// VKN or TCKN, from the certificate's subject.
    pub taxpayer: Arc<str>,
}

impl Seal {
    /// Whether it may seal at this time.
    ///
    /// # Errors
    /// CERTIFICATE_UNUSABLE, with the date or the property that stands in the way.
    pub fn usable(&self, at: Timestamp) -> Result<(), Refusal> {
        self.certificate.fit_for_sealing(at).map_err(|unfit| {
            Refusal::CertificateUnusable(format!(
                "the certificate {} of taxpayer {} cannot seal: {unfit}",
                self.certificate.serial_decimal(),
                self.taxpayer
            ))
        })
    }
}

/// All seals, by taxpayer.
#[derive(Debug, Default)]
pub struct Seals {
    by_taxpayer: BTreeMap<Arc<str>, Arc<Seal>>,
}

impl Seals {
    /// Chooses for each taxpayer: a certificate that can seal now before one that cannot, then the one issued last.
    #[must_use]
    pub fn new(keys: &[Key], extra: &[Certificate], now: Timestamp) -> Self {
        let mut seals = Self::default();
        for key in keys {
            let beside = key
                .certificates
                .iter()
                .filter_map(|der| match Certificate::from_der(der) {
                    Ok(certificate) => Some(certificate),
                    Err(error) => {
                        tracing::warn!(label = %key.label, %error, "a certificate on the token cannot be read");
                        None
                    }
                });
            // The pool has matched those beside the key by public key; the folder's are matched here.
            let extra = extra.iter().filter(|c| c.spki_der() == &*key.spki_der).cloned();
            for certificate in beside.chain(extra) {
                seals.offer(key, certificate, now);
            }
        }
        seals
    }

    fn offer(&mut self, key: &Key, certificate: Certificate, now: Timestamp) {
        let Some(taxpayer) = certificate.taxpayer().map(Arc::<str>::from) else {
            return;
        };
        let seal = Seal {
            key: key.id,
            certificate,
            taxpayer: Arc::clone(&taxpayer),
        };
        let rank = |s: &Seal| (s.usable(now).is_ok(), s.certificate.not_before());
        match self.by_taxpayer.get(&taxpayer) {
            Some(held) if rank(held) >= rank(&seal) => {}
            _ => drop(self.by_taxpayer.insert(taxpayer, Arc::new(seal))),
        }
    }

    /// A taxpayer's seal.
    #[must_use]
    pub fn get(&self, taxpayer: &str) -> Option<&Arc<Seal>> {
        self.by_taxpayer.get(taxpayer)
    }

    /// All of them, by taxpayer, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Seal>> {
        self.by_taxpayer.values()
    }

    /// All of them after this taxpayer, ascending.
    pub fn after<'a>(&'a self, taxpayer: &str) -> impl Iterator<Item = &'a Arc<Seal>> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_taxpayer
            .range::<str, _>((Excluded(taxpayer), Unbounded))
            .map(|(_, seal)| seal)
    }

    /// How many taxpayers have one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_taxpayer.len()
    }

    /// Whether nobody has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_taxpayer.is_empty()
    }
}

/// Reads the certificates of a folder; those that no seal can be made with are passed over with a warning.
///
/// # Errors
/// Where the folder or one of the files cannot be read, or is no certificate.
pub fn read_certificates(folder: &Path) -> Result<Vec<Certificate>, CredentialError> {
    let found = credentials::folder(folder)?;
    for sentence in &found.passed_over {
        tracing::warn!("{sentence}");
    }
    Ok(found.certificates)
}
