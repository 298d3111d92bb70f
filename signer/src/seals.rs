//! Taxpayer → seal: which key on which token, with which certificate.
//!
//! Comes in: the keys that the pool has found, with the certificates beside them. Goes out: for each taxpayer, and for an
//! instant, the one certificate that seals then. All of a taxpayer's certificates are kept, since one ends and its successor
//! begins while nobody looks: which of them seals is asked at the moment of sealing, and is no state of this room. A
//! certificate counts only where its public key is the token's key; an encryption certificate (`…ENCR0`) never seals, even
//! where it is all there is.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use muhurdar_pool::{Key, KeyId};
use muhurdar_xades::Certificate;

use crate::{
    credentials::{self, CredentialError},
    outside::Outside,
    refusal::{Refusal, SealId},
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
    /// Which certificate it is.
    #[must_use]
    pub fn id(&self) -> SealId {
        self.certificate.sha256()
    }

    /// Whether it may seal at this time.
    ///
    /// # Errors
    /// CERTIFICATE_UNUSABLE, with the date or the property that stands in the way.
    pub fn usable(&self, at: Timestamp) -> Result<(), Refusal> {
        let unusable = |problem: String| Refusal::CertificateUnusable {
            taxpayer: Outside::new(&self.taxpayer),
            serial: self.certificate.serial_decimal().to_owned(),
            id: self.id(),
            problem,
        };
        self.certificate
            .fit_for_sealing(at)
            .map_err(|unfit| unusable(unfit.to_string()))
    }
}

/// All seals, by taxpayer.
#[derive(Debug, Default)]
pub struct Seals {
    /// Never an empty list, each by ids, ascending.
    by_taxpayer: BTreeMap<Arc<str>, Vec<Arc<Seal>>>,
    by_id: HashMap<SealId, Arc<Seal>>,
}

/// What is said of a seal when it comes and goes: whose, and which certificate, by its serial number.
pub(crate) type Named<'a> = (&'a str, &'a str);

impl Seals {
    /// Everything that seals, has sealed or will seal with a key that is on a token.
    #[must_use]
    pub fn new(keys: &[Key], extra: &[Certificate]) -> Self {
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
                seals.add(key, certificate);
            }
        }
        for list in seals.by_taxpayer.values_mut() {
            list.sort_by_key(|seal| seal.id());
        }
        seals
    }

    fn add(&mut self, key: &Key, certificate: Certificate) {
        let Some(taxpayer) = certificate.taxpayer().map(Arc::<str>::from) else {
            return;
        };
        // On two tokens, or on a token and in the folder.
        if self.by_id.contains_key(&certificate.sha256()) {
            return;
        }
        let seal = Arc::new(Seal {
            key: key.id,
            certificate,
            taxpayer: Arc::clone(&taxpayer),
        });
        self.by_id.insert(seal.id(), Arc::clone(&seal));
        self.by_taxpayer.entry(taxpayer).or_default().push(seal);
    }

    /// The seal with this certificate, whosever it is.
    #[must_use]
    pub fn with_id(&self, id: &SealId) -> Option<&Arc<Seal>> {
        self.by_id.get(id)
    }

    /// The seal of a taxpayer with this certificate.
    #[must_use]
    pub fn named(&self, taxpayer: &str, id: &SealId) -> Option<&Arc<Seal>> {
        self.with_id(id).filter(|seal| &*seal.taxpayer == taxpayer)
    }

    /// The seal of a taxpayer at an instant: of those that are usable then the one issued last; where none is, the one whose
    /// [`Seal::usable`] tells best why.
    #[must_use]
    pub fn at(&self, taxpayer: &str, now: Timestamp) -> Option<&Arc<Seal>> {
        self.by_taxpayer.get(taxpayer).and_then(|list| choose(list, now))
    }

    /// Whether a taxpayer has any, usable or not.
    #[must_use]
    pub fn has(&self, taxpayer: &str) -> bool {
        self.by_taxpayer.contains_key(taxpayer)
    }

    /// The seal of each taxpayer at an instant, by taxpayer, ascending.
    pub fn all_at(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Seal>> {
        self.by_taxpayer.values().filter_map(move |list| choose(list, now))
    }

    /// All, by taxpayer and id, ascending, after this one; from the beginning where there is none.
    pub fn after<'a>(&'a self, last: Option<(&'a str, SealId)>) -> impl Iterator<Item = &'a Arc<Seal>> {
        use std::ops::Bound::{Included, Unbounded};
        let first = last.map_or("", |(taxpayer, _)| taxpayer);
        self.by_taxpayer
            .range::<str, _>((Included(first), Unbounded))
            .flat_map(|(_, list)| list)
            .filter(move |seal| last.is_none_or(|last| (&*seal.taxpayer, seal.id()) > last))
    }

    /// Until when a taxpayer can seal without anything new, seen from an instant: the end of its seal, or of the successors that
    /// begin before it ends.
    #[must_use]
    pub fn until(&self, taxpayer: &str, now: Timestamp) -> Option<Timestamp> {
        let list = self.by_taxpayer.get(taxpayer)?;
        let chosen = choose(list, now)?;
        let all: Vec<_> = list.iter().map(|seal| &seal.certificate).collect();
        Some(covered(&all, &chosen.certificate))
    }

    /// What is in `self` and not in `other`.
    pub(crate) fn without<'a>(&'a self, other: &Self) -> Vec<Named<'a>> {
        let known = |seal: &Seal| {
            let list = other.by_taxpayer.get(&seal.taxpayer);
            list.is_some_and(|list| list.iter().any(|held| held.certificate.der() == seal.certificate.der()))
        };
        self.by_taxpayer
            .values()
            .flatten()
            .filter(|seal| !known(seal))
            .map(|seal| (&*seal.taxpayer, seal.certificate.serial_decimal()))
            .collect()
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

fn choose(list: &[Arc<Seal>], now: Timestamp) -> Option<&Arc<Seal>> {
    best(list.iter().map(|seal| &seal.certificate), now).and_then(|at| list.get(at))
}

/// Which of these certificates seals at an instant: one that can before one that cannot, what is meant for sealing before
/// what never seals, then the one issued last.
fn best<'a>(certificates: impl Iterator<Item = &'a Certificate>, now: Timestamp) -> Option<usize> {
    let rank = |certificate: &Certificate| {
        let seals_ever = certificate.fits_profile().is_ok();
        let seals_now = seals_ever && certificate.fit_for_sealing(now).is_ok();
        (seals_now, seals_ever, certificate.not_before())
    };
    let ranked = certificates
        .enumerate()
        .map(|(at, certificate)| (rank(certificate), at));
    ranked.max().map(|(_, at)| at)
}

