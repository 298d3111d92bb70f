//! What the token does by itself.
//!
//! Measured by a child of this program, for two reasons: a module reads its environment (`SOFTHSM2_CONF`) once and only from the process it
//! was loaded into, and a vendor's library that crashes must not take the run's figures with it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use muhurdar_pool::{Latches, OpenError, Pin, Select, TokenConfig};
use serde::{Deserialize, Serialize};
use x509_cert::der::{Decode as _, Encode as _};

use crate::report::Ceiling;

/// EX_NOPERM: the exit code where a PIN was refused or must not be tried.
pub(crate) const PERMISSION: u8 = 77;
/// As the service's own default.
const DEFAULT_SESSIONS: usize = 4;

/// How to measure a token.
#[derive(Clone, Debug)]
pub struct CeilingOrder {
    /// The server's configuration, which names the token.
    pub config: PathBuf,
    /// The token of this name; the first without.
    pub token: Option<String>,
    /// Sign with the key of this certificate, DER; any key without.
    pub certificate: Option<Vec<u8>>,
    /// Sessions at once; as the configuration says without.
    pub sessions: Option<usize>,
    /// How long.
    pub duration: Duration,
}

/// Why there is no ceiling.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CeilingError {
    /// The configuration cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// The configuration is not what a server's is.
    #[error("{0}: {1}")]
    Config(PathBuf, String),
    /// The child that measures said so.
    #[error("cannot measure the token by itself: {0}")]
    Child(String),
    /// The token's PIN was refused, or may not be tried.
    #[error("cannot measure the token by itself: {0}")]
    Pin(String),
}

/// `[[token]]` of a server's configuration; what the server alone needs is passed over.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Token {
    /// The operator's name for it.
    pub(crate) name: String,
    /// PKCS#11 library.
    pub module: PathBuf,
    /// Which token of the module: by label …
    pub label: Option<String>,
    /// … or serial number …
    pub serial: Option<String>,
    /// … or slot id.
    pub slot: Option<u64>,
    /// File whose first line is the user PIN.
    pub pin_file: Option<PathBuf>,
    /// Sessions to sign with.
    pub sessions: Option<usize>,
    /// For the module.
    #[serde(default)]
    pub environment: std::collections::BTreeMap<String, String>,
    /// Where it is remembered that its PIN must not be tried: the service's own `server.state_dir`.
    #[serde(skip)]
    latches: Latches,
}

#[derive(Debug, Deserialize)]
struct ServerConfig {
    #[serde(default)]
    server: Server,
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Debug, Default, Deserialize)]
struct Server {
    state_dir: Option<PathBuf>,
}

impl Token {
    /// Sessions that the service would sign with.
    pub(crate) fn configured_sessions(&self) -> usize {
        self.sessions.unwrap_or(DEFAULT_SESSIONS)
    }
}

/// A token that a server's configuration names; relative paths become relative to the file.
///
/// # Errors
/// Where the file cannot be read or names no such token.
pub(crate) fn read_token(config: &Path, name: Option<&str>) -> Result<Token, CeilingError> {
    let text = std::fs::read_to_string(config).map_err(|error| CeilingError::Read(config.to_owned(), error))?;
    let problem = |problem: String| CeilingError::Config(config.to_owned(), problem);
    let parsed: ServerConfig = toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
    let names: Vec<String> = parsed.token.iter().map(|token| token.name.clone()).collect();
    let mut token = parsed
        .token
        .into_iter()
        .find(|token| name.is_none_or(|name| token.name == name))
        .ok_or_else(|| problem(no_such_token(name, &names)))?;
    let beside = config.parent().unwrap_or(Path::new("."));
    token.module = beside.join(&token.module);
    token.pin_file = token.pin_file.map(|file| beside.join(file));
    let state = parsed.server.state_dir.unwrap_or_else(|| Latches::FOLDER.into());
    token.latches = Latches::at(beside.join(state)).opened_by(format!(
        "muhurdar token unlatch --config {}",
        std::path::absolute(config)
            .unwrap_or_else(|_| config.to_owned())
            .display()
    ));
    Ok(token)
}

/// What is missing, and how it is written.
fn no_such_token(name: Option<&str>, names: &[String]) -> String {
    match name {
        Some(name) if !names.is_empty() => format!("names no token '{name}'; it names {}", names.join(", ")),
        _ => "names no [[token]]: write its name, module, label (or serial, or slot) and pin_file".into(),
    }
}

/// One measurement, as the child prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Token.
    pub token: String,
    /// Kind of the key that signed.
    pub key: String,
    /// Sessions at once.
    pub sessions: usize,
    /// Signatures per second.
    pub sign_per_s: f64,
    /// CPU inside the token's calls, microseconds per signature.
    pub cpu_us_per_sign: f64,
}

