//! From the configuration's `[[token]]` to what the pool is told.

use std::{io, path::PathBuf};

use muhurdar_pool::{self as pool, Latches, Pin, Select, TokenConfig};

use crate::config::{Config, InitArgs, Isolation, RsaMechanism, Token};

/// A `[[token]]` that cannot be used as it stands.
#[derive(Debug, thiserror::Error)]
#[error("token \"{token}\": {problem}")]
pub struct TokenConfigError {
    token: String,
    problem: String,
}

/// What the pool is told of all tokens.
///
/// # Errors
/// Where a systemd credential is named and there is none.
pub fn pool_config(config: &Config) -> Result<pool::Config, TokenConfigError> {
    let tokens = config.tokens.iter().map(token_config).collect::<Result<_, _>>()?;
    let mut pool = pool::Config::new(tokens);
    pool.state_dir = Some(config.server.state_dir.clone());
    pool.unlatch_command = Some(unlatch_command(config));
    pool.queue_limit = config.limits.in_flight;
    Ok(pool)
}

/// The file by which a command that has changed something on a token tells the service that runs beside it, which looks at it
/// every few seconds.
#[must_use]
pub fn announcement(config: &Config) -> PathBuf {
    config.server.state_dir.join("tokens-changed")
}

/// Tells the service that something was changed on a token.
///
/// # Errors
/// Where the file cannot be written.
pub fn announce(config: &Config) -> io::Result<()> {
    std::fs::create_dir_all(&config.server.state_dir)?;
    std::fs::write(announcement(config), format!("{}\n", jiff::Timestamp::now()))
}

/// Where it is remembered which PINs must not be tried: the same for the service and every command with this configuration.
#[must_use]
pub fn latches(config: &Config) -> Latches {
    Latches::at(&config.server.state_dir).opened_by(unlatch_command(config))
}

fn unlatch_command(config: &Config) -> String {
    format!("muhurdar token unlatch --config {}", config.source.display())
}

/// What the pool is told of one.
///
/// # Errors
/// Where a systemd credential is named and there is none.
pub fn token_config(token: &Token) -> Result<TokenConfig, TokenConfigError> {
    let select = match (&token.label, &token.serial, token.slot) {
        (Some(label), ..) => Select::Label(label.clone()),
        (None, Some(serial), _) => Select::Serial(serial.clone()),
        (None, None, Some(slot)) => Select::SlotId(slot),
        (None, None, None) => Select::Only,
    };
    let mut out = TokenConfig::new(&token.name, &token.module, select, pin(token)?);
    out.sessions = token.sessions;
    out.engines = token.engines;
    out.single_session = token.single_session;
    out.rsa_mechanism = match token.rsa_mechanism {
        RsaMechanism::Pkcs => pool::RsaMechanism::Pkcs,
        RsaMechanism::ShaPkcs => pool::RsaMechanism::ShaPkcs,
    };
    out.init_args = init_args(token);
    out.isolation = match token.isolation {
        Isolation::None => pool::Isolation::None,
        Isolation::Process => pool::Isolation::Process,
    };
    if let Some(codes) = &token.module_fault_codes {
        out.module_fault_codes.clone_from(codes);
    }
    out.call_budget = token.call_budget.unwrap_or(out.call_budget);
    out.heartbeat = token.heartbeat.unwrap_or(out.heartbeat);
    out.environment = token
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(out)
}

/// What a token's module is initialised with.
#[must_use]
pub fn init_args(token: &Token) -> pool::InitArgs {
    match token.init_args {
        InitArgs::OsLocking => pool::InitArgs::OsLocking,
        InitArgs::None => pool::InitArgs::None,
    }
}

fn pin(token: &Token) -> Result<Pin, TokenConfigError> {
    match (&token.pin_file, &token.pin_env, &token.pin_credential) {
        (Some(path), ..) => Ok(Pin::file(path)),
        (None, Some(name), _) => Ok(Pin::env(name)),
        (None, None, Some(name)) => Token::credential_path(name).map(Pin::file).ok_or_else(|| TokenConfigError {
            token: token.name.clone(),
            problem: format!("pin_credential \"{name}\": CREDENTIALS_DIRECTORY is not set; is this run by systemd with LoadCredential={name}:…?"),
        }),
        (None, None, None) => {
            Err(TokenConfigError { token: token.name.clone(), problem: "no PIN is configured".to_owned() })
        }
    }
}

/// Sets the environment of all modules, while the process has one thread.
///
/// # Errors
/// Where it has more already.
pub fn set_environment(config: &Config) -> Result<(), String> {
    // An isolated module's child gets its environment by itself.
    let here = config.tokens.iter().filter(|t| t.isolation == Isolation::None);
    pool::set_module_environment(here.flat_map(|t| &t.environment))
}

/// Sets the environment of one token's module, for a command that calls it in its own process whatever `isolation` says, while
/// the process has one thread.
///
/// # Errors
/// Where it has more already.
pub fn set_environment_of(token: &Token) -> Result<(), String> {
    pool::set_module_environment(&token.environment)
}
