//! `muhurdar token`: the key ceremony. What is on the tokens, and how keys and certificates get there.

mod csr;
mod import;
mod list;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use muhurdar_pool::{
    Curve, OpenError, Pin,
    admin::{Generate, Module, Token},
};

use super::{Failure, exit};
use crate::{
    config::{self, Config},
    tokens,
};

/// `muhurdar token …`
#[derive(Debug, Args)]
#[command(
    after_help = "A PIN is tried once, by the service and by these commands alike: where it was refused, or where nobody knows how the try ended, \
                        the token is latched in server.state_dir of the configuration (state beside it, where it names none), and every \
                        login is refused (exit code 77) until `muhurdar token unlatch`. Run the commands with the service's own \
                        configuration, as a user who may write to that folder. Never try PINs out, least of all the PUK or the \
                        security officer's PIN: nothing brings back what those block."
)]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Modules, slots, tokens, keys, certificates, and which taxpayer each serves
    List(list::List),
    /// Initialise a token: everything on it is lost
    Init(Init),
    /// Make a key pair that never leaves the token
    Keygen(Keygen),
    /// A certificate request (PKCS#10), signed on the token
    Csr(csr::Csr),
    /// Bring a certificate, or a PKCS#12 with key and certificate for tests
    Import(import::Import),
    /// Let a token try its PIN once more, after the PIN was mended
    Unlatch(Unlatch),
}

impl TokenCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::List(list) => list.run(),
            What::Init(init) => init.run(),
            What::Keygen(keygen) => keygen.run(),
            What::Csr(csr) => csr.run(),
            What::Import(import) => import.run(),
            What::Unlatch(unlatch) => unlatch.run(),
        }
    }
}

/// Which token of the configuration.
#[derive(Debug, Args)]
struct Which {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "MUHURDAR_CONFIG")]
    config: PathBuf,
    /// Name of the [[token]]; needless where there is one
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
}

impl Which {
    fn load(&self) -> Result<(Config, config::Token), Failure> {
        let config = Config::load(&self.config).map_err(Failure::usage)?;
        let token = self.of(&config)?.clone();
        Ok((config, token))
    }

    fn of<'a>(&self, config: &'a Config) -> Result<&'a config::Token, Failure> {
        let names = || {
            config
                .tokens
                .iter()
                .map(|t| t.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (&self.token, config.tokens.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::usage(format_args!("say which with --token: {}", names()))),
            (Some(name), all) => all
                .iter()
                .find(|t| t.name == *name)
                .ok_or_else(|| Failure::usage(format_args!("no [[token]] is called {name}; there are: {}", names()))),
        }
    }

    /// Tells a service that runs beside this command that it has changed something on the token, and the operator what comes
    /// of it.
    fn announce(&self) -> Result<(), Failure> {
        let config = Config::load(&self.config).map_err(Failure::usage)?;
        match tokens::announce(&config) {
            Ok(()) => println!("a running service reads the token within seconds; its log says what it finds"),
            Err(error) => println!(
                "a running service reads the token at its next SIGHUP (systemctl reload muhurdar); it could not be told: {error}"
            ),
        }
        Ok(())
    }

    /// Logs in, with the PIN of the configuration, tried once.
    fn log_in(&self) -> Result<Token, Failure> {
        let (config, token) = self.load()?;
        tokens::set_environment_of(&token).map_err(Failure::unavailable)?;
        let module = open(&token)?;
        let selected = tokens::token_config(&token).map_err(Failure::usage)?;
        let latches = tokens::latches(&config);
        module.log_in(&selected, &latches).map_err(|e| token_failure(&e))
    }
}

/// The module of a token, initialised as the service would.
fn open(token: &config::Token) -> Result<Module, Failure> {
    Module::open(&token.module, tokens::init_args(token)).map_err(|e| token_failure(&e))
}

/// The exit code that a token's refusal deserves.
pub(super) fn token_failure(error: &OpenError) -> Failure {
    match error {
        OpenError::Config(_) | OpenError::Selection(_) | OpenError::Unfit { .. } => Failure::usage(error),
        OpenError::Pin { .. } | OpenError::Latched { .. } => Failure::new(exit::PERMISSION, error),
        OpenError::Unwritable { cause, .. } => Failure::new(exit::of_io(cause), error),
        // A security officer's PIN, at `init`.
        OpenError::Token { error: ckr, .. } if ckr.name().starts_with("CKR_PIN") => {
            Failure::new(exit::PERMISSION, error)
        }
        _ => Failure::unavailable(error),
    }
}