/// Measures once, in a child.
///
/// # Errors
/// Where the configuration or the token is at fault.
pub(crate) fn measure(order: &CeilingOrder) -> Result<Measured, CeilingError> {
    let token = read_token(&order.config, order.token.as_deref())?;
    let child = |error: std::io::Error| CeilingError::Child(error.to_string());
    let mut command = muhurdar_pool::isolation::own_program().map_err(child)?;
    command
        .args([
            "ceiling",
            "--in-process",
            "--duration",
            &format!("{}ms", order.duration.as_millis()),
            "--token-config",
        ])
        .arg(&order.config)
        .envs(&token.environment)
        // A token that misbehaves on command listens to whoever loaded it last: that stays the service.
        .env_remove("FAULTY_TOKEN_CONTROL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.args(["--token", &token.name]);
    if let Some(sessions) = order.sessions {
        command.args(["--sessions", &sessions.to_string()]);
    }
    let mut started = command.spawn().map_err(child)?;
    // Taken out and dropped in any case: the child reads until the end.
    if let Some(mut stdin) = started.stdin.take()
        && let Some(certificate) = &order.certificate
    {
        // A child that ends early says why on its standard error; the broken pipe says less.
        let _ = std::io::Write::write_all(&mut stdin, certificate);
    }
    let output = started.wait_with_output().map_err(child)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("muhurdar-loadtest: ");
        // Said by this program as well.
        let said = said.trim_start_matches("cannot measure the token by itself: ");
        return Err(match output.status.code() {
            Some(code) if code == i32::from(PERMISSION) => CeilingError::Pin(said.to_owned()),
            _ if said.is_empty() => CeilingError::Child(output.status.to_string()),
            _ => CeilingError::Child(said.to_owned()),
        });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| CeilingError::Child(format!("its answer cannot be read: {error}")))
}

/// Measurements of one run as its report has them; None where there is none.
pub(crate) fn summary(measured: &[Measured]) -> Option<Ceiling> {
    let first = measured.first()?;
    let rates: Vec<f64> = measured.iter().map(|measured| measured.sign_per_s).collect();
    Some(Ceiling {
        sign_per_s: rates.iter().sum::<f64>() / rates.len() as f64,
        measured_per_s: rates,
        cpu_us_per_sign: measured.iter().map(|m| m.cpu_us_per_sign).sum::<f64>() / measured.len() as f64,
        sessions: first.sessions,
        token: first.token.clone(),
    })
}

/// Measures in this process, whose environment is the module's.
pub(crate) fn measure_here(
    token: &Token,
    certificate: &[u8],
    sessions: usize,
    duration: Duration,
) -> Result<Measured, CeilingError> {
    let child = |error: &dyn std::fmt::Display| CeilingError::Child(error.to_string());
    // As the service selects it: the PIN of one token must not be tried on another.
    let select = match (&token.label, &token.serial, token.slot) {
        (Some(label), ..) => Select::Label(label.clone()),
        (None, Some(serial), _) => Select::Serial(serial.clone()),
        (None, None, Some(slot)) => Select::SlotId(slot),
        (None, None, None) => Select::Only,
    };
    let pin_file = token.pin_file.as_ref().ok_or_else(|| {
        child(&format!(
            "token {} names no pin_file: a file whose first line is its user PIN",
            token.name
        ))
    })?;
    // The loader's own message names what it looked for, and not which key of the configuration said so.
    for (key, file) in [("module", &token.module), ("pin_file", pin_file)] {
        std::fs::metadata(file)
            .map_err(|error| child(&format!("{key} of token {}, {}: {error}", token.name, file.display())))?;
    }
    let config = TokenConfig::new(token.name.clone(), token.module.clone(), select, Pin::file(pin_file));
    let spki = if certificate.is_empty() {
        None
    } else {
        let certificate = x509_cert::Certificate::from_der(certificate).map_err(|error| child(&error))?;
        Some(
            certificate
                .tbs_certificate
                .subject_public_key_info
                .to_der()
                .map_err(|error| child(&error))?,
        )
    };
    let rate =
        muhurdar_pool::ceiling(&config, &token.latches, spki.as_deref(), sessions, duration).map_err(|error| {
            match error {
                OpenError::Latched { .. } | OpenError::Pin { .. } => CeilingError::Pin(error.to_string()),
                // No such token, or no such key: both are chosen here.
                OpenError::Selection(_) => child(&format!(
                    "{error}. The token is chosen by label, serial or slot of its [[token]], and the key is {}",
                    if spki.is_some() {
                        "that of the first RSA-2048 taxpayer in taxpayers.json of --dir"
                    } else {
                        "the first private key that may sign (CKA_SIGN) and whose public key or certificate is in the token"
                    }
                )),
                error => child(&error),
            }
        })?;
    Ok(Measured {
        token: token.name.clone(),
        key: if spki.is_some() {
            "the key of the first taxpayer"
        } else {
            "its first key"
        }
        .to_owned(),
        sessions: rate.sessions,
        sign_per_s: rate.per_second(),
        cpu_us_per_sign: rate.token_cpu.as_secs_f64() * 1e6 / (rate.signatures as f64).max(1.0),
    })
}
