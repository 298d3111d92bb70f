//! What a token was found to be, as a table and as JSON.

use std::fmt;

use muhurdar_pool::{self as pool, admin::ObjectKind};
use muhurdar_xades::certificate::printable;
use serde::Serialize;

/// A token against what Kamu SM asks of an HSM. What falls short is among the problems and warnings of the report.
#[derive(Debug, Serialize)]
pub(super) struct Qualification {
    /// Whether nothing falls short.
    fit: bool,
    library: String,
    library_version: String,
    pkcs11_version: String,
    firmware_version: String,
    /// As the token reports them; PKCS#11 has no flag that says FIPS.
    flags: Vec<String>,
    mechanisms: Vec<Mechanism>,
    keys: Vec<Key>,
    /// What `rsa_mechanism` should say.
    rsa_mechanism: Option<&'static str>,
    rates: Vec<Rate>,
    /// Sessions beyond which doubling gains less than a tenth: what `sessions` should say.
    knee_sessions: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Mechanism {
    name: &'static str,
    supported: bool,
    min_bits: Option<usize>,
    max_bits: Option<usize>,
    signs: bool,
    generates: bool,
    hardware: bool,
}

#[derive(Debug, Serialize)]
struct Key {
    label: String,
    cka_id: String,
    key_type: Option<String>,
    sensitive: Option<bool>,
    always_sensitive: Option<bool>,
    extractable: Option<bool>,
    never_extractable: Option<bool>,
    local: Option<bool>,
    signs: Option<bool>,
    /// Why the service cannot sign with it, where it cannot.
    cannot_sign: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rate {
    sessions: usize,
    signatures_per_second: f64,
    /// CPU time of this machine inside the calls: next to nothing where the token is elsewhere.
    token_cpu_us: f64,
}

impl Qualification {
    pub(super) fn new(found: &pool::Qualification) -> Self {
        let version = |(major, minor): (u8, u8)| format!("{major}.{minor}");
        Self {
            fit: found.is_fit(),
            library: format!("{} ({})", found.library.description, found.library.manufacturer),
            library_version: version(found.library.version),
            pkcs11_version: version(found.library.cryptoki),
            firmware_version: version(found.token.firmware),
            flags: found.token.flags.names(),
            mechanisms: found.mechanisms.iter().map(Mechanism::new).collect(),
            keys: found
                .objects
                .iter()
                .filter(|object| object.kind == ObjectKind::PrivateKey)
                .map(Key::new)
                .collect(),
            rsa_mechanism: found.rsa_mechanism.map(|mechanism| match mechanism {
                pool::RsaMechanism::Pkcs => "pkcs",
                pool::RsaMechanism::ShaPkcs => "sha-pkcs",
            }),
            rates: found.rates.iter().map(Rate::new).collect(),
            knee_sessions: found.knee,
        }
    }
}

impl Mechanism {
    fn new(mechanism: &pool::Mechanism) -> Self {
        let facts = mechanism.facts;
        Self {
            name: mechanism.name,
            supported: facts.is_some(),
            min_bits: facts.map(|f| f.min_bits),
            max_bits: facts.map(|f| f.max_bits),
            signs: facts.is_some_and(|f| f.signs),
            generates: facts.is_some_and(|f| f.generates),
            hardware: facts.is_some_and(|f| f.hardware),
        }
    }
}

impl Key {
    fn new(object: &pool::admin::Object) -> Self {
        Self {
            label: printable(&object.label),
            cka_id: data_encoding::HEXLOWER.encode(&object.cka_id),
            key_type: object.key.map(|kind| kind.to_string()),
            sensitive: object.sensitive,
            always_sensitive: object.always_sensitive,
            extractable: object.extractable,
            never_extractable: object.never_extractable,
            local: object.local,
            signs: object.signs,
            cannot_sign: object.unusable.clone(),
        }
    }
}

impl Rate {
    fn new(rate: &pool::Ceiling) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a count of signatures")]
        let signatures = rate.signatures.max(1) as f64;
        Self {
            sessions: rate.sessions,
            signatures_per_second: rate.per_second().round(),
            token_cpu_us: (rate.token_cpu.as_secs_f64() * 1e6 / signatures).round(),
        }
    }
}

impl fmt::Display for Qualification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  library     {} {}, PKCS#11 {}, firmware {}",
            self.library, self.library_version, self.pkcs11_version, self.firmware_version
        )?;
        writeln!(f, "  flags       {}", self.flags.join(" "))?;
        writeln!(
            f,
            "  certified   PKCS#11 does not tell; Kamu SM asks for FIPS 140-2/140-3 level 3 or CC EAL4+: look up model and firmware"
        )?;
        writeln!(
            f,
            "  mechanism                   bits         signs  makes keys  in hardware"
        )?;
        let yes = |is| if is { "yes" } else { "-" };
        for mechanism in &self.mechanisms {
            let bits = match (mechanism.min_bits, mechanism.max_bits) {
                (Some(min), Some(max)) if max > 0 => format!("{min}-{max}"),
                (Some(_), _) => String::new(),
                (None, _) => "not there".to_owned(),
            };
            writeln!(
                f,
                "  {:<27} {bits:<12} {:<6} {:<11} {}",
                mechanism.name,
                yes(mechanism.signs),
                yes(mechanism.generates),
                yes(mechanism.hardware)
            )?;
        }
        writeln!(
            f,
            "  key                         sensitive  extractable  made here  type       CKA_ID"
        )?;
        let known = |is: Option<bool>| match is {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        for key in &self.keys {
            writeln!(
                f,
                "  {:<27} {:<10} {:<12} {:<10} {:<10} {}",
                key.label,
                known(key.sensitive),
                known(key.extractable),
                known(key.local),
                key.key_type.as_deref().unwrap_or("?"),
                key.cka_id
            )?;
            if let Some(why) = &key.cannot_sign {
                writeln!(f, "    cannot sign: {why}")?;
            }
        }
        if !self.rates.is_empty() {
            writeln!(f, "  sessions    signatures/s    CPU of this machine in each")?;
        }
        let most = self.rates.iter().map(|r| r.signatures_per_second).fold(1.0, f64::max);
        for rate in &self.rates {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a bar of at most 24 characters"
            )]
            let bar = "#".repeat((rate.signatures_per_second / most * 24.0).round() as usize);
            let knee = if self.knee_sessions == Some(rate.sessions) {
                "  <- the knee: more sessions gain little"
            } else {
                ""
            };
            writeln!(
                f,
                "  {:>8} {:>15.0} {:>10.0} us  {bar:<24}{knee}",
                rate.sessions, rate.signatures_per_second, rate.token_cpu_us
            )?;
        }
        Ok(())
    }
}
