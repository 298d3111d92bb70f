//! Whether a token is fit to seal: what `muhurdar check` asks of it. Kamu SM wants an HSM that signs with RSA of 2048 to 4096 bits and
//! SHA-256 and SHA-512 and keeps its keys; the service wants mechanisms that it knows, and an operator wants to know how many sessions pay.

use std::time::Duration;

use cryptoki::mechanism::MechanismType;

use crate::admin::{LibraryFacts, Object, ObjectKind};
use crate::ceiling::{Bench, Ceiling};
use crate::config::{RsaMechanism, TokenConfig};
use crate::driver::{FoundKey, TokenFacts};
use crate::error::OpenError;
use crate::job::Hash;
use crate::keys::KeyKind;
use crate::ladder::{self, Rung};
use crate::latch::Latches;

/// What was found out about a token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Qualification {
    /// The library.
    pub library: LibraryFacts,
    /// The token, with its flags as it reports them.
    pub token: TokenFacts,
    /// The mechanisms that matter.
    pub mechanisms: Vec<Mechanism>,
    /// What is on the token.
    pub objects: Vec<Object>,
    /// The mechanism that its RSA keys sign with, where there is one: what `rsa_mechanism` should say.
    pub rsa_mechanism: Option<RsaMechanism>,
    /// Measured rates at 1, 2, 4 … sessions.
    pub rates: Vec<Ceiling>,
    /// Sessions beyond which more gain less than a tenth: what `sessions` should say.
    pub knee: Option<usize>,
    /// What falls short, and what is worth knowing.
    pub findings: Vec<Finding>,
}

impl Qualification {
    /// Whether nothing falls short.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.findings.iter().all(|finding| finding.weight != Weight::Fails)
    }
}

/// A mechanism, as the token reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// Such as `CKM_RSA_PKCS`.
    pub name: &'static str,
    /// Key sizes in bits, and whether it signs or makes keys in hardware; `None` where the token has it not.
    pub facts: Option<MechanismFacts>,
}

/// `CK_MECHANISM_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MechanismFacts {
    /// Least key size in bits.
    pub min_bits: usize,
    /// Most key size in bits.
    pub max_bits: usize,
    /// `CKF_SIGN`.
    pub signs: bool,
    /// `CKF_GENERATE_KEY_PAIR`.
    pub generates: bool,
    /// `CKF_HW`.
    pub hardware: bool,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What it is, and what to do.
    pub text: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The token or a key on it is unfit.
    Fails,
    /// It works, and somebody should know.
    Warns,
}

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Most sessions.
    pub sessions: usize,
    /// Time for each number of sessions; zero measures nothing.
    pub each: Duration,
}

/// The mechanisms that matter.
pub(crate) const MECHANISMS: [(&str, MechanismType); 8] = [
    ("CKM_RSA_PKCS", MechanismType::RSA_PKCS),
    ("CKM_SHA256_RSA_PKCS", MechanismType::SHA256_RSA_PKCS),
    ("CKM_SHA384_RSA_PKCS", MechanismType::SHA384_RSA_PKCS),
    ("CKM_SHA512_RSA_PKCS", MechanismType::SHA512_RSA_PKCS),
    ("CKM_ECDSA", MechanismType::ECDSA),
    ("CKM_RSA_PKCS_KEY_PAIR_GEN", MechanismType::RSA_PKCS_KEY_PAIR_GEN),
    ("CKM_EC_KEY_PAIR_GEN", MechanismType::ECC_KEY_PAIR_GEN),
    ("CKM_SHA256", MechanismType::SHA256),
];

/// Qualifies a token, opened as the service opens it: in this process or in a child, with its environment. Blocks, signs for real, and logs in,
/// with a PIN that is tried once.
///
/// # Errors
/// Where the token cannot be opened at all. What it lacks is in the findings.
pub fn qualify(config: &TokenConfig, latches: &Latches, measure: Measure) -> Result<Qualification, OpenError> {
    let bench = Bench::open(config, latches)?;
    let named = MECHANISMS.iter().zip(bench.mechanisms()?);
    let mut found = Qualification {
        library: bench.library()?,
        mechanisms: named.map(|((name, _), facts)| Mechanism { name, facts }).collect(),
        token: bench.facts.clone(),
        objects: bench.objects()?,
        rsa_mechanism: None,
        rates: Vec::new(),
        knee: None,
        findings: Vec::new(),
    };
    judge_token(&mut found, config);
    judge_mechanisms(&mut found);
    judge_keys(&mut found);
    sign(&mut found, &bench, config, measure);
    Ok(found)
}

