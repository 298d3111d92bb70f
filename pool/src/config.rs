//! What the pool is told at start: plain typed values. Reading them from a file is somebody else's room.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::error::OpenError;
use crate::latch::Latches;

/// The whole pool.
#[derive(Debug, Clone)]
pub struct Config {
    /// At least one token.
    pub tokens: Vec<TokenConfig>,
    /// Requests that may wait in front of the tokens; more are refused with `Overloaded`. Default 4096.
    pub queue_limit: usize,
    /// Folder for the PIN latches, so that a restart does not try a refused PIN again ([`crate::Latches::at`]). `None`: latches live as long as
    /// the process.
    pub state_dir: Option<PathBuf>,
    /// What an operator types to open a latch, but for the token's name: for messages.
    pub unlatch_command: Option<String>,
    /// How isolated modules start their child process; `None`: this binary again, with [`crate::isolation::SUBCOMMAND`].
    pub child_command: Option<Vec<std::ffi::OsString>>,
}

impl Config {
    /// A pool over these tokens, everything else at its default.
    #[must_use]
    pub fn new(tokens: Vec<TokenConfig>) -> Self {
        Self {
            tokens,
            queue_limit: 4096,
            state_dir: None,
            unlatch_command: None,
            child_command: None,
        }
    }

    /// Where the latches are.
    pub(crate) fn latches(&self) -> Latches {
        let latches = self.state_dir.as_ref().map_or_else(Latches::in_memory, Latches::at);
        match &self.unlatch_command {
            Some(command) => latches.opened_by(command),
            None => latches,
        }
    }
}

/// One token: where it is, how to log in, how much may be asked of it.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// The operator's name for it, in logs, metrics and receipts. Unique.
    pub name: String,
    /// The PKCS#11 library.
    pub module: PathBuf,
    /// Which of the module's tokens.
    pub select: Select,
    /// The user PIN.
    pub pin: Pin,
    /// Sessions to sign with, beside the one that keeps the login. Default 4; Luna's advice is about 30 for an HSM.
    pub sessions: usize,
    /// Signing engines of the HSM, where known: more sessions than engines gain nothing and cost latency.
    pub engines: Option<usize>,
    /// What an RSA key signs with. Default [`RsaMechanism::Pkcs`].
    pub rsa_mechanism: RsaMechanism,
    /// One session for everything: smart cards whose driver knows no more.
    pub single_session: bool,
    /// What `C_Initialize` is given. Default [`InitArgs::OsLocking`].
    pub init_args: InitArgs,
    /// Return values that mean that the module's connection is beyond repair without `C_Finalize` and `C_Initialize`.
    /// Default 0x80000384 and 0x80000387 (secure channel lost).
    pub module_fault_codes: Vec<u64>,
    /// Where the module runs. Default in this process.
    pub isolation: Isolation,
    /// Longest that one call may take before its lane counts as lost. Default 5 s.
    pub call_budget: Duration,
    /// Lost lanes that are replaced by new ones; with more lost the token is not ready. Default 4.
    pub max_lost: usize,
    /// How long a token may lie idle before a real signature is made to keep its channel alive and to learn of trouble first.
    /// Default 45 s; zero switches it off.
    pub heartbeat: Duration,
    /// First wait between attempts to bring the token back; doubles with jitter. Default 100 ms.
    pub backoff_min: Duration,
    /// Longest wait between attempts. Default 30 s.
    pub backoff_max: Duration,
    /// Environment for the module. In process it must be set before any thread exists, by [`crate::set_module_environment`];
    /// an isolated module's child gets it by itself.
    pub environment: Vec<(String, String)>,
}

impl TokenConfig {
    /// A token with everything else at its default.
    #[must_use]
    pub fn new(name: impl Into<String>, module: impl Into<PathBuf>, select: Select, pin: Pin) -> Self {
        Self {
            name: name.into(),
            module: module.into(),
            select,
            pin,
            sessions: 4,
            engines: None,
            rsa_mechanism: RsaMechanism::Pkcs,
            single_session: false,
            init_args: InitArgs::OsLocking,
            module_fault_codes: vec![0x8000_0384, 0x8000_0387],
            isolation: Isolation::None,
            call_budget: Duration::from_secs(5),
            max_lost: 4,
            heartbeat: Duration::from_secs(45),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            environment: Vec::new(),
        }
    }
}

/// Which token of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// By `CK_TOKEN_INFO.label`, trailing blanks aside. The habit, since slot numbers move.
    Label(String),
    /// By `CK_TOKEN_INFO.serialNumber`, trailing blanks aside.
    Serial(String),
    /// By slot identifier.
    SlotId(u64),
    /// The only token of the module.
    Only,
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?}"),
            Self::Serial(serial) => write!(f, "serial number {serial:?}"),
            Self::SlotId(id) => write!(f, "slot {id}"),
            Self::Only => f.write_str("the only token"),
        }
    }
}