/// When the last of the certificates ends that follow on this one without a gap.
fn covered(certificates: &[&Certificate], first: &Certificate) -> Timestamp {
    let mut until = first.not_after();
    loop {
        let follows = |c: &&&Certificate| c.not_before() <= until && c.not_after() > until && c.fits_profile().is_ok();
        match certificates.iter().filter(follows).map(|c| c.not_after()).max() {
            Some(later) => until = later,
            None => return until,
        }
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

    use super::*;

    const MALI_MUHUR: [u64; 11] = [2, 16, 792, 1, 2, 1, 1, 5, 7, 50, 1];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A certificate of these years, from midnight to midnight.
    fn certificate(key: &KeyPair, from: i32, until: i32, usage: KeyUsagePurpose) -> Certificate {
        let mut params = CertificateParams::default();
        let vkn = DnValue::Utf8String("1234567801".to_owned());
        let names = &mut params.distinguished_name;
        names.push(DnType::CommonName, "Deneme A.Ş.");
        names.push(DnType::CustomDnType(vec![2, 5, 4, 5]), vkn);
        params.key_usages = vec![usage];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(MALI_MUHUR.to_vec())];
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        Certificate::from_der(params.self_signed(key).unwrap().der()).unwrap()
    }

    #[test]
    fn at_midnight_the_successor_seals_without_being_asked() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let seal = KeyUsagePurpose::DigitalSignature;
        let own = [
            certificate(&key, 2028, 2031, seal),
            certificate(&key, 2024, 2027, seal),
            certificate(&key, 2026, 2029, seal),
            // Issued last, and never for sealing.
            certificate(&key, 2030, 2040, KeyUsagePurpose::KeyEncipherment),
        ];
        let chosen = |now: &str| best(own.iter(), at(now));
        assert_eq!(chosen("2025-12-31T23:59:59Z"), Some(1));
        assert_eq!(
            chosen("2026-01-01T00:00:00Z"),
            Some(2),
            "of two that can, the one issued last"
        );
        assert_eq!(chosen("2027-12-31T23:59:59Z"), Some(2));
        assert_eq!(chosen("2028-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            chosen("2031-01-01T00:00:00Z"),
            Some(0),
            "the last instant of its validity"
        );
        // Where none can, the reason is that of one that could have.
        assert_eq!(chosen("2035-01-01T00:00:00Z"), Some(0));
        let reason = own[0].fit_for_sealing(at("2035-01-01T00:00:00Z")).unwrap_err();
        assert!(reason.to_string().contains("2031"), "{reason}");
        assert_eq!(chosen("2020-01-01T00:00:00Z"), Some(0));
        // What is ordered in time is no reason to warn.
        assert_eq!(covered(&own.each_ref(), &own[1]), at("2031-01-01T00:00:00Z"));
        assert_eq!(covered(&[&own[1]], &own[1]), at("2027-01-01T00:00:00Z"));
    }
}
