//! What the token does by itself.
//!
//! Measured by a child of this program, for two reasons: a module reads its environment (`SOFTHSM2_CONF`) once and only from the process it
//! was loaded into, and a vendor's library that crashes must not take the run's figures with it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::report::Ceiling;

/// How to measure a token.
#[derive(Clone, Debug)]
pub struct CeilingOrder {
    /// The server's configuration: its first `[[token]]` is measured.
    pub config: PathBuf,
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
}

/// `[[token]]` of a server's configuration; what the server alone needs is passed over.
#[derive(Clone, Debug, Deserialize)]
pub struct Token {
    /// The operator's name for it.
    pub name: String,
    /// PKCS#11 library.
    pub module: PathBuf,
    /// Which token of the module, by label.
    pub label: Option<String>,
    /// File whose first line is the user PIN.
    pub pin_file: Option<PathBuf>,
    /// Sessions to sign with.
    pub sessions: Option<usize>,
    /// For the module.
    #[serde(default)]
    pub environment: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct ServerConfig {
    #[serde(default)]
    token: Vec<Token>,
}

/// The tokens that a server's configuration names; relative paths become relative to the file.
///
/// # Errors
/// Where the file cannot be read or names no token.
pub fn read_tokens(config: &Path) -> Result<Vec<Token>, CeilingError> {
    let text = std::fs::read_to_string(config).map_err(|error| CeilingError::Read(config.to_owned(), error))?;
    let problem = |problem: String| CeilingError::Config(config.to_owned(), problem);
    let mut parsed: ServerConfig = toml::from_str(&text).map_err(|error| problem(error.to_string()))?;
    if parsed.token.is_empty() {
        return Err(problem("names no [[token]]".to_owned()));
    }
    let beside = config.parent().unwrap_or(Path::new("."));
    for token in &mut parsed.token {
        token.module = beside.join(&token.module);
        token.pin_file = token.pin_file.take().map(|file| beside.join(file));
    }
    Ok(parsed.token)
}

/// One measurement, as the child prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Token.
    pub token: String,
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
pub fn measure(order: &CeilingOrder) -> Result<Ceiling, CeilingError> {
    let token = read_tokens(&order.config)?.swap_remove(0);
    let child = |error: std::io::Error| CeilingError::Child(error.to_string());
    let mut command = Command::new(std::env::current_exe().map_err(child)?);
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
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(sessions) = order.sessions {
        command.args(["--sessions", &sessions.to_string()]);
    }
    let mut started = command.spawn().map_err(child)?;
    if let (Some(certificate), Some(mut stdin)) = (&order.certificate, started.stdin.take()) {
        // A child that ends early says why on its standard error; the broken pipe says less.
        let _ = std::io::Write::write_all(&mut stdin, certificate);
    }
    let output = started.wait_with_output().map_err(child)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("muhurdar-loadtest: ");
        return Err(CeilingError::Child(if said.is_empty() {
            output.status.to_string()
        } else {
            said.to_owned()
        }));
    }
    let measured: Measured = serde_json::from_slice(&output.stdout)
        .map_err(|error| CeilingError::Child(format!("its answer cannot be read: {error}")))?;
    Ok(Ceiling {
        sign_per_s: measured.sign_per_s,
        measured_per_s: vec![measured.sign_per_s],
        sessions: measured.sessions,
        token: measured.token,
    })
}