impl Qualification {
    fn fails(&mut self, text: impl Into<String>) {
        self.findings.push(Finding {
            weight: Weight::Fails,
            text: text.into(),
        });
    }

    fn warns(&mut self, text: impl Into<String>) {
        self.findings.push(Finding {
            weight: Weight::Warns,
            text: text.into(),
        });
    }

    fn mechanism(&self, name: &str) -> Option<MechanismFacts> {
        self.mechanisms.iter().find(|mechanism| mechanism.name == name)?.facts
    }
}

fn judge_token(found: &mut Qualification, config: &TokenConfig) {
    let flags = found.token.flags;
    if flags.error_state() {
        found.fails("the token is in its error state (CKF_ERROR_STATE): a self-test failed");
    }
    if flags.protected_authentication_path() {
        found
            .fails("the PIN is entered at the token (CKF_PROTECTED_AUTHENTICATION_PATH): an unattended service cannot");
    }
    if !flags.login_required() {
        found.warns("the token asks for no PIN (CKF_LOGIN_REQUIRED is not set)");
    }
    if flags.user_pin_count_low() {
        found.warns("a wrong PIN was entered since the last right one (CKF_USER_PIN_COUNT_LOW)");
    }
    if flags.user_pin_to_be_changed() {
        found.warns("the PIN is still the one that the security officer gave (CKF_USER_PIN_TO_BE_CHANGED)");
    }
    if let Some(max) = found.token.max_sessions
        && max <= config.sessions as u64
    {
        found.warns(format!(
            "the token allows {max} sessions (ulMaxSessionCount), fewer than the {} configured and the one that keeps the login",
            config.sessions
        ));
    }
}

fn judge_mechanisms(found: &mut Qualification) {
    let signs = |mechanism: Option<MechanismFacts>| mechanism.is_some_and(|facts| facts.signs);
    let raw = found.mechanism("CKM_RSA_PKCS");
    let sha256 = found.mechanism("CKM_SHA256_RSA_PKCS");
    if !signs(raw) && !signs(sha256) {
        found.fails("no mechanism for RSA signatures: neither CKM_RSA_PKCS nor CKM_SHA256_RSA_PKCS signs");
    }
    if !signs(raw) && !signs(found.mechanism("CKM_SHA512_RSA_PKCS")) {
        found.fails("no SHA-512 with RSA, which Kamu SM asks for: neither CKM_RSA_PKCS nor CKM_SHA512_RSA_PKCS signs");
    }
    if let Some(facts) = raw.filter(|facts| facts.signs).or(sha256.filter(|facts| facts.signs)) {
        // Some tokens give sizes in bytes (PKCS#11 leaves it to the mechanism).
        let most = if facts.max_bits <= 1024 {
            facts.max_bits * 8
        } else {
            facts.max_bits
        };
        if most < 4096 {
            found.fails(format!(
                "RSA keys up to {most} bits only; Kamu SM asks for 2048 to 4096"
            ));
        }
        if !facts.hardware {
            found.warns("signatures are made in software (CKF_HW is not set), as the token reports it");
        }
    }
    if !signs(found.mechanism("CKM_ECDSA")) {
        found.warns("no CKM_ECDSA: new seals of Kamu SM are EC P-384 and cannot live on this token");
    }
}