/// The CKA_ID that a label gets where the caller names none: the label's own bytes, so that both say whose key it is.
fn cka_id(id: Option<&str>, label: &str) -> Result<Vec<u8>, Failure> {
    let Some(id) = id else {
        return Ok(label.as_bytes().to_vec());
    };
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok();
    let bytes = bytes.filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| {
        Failure::usage(format_args!(
            "--id {id}: write CKA_ID in hexadecimal, two digits a byte"
        ))
    })
}

/// `muhurdar token init`
#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    which: Which,
    /// File with the security officer's PIN
    #[arg(long, value_name = "FILE")]
    so_pin_file: PathBuf,
    /// Slot to initialise; without it the first whose token is not initialised
    #[arg(long, value_name = "ID")]
    slot: Option<u64>,
    /// Needed with --slot, since everything on the token is lost
    #[arg(long)]
    erase: bool,
}

impl Init {
    fn run(&self) -> Result<(), Failure> {
        if self.slot.is_some() && !self.erase {
            return Err(Failure::usage(
                "everything on the token in that slot would be lost; say --erase to do it all the same",
            ));
        }
        let (_, token) = self.which.load()?;
        tokens::set_environment_of(&token).map_err(Failure::unavailable)?;
        let Some(label) = &token.label else {
            return Err(Failure::usage(
                "the [[token]] must be selected by label: it is the label that the token gets",
            ));
        };
        let pin = tokens::token_config(&token).map_err(Failure::usage)?.pin;
        let facts = open(&token)?.init_token(self.slot, label, &Pin::file(&self.so_pin_file), &pin);
        let facts = facts.map_err(|e| token_failure(&e))?;
        println!(
            "initialised {} (serial {}) in slot {}",
            facts.label, facts.serial, facts.slot
        );
        Ok(())
    }
}

/// Key types by the names that operators use.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyName {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
}

impl KeyName {
    fn generate(self) -> Generate {
        match self {
            Self::Rsa2048 => Generate::Rsa(2048),
            Self::Rsa3072 => Generate::Rsa(3072),
            Self::Rsa4096 => Generate::Rsa(4096),
            Self::P256 => Generate::Ec(Curve::P256),
            Self::P384 => Generate::Ec(Curve::P384),
            Self::P521 => Generate::Ec(Curve::P521),
        }
    }
}

/// `muhurdar token keygen`
#[derive(Debug, Args)]
struct Keygen {
    #[command(flatten)]
    which: Which,
    /// Type and size of the key
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    key: KeyName,
    /// CKA_LABEL, such as 1234567890SIGN0
    #[arg(long)]
    label: String,
    /// CKA_ID in hexadecimal [default: the label's bytes]
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
}

impl Keygen {
    fn run(&self) -> Result<(), Failure> {
        let id = cka_id(self.id.as_deref(), &self.label)?;
        let token = self.which.log_in()?;
        token
            .generate(self.key.generate(), &self.label, &id)
            .map_err(|e| token_failure(&e))?;
        let own_id = self.id.as_ref().map_or_else(String::new, |id| format!(" --id {id}"));
        println!(
            "made {label} on token {}; next: muhurdar token csr --config {} --label {label}{own_id} --taxpayer VKN --title TITLE --out FILE",
            token.facts().label,
            self.which.config.display(),
            label = self.label,
        );
        self.which.announce()
    }
}

/// `muhurdar token unlatch`
#[derive(Debug, Args)]
struct Unlatch {
    #[command(flatten)]
    which: Which,
}

impl Unlatch {
    fn run(&self) -> Result<(), Failure> {
        let (config, token) = self.which.load()?;
        let latches = tokens::latches(&config);
        let fails = |e: std::io::Error| Failure::new(exit::of_io(&e), format_args!("token {}: {e}", token.name));
        if latches.unlatch(&token.name).map_err(fails)? {
            println!(
                "token {} may try its PIN once: a running service does within seconds, another at its next start; its log says how it went",
                token.name
            );
            return Ok(());
        }
        println!("token {} was not latched", token.name);
        for other in latches.standing().map_err(fails)? {
            println!("a latch that stands: {other}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cka_id_is_hexadecimal_or_the_labels_bytes() {
        assert_eq!(cka_id(None, "ab").unwrap(), b"ab");
        assert_eq!(cka_id(Some("00fF"), "x").unwrap(), [0, 255]);
        for bad in ["", "0", "0g", "000", "+1"] {
            assert!(cka_id(Some(bad), "x").is_err(), "{bad}");
        }
    }
}