/// What an RSA key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaMechanism {
    /// `CKM_RSA_PKCS` over a DigestInfo made here (RFC 8017, section 9.2): the least that crosses the wire.
    Pkcs,
    /// `CKM_SHA256_RSA_PKCS` and its kin over the message, for tokens in FIPS mode that refuse raw RSA. Every request must bring its message.
    ShaPkcs,
}

/// What `C_Initialize` is given (PKCS#11 3.1, section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitArgs {
    /// `CKF_OS_LOCKING_OK`: several threads call.
    OsLocking,
    /// `NULL`: smart card drivers that know no threads. Goes with `single_session`.
    None,
}

/// Where a module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// In this process.
    None,
    /// In a child process: a crash or hang of the vendor's library costs the requests on it and nothing else.
    Process,
}

/// A user PIN, or where to find it. `Debug` never shows it.
#[derive(Clone)]
pub struct Pin(Source);

#[derive(Clone)]
enum Source {
    Value(SecretString),
    File(PathBuf),
    Env(String),
}

/// CKU_USER PINs are short; a longer file is not one.
const MAX_PIN_BYTES: u64 = 1024;

impl Pin {
    /// The PIN itself.
    #[must_use]
    pub fn value(pin: impl Into<String>) -> Self {
        Self(Source::Value(SecretString::from(pin.into())))
    }

    /// A file whose first line is the PIN: a path, or a systemd credential by its path.
    #[must_use]
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Source::File(path.as_ref().to_owned()))
    }

    /// An environment variable. Others of the same user can read it: a file is better.
    #[must_use]
    pub fn env(name: impl Into<String>) -> Self {
        Self(Source::Env(name.into()))
    }

    /// Reads it. Called before each login, so that a changed file takes effect without a restart.
    pub(crate) fn read(&self, token: &str) -> Result<SecretString, OpenError> {
        let refuse = |cause: String| OpenError::Pin {
            token: token.to_owned(),
            cause,
        };
        let pin = match &self.0 {
            Source::Value(pin) => pin.clone(),
            Source::Env(name) => SecretString::from(
                std::env::var(name).map_err(|e| refuse(format!("environment variable {name}: {e}")))?,
            ),
            Source::File(path) => {
                use std::io::Read as _;
                let at = |e: std::io::Error| refuse(format!("{}: {e}", path.display()));
                let file = std::fs::File::open(path).map_err(at)?;
                let mut text = zeroize::Zeroizing::new(String::with_capacity(128));
                let read = file.take(MAX_PIN_BYTES + 1).read_to_string(&mut text).map_err(at)?;
                if read as u64 > MAX_PIN_BYTES {
                    return Err(refuse(format!("{}: longer than {MAX_PIN_BYTES} bytes", path.display())));
                }
                SecretString::from(text.lines().next().unwrap_or_default().to_owned())
            }
        };
        if let Some(slip) = slip(pin.expose_secret()) {
            let from = match &self.0 {
                Source::Value(_) => String::new(),
                Source::Env(name) => format!("environment variable {name}: "),
                Source::File(path) => format!("{}: ", path.display()),
            };
            return Err(refuse(format!("{from}{slip}")));
        }
        Ok(pin)
    }
}

/// What nobody sees in a file and a token counts as a wrong PIN. Refused and not taken away: only the operator knows what was meant.
fn slip(pin: &str) -> Option<&'static str> {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    if pin.is_empty() {
        Some("it is empty")
    } else if pin.contains('\u{feff}') {
        Some(
            "it begins with a byte order mark, which would count as part of the PIN: save the file as UTF-8 without BOM",
        )
    } else if pin.trim() != pin {
        Some("a blank stands before or after it, which would count as part of the PIN: take it away")
    } else if pin.contains(unseen) {
        Some("there is a character in it that cannot be seen: type it anew")
    } else {
        None
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Value(_) => f.write_str("Pin(redacted)"),
            Source::File(path) => write!(f, "Pin(file {})", path.display()),
            Source::Env(name) => write!(f, "Pin(environment variable {name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_with_what_nobody_sees_is_refused_before_it_costs_a_try() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Pin::file(&path).read("hsm")
        };
        for fine in [
            &b"648219"[..],
            b"648219\n",
            b"648219\r\n",
            b"648219\nsecond line\n",
            b"6 48 219\n",
            "sekiz\u{131}\n".as_bytes(),
        ] {
            assert!(read(fine).is_ok(), "{fine:?}");
        }
        assert_eq!(read(b"648219\r\n").unwrap().expose_secret(), "648219");
        for slip in [
            &b"\xef\xbb\xbf648219\n"[..],
            b"\xff\xfe6\x004\x00",
            b"",
            b"\n648219\n",
            b" 648219\n",
            b"648219 \n",
            b"648219\t\n",
            "648219\u{a0}\n".as_bytes(),
            "648\u{200b}219\n".as_bytes(),
            b"648\x00219\n",
        ] {
            let refused = read(slip).unwrap_err().to_string();
            assert!(
                refused.contains("was not tried") && !refused.contains("648"),
                "{slip:?}: {refused}"
            );
        }
    }
}