fn judge_keys(found: &mut Qualification) {
    let keys: Vec<_> = found
        .objects
        .iter()
        .filter(|object| object.kind == ObjectKind::PrivateKey)
        .cloned()
        .collect();
    if keys.is_empty() {
        found.fails("there is no private key on the token");
    }
    // Keys that cannot sign are no seals: what else may be said against them is of no account.
    let (idle, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(Object::is_not_for_signing);
    if keys.is_empty() && !idle.is_empty() {
        found.fails("there is no private key that may sign on the token");
    }
    for key in keys {
        let name = key.name();
        if key.sensitive == Some(false) {
            found.fails(format!(
                "{name} is not sensitive (CKA_SENSITIVE): its value can be read"
            ));
        }
        if key.extractable == Some(true) {
            found.fails(format!(
                "{name} is extractable (CKA_EXTRACTABLE): it can leave the token"
            ));
        }
        if key.never_extractable == Some(false) || key.local == Some(false) {
            found.warns(format!(
                "{name} was outside the token once (CKA_NEVER_EXTRACTABLE, CKA_LOCAL): others may hold it"
            ));
        }
        if key.always_authenticate == Some(true) {
            found.fails(format!(
                "{name} wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE)"
            ));
        } else if let Some(KeyKind::Rsa { bits }) = key.key
            && bits < 2048
        {
            found.fails(format!("{name} has {bits} bits; 2048 is the least"));
        }
    }
    let said = |object: &&Object| {
        let small = matches!(object.key, Some(KeyKind::Rsa { bits }) if bits < 2048);
        !object.is_not_for_signing() && (object.always_authenticate == Some(true) || small)
    };
    let odd = found
        .objects
        .iter()
        .filter(|object| object.unusable.is_some() && !said(object));
    for object in odd.cloned().collect::<Vec<_>>() {
        let why = object.unusable.as_deref().unwrap_or_default();
        let what = match object.kind {
            ObjectKind::PrivateKey => "cannot sign",
            _ => "is left out",
        };
        found.warns(format!("{} {what}: {why}", object.name()));
    }
}

/// Signs for real: which mechanism, and how fast.
fn sign(found: &mut Qualification, bench: &Bench, config: &TokenConfig, measure: Measure) {
    let is_rsa = |key: &&FoundKey| matches!(KeyKind::of_spki(&key.spki_der), Some(KeyKind::Rsa { .. }));
    let usable: Vec<_> = bench.keys.iter().filter(|key| key.refused.is_none()).collect();
    let mut config = config.clone();
    if let Some(rsa) = usable.iter().copied().find(is_rsa) {
        for mechanism in [RsaMechanism::Pkcs, RsaMechanism::ShaPkcs] {
            let mut try_with = config.clone();
            try_with.rsa_mechanism = mechanism;
            match bench.once(&try_with, rsa, None) {
                Ok(true) => {
                    found.rsa_mechanism = Some(mechanism);
                    break;
                }
                Ok(false) => found.fails(format!(
                    "a signature with {mechanism:?} does not verify with its own public key"
                )),
                Err(error) if ladder::classify(&error, &config.module_fault_codes) == Rung::Request => {}
                Err(error) => found.fails(format!("signing with {mechanism:?} fails: {error}")),
            }
        }
        match found.rsa_mechanism {
            None => found.fails("an RSA key signs with neither CKM_RSA_PKCS nor CKM_SHA256_RSA_PKCS"),
            Some(works) if works != config.rsa_mechanism => {
                found.warns(format!(
                    "rsa_mechanism is {:?} and the token signs with {works:?}",
                    config.rsa_mechanism
                ));
                config.rsa_mechanism = works;
            }
            Some(_) => {}
        }
        if found.rsa_mechanism.is_some() {
            match bench.once(&config, rsa, Some(Hash::Sha512)) {
                Ok(true) => {}
                Ok(false) => found.fails("a signature with SHA-512 does not verify with its own public key"),
                Err(error) => found.fails(format!("signing with SHA-512 fails, and Kamu SM asks for it: {error}")),
            }
        }
    }
    let Some(key) = usable.iter().copied().find(is_rsa).or(usable.first().copied()) else {
        return;
    };
    if measure.each.is_zero() {
        return;
    }
    let mut sessions = 1;
    while sessions <= measure.sessions.max(1) {
        match bench.run(&config, key, sessions, measure.each) {
            Ok(rate) => found.rates.push(rate),
            Err(error) => {
                found.warns(format!("with {sessions} sessions: {error}"));
                break;
            }
        }
        sessions *= 2;
    }
    found.knee = knee(
        &found
            .rates
            .iter()
            .map(|rate| (rate.sessions, rate.per_second()))
            .collect::<Vec<_>>(),
    );
}

/// The fewest sessions from which doubling gains less than a tenth.
fn knee(rates: &[(usize, f64)]) -> Option<usize> {
    rates
        .windows(2)
        .find(|pair| pair[1].1 < pair[0].1 * 1.1)
        .map(|pair| pair[0].0)
        .or(rates.last().map(|(sessions, _)| *sessions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_where_doubling_stops_paying() {
        assert_eq!(
            knee(&[(1, 330.0), (2, 660.0), (4, 1300.0), (8, 1350.0), (16, 1340.0)]),
            Some(4)
        );
        assert_eq!(knee(&[(1, 330.0), (2, 660.0)]), Some(2));
        assert_eq!(knee(&[]), None);
    }
}
