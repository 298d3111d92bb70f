//! opencryptoki's daemon and its software token, for the tests and benchmarks that can have them.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test support: a panic is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muhurdar_pool::admin::Generate;
use muhurdar_pool::{Pin, Select, TokenConfig};

use crate::common::{generate, log_in};

/// Debian's build has no elliptic curves.
pub const KINDS: [Generate; 3] = [Generate::Rsa(2048), Generate::Rsa(3072), Generate::Rsa(4096)];

/// At most 8 characters.
const PIN: &str = "64821937";
/// What every such token has from its maker.
const SO_PIN: &str = "87654321";
const NEW_SO_PIN: &str = "12345678";

/// What these tests call their token; one with another label is somebody's, and left alone.
const LABEL: &str = "muhurdar-test";

/// opencryptoki's daemon, ours for the time of these tests unless it ran already, and its software token.
pub struct Daemon {
    module: PathBuf,
    daemon: Option<Child>,
}

impl Daemon {
    /// Starts it, and makes the token where there is none.
    pub fn start() -> Result<Self, String> {
        let module = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""]
            .map(|arch| {
                Path::new("/usr/lib")
                    .join(arch)
                    .join("opencryptoki/libopencryptoki.so.0")
            })
            .into_iter()
            .find(|module| module.exists())
            .ok_or("not installed (apt-get install opencryptoki)")?;
        // The daemon wants root and the group pkcs11.
        let spawned = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "pkcsslotd", "-f"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("pkcsslotd cannot be started: {error}"))?;
        let mut ours = Self {
            module,
            daemon: Some(spawned),
        };
        let until = Instant::now() + Duration::from_secs(5);
        while pkcsconf(&["-s"], "").is_err() {
            if Instant::now() > until {
                return Err("its daemon does not answer (it needs root or the group pkcs11)".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Where another daemon runs, ours has ended by itself.
        if ours
            .daemon
            .as_mut()
            .is_some_and(|d| d.try_wait().is_ok_and(|ended| ended.is_some()))
        {
            ours.daemon = None;
        }
        ours.token()?;
        Ok(ours)
    }

    /// The token, perhaps without keys.
    pub fn config(&self) -> TokenConfig {
        TokenConfig::new(
            "opencryptoki",
            &self.module,
            Select::Label(LABEL.into()),
            Pin::value(PIN),
        )
    }

    /// A fresh software token, unless the one there is somebody's.
    fn token(&self) -> Result<(), String> {
        let tokens = pkcsconf(&["-t"], "")?;
        // "Token #3 Info:", and a line for each fact.
        let software = tokens
            .split("Token #")
            .find(|token| token.contains("SoftTok"))
            .ok_or("it has no software token (see /etc/opencryptoki/opencryptoki.conf)")?;
        let slot = software.split_once(' ').map_or("", |(slot, _)| slot);
        let label = software.lines().find_map(|line| line.trim().strip_prefix("Label:"));
        match (software.contains("TOKEN_INITIALIZED"), label.map(str::trim)) {
            (false, _) => {}
            // Ours, from an earlier run. (Initialised again it would not let its security officer in any more.)
            (true, Some(LABEL)) => return Ok(()),
            (true, other) => return Err(format!("its software token {other:?} is somebody's, and is left alone")),
        }
        pkcsconf(&["-I", "-c", slot, "-S", SO_PIN], &format!("{LABEL}\n"))?;
        // Its maker's PIN must be another before anything else.
        pkcsconf(&["-P", "-c", slot, "-S", SO_PIN, "-n", NEW_SO_PIN], "")?;
        pkcsconf(&["-u", "-c", slot, "-S", NEW_SO_PIN, "-n", PIN], "").map(drop)
    }
}

/// The token with a key of every kind that it knows.
pub fn with_keys(config: &TokenConfig) -> TokenConfig {
    if log_in(config).objects().unwrap().is_empty() {
        generate(config, &KINDS);
    }
    config.clone()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It removes its shared memory and its socket at SIGTERM.
            let pid = rustix::process::Pid::from_child(&daemon);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let until = Instant::now() + Duration::from_secs(5);
            while daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
                if Instant::now() > until {
                    let _ = daemon.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn pkcsconf(arguments: &[&str], input: &str) -> Result<String, String> {
    use std::io::Write as _;
    let fails = |error: std::io::Error| format!("pkcsconf: {error}");
    let mut child = Command::new("pkcsconf")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fails)?;
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .map_err(fails)?;
    let output = child.wait_with_output().map_err(fails)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "pkcsconf {}: {}",
            arguments[0],
            String::from_utf8_lossy(&output.stdout).trim()
        ))
    }
}
