//! `[[token]]`: where the keys are.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::optional_duration;

/// `[[token]]`: one slot of a PKCS#11 module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name in metrics, logs and receipts.
    pub name: String,
    /// The PKCS#11 library.
    pub module: PathBuf,
    /// Select the slot by its token's label …
    pub label: Option<String>,
    /// … or serial number …
    pub serial: Option<String>,
    /// … or slot id.
    pub slot: Option<u64>,
    /// The user PIN: a file holding nothing else (a trailing newline is dropped) …
    pub pin_file: Option<PathBuf>,
    /// … or an environment variable …
    pub pin_env: Option<String>,
    /// … or a systemd credential.
    pub pin_credential: Option<String>,
    /// Sessions that sign.
    #[serde(default = "default_sessions")]
    pub sessions: usize,
    /// Signing engines of the HSM, where known: more sessions than engines gain nothing and cost latency.
    pub engines: Option<usize>,
    /// What RSA keys sign with.
    #[serde(default)]
    pub rsa_mechanism: RsaMechanism,
    /// One session for everything: smart cards whose driver knows no more.
    #[serde(default)]
    pub single_session: bool,
    /// What `C_Initialize` is given.
    #[serde(default)]
    pub init_args: InitArgs,
    /// Return values after which only a reinitialised module helps; without it the two of a lost secure channel.
    pub module_fault_codes: Option<Vec<u64>>,
    /// Where the module runs.
    #[serde(default)]
    pub isolation: Isolation,
    /// Longest that one call may take before its session counts as lost.
    #[serde(default, deserialize_with = "optional_duration")]
    pub call_budget: Option<Duration>,
    /// How long it may lie idle before a real signature keeps its channel alive; zero: never.
    #[serde(default, deserialize_with = "optional_duration")]
    pub heartbeat: Option<Duration>,
    /// Environment of the module, such as SOFTHSM2_CONF. Set for the whole process before the module is loaded.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// What RSA keys sign with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RsaMechanism {
    /// `CKM_RSA_PKCS` over a DigestInfo made here.
    #[default]
    Pkcs,
    /// `CKM_SHA256_RSA_PKCS` and its kin, for tokens in FIPS mode that refuse raw RSA.
    ShaPkcs,
}

/// What `C_Initialize` is given (PKCS#11 3.1, section 5.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitArgs {
    /// `CKF_OS_LOCKING_OK`.
    #[default]
    OsLocking,
    /// `NULL`: smart card drivers that know no threads.
    None,
}

/// Where a module runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// In this process.
    #[default]
    None,
    /// In a child process, whose crash costs the requests on it and nothing else.
    Process,
}

impl Token {
    /// The file that a systemd credential names (`$CREDENTIALS_DIRECTORY/NAME`, systemd.exec(5)).
    #[must_use]
    pub fn credential_path(name: &str) -> Option<PathBuf> {
        env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(name))
    }
}

fn default_sessions() -> usize {
    8
}
