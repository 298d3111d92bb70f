//! The configuration: one TOML file, every key known, typed once at start.
//!
//! Comes in: the path of a file. Goes out: [`Config`], whose paths are absolute (relative ones are taken from the file's
//! own folder) and whose limits are in range. Secrets are never inline: they come by file, environment or systemd
//! credential, and this module only says where from.

mod form;
mod validate;

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::Deserialize;

pub use self::form::Form;

/// Everything that the service is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, and with which certificate.
    pub server: Server,
    /// Bounds on what is believed and held.
    #[serde(default)]
    pub limits: Limits,
    /// How seals are made where a taxpayer says nothing else.
    #[serde(default)]
    pub sealing: Sealing,
    /// The tokens that hold the keys.
    #[serde(rename = "token")]
    pub tokens: Vec<Token>,
    /// What is particular to a taxpayer, by VKN or TCKN.
    #[serde(default, rename = "taxpayer")]
    pub taxpayers: BTreeMap<String, Taxpayer>,
    /// Who may call.
    #[serde(default, rename = "client")]
    pub clients: Vec<Client>,
    /// How long answers are remembered by their idempotency keys.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// What is written about the work.
    #[serde(default)]
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address of the gRPC listener.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// A Unix socket that serves gRPC without TLS: callers are known by their user (`identity = "uid:…"`), which the kernel
    /// vouches for.
    pub unix_socket: Option<PathBuf>,
    /// Address of the metrics and health listener; plain HTTP, so keep it on loopback or a management network.
    #[serde(default = "default_admin_listen")]
    pub admin_listen: SocketAddr,
    /// The listener's own certificate and the authority of its clients.
    pub tls: Tls,
    /// Folder that outlives the process: the PIN latches. Without it they end with the process.
    pub state_dir: Option<PathBuf>,
    /// Folder where documents of `SealLarge` wait for their seal, encrypted and without a name; the system's temporary folder
    /// where nothing is said. Room for `limits.large_in_flight` of `limits.large_document`.
    pub spool_dir: Option<PathBuf>,
    /// How long everything admitted may take to be answered after SIGTERM.
    #[serde(default = "default_drain_timeout", deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// How long a TLS handshake may take.
    #[serde(default = "default_handshake_timeout", deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// Connections at a time; one more is closed unread.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Of them, those of one client; callers without a certificate count as one.
    #[serde(default = "default_max_connections_per_client")]
    pub max_connections_per_client: usize,
}

/// `[server.tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
    /// The authorities that client certificates must chain to.
    pub client_ca: PathBuf,
    /// Revoked client certificates: one or more lists (PEM), or one in DER.
    pub crl: Option<PathBuf>,
    /// Also accept TLS 1.2, for clients that know nothing newer.
    #[serde(default)]
    pub allow_tls12: bool,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of a document.
    pub document: ByteSize,
    /// Nesting of elements.
    pub depth: u32,
    /// Attributes of one element, namespace declarations included.
    pub attributes: u32,
    /// Documents that may be admitted and unanswered at a time.
    pub in_flight: usize,
    /// Their size together.
    pub in_flight_bytes: ByteSize,
    /// Documents, of those in flight, that may wait for their turn.
    pub queue: usize,
    /// Their size together.
    pub queue_bytes: ByteSize,
    /// Percent of the work and of the queue that is kept for `BULK` while more urgent work waits.
    pub bulk_percent: u64,
    /// Size of a document in `SealLarge`.
    pub large_document: ByteSize,
    /// Calls of `SealLarge` at a time.
    pub large_in_flight: usize,
    /// Longest time that one may take.
    #[serde(deserialize_with = "duration")]
    pub large_timeout: Duration,
    /// Items of one `SealBatch`.
    pub batch_items: usize,
    /// Documents of one `SealStream` that may be unanswered at a time; beyond it the stream is not read.
    pub stream_in_flight: usize,
    /// Longest time that a document may take from its admission to its answer, where the caller names none.
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document: ByteSize::mib(16),
            depth: 256,
            attributes: 256,
            in_flight: 4096,
            in_flight_bytes: ByteSize::mib(256),
            queue: 1024,
            queue_bytes: ByteSize::mib(128),
            bulk_percent: 10,
            large_document: ByteSize::mib(256),
            large_in_flight: 4,
            large_timeout: Duration::from_secs(600),
            batch_items: 256,
            stream_in_flight: 256,
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// `[sealing]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sealing {
    /// May a document be sealed that names no sealer at all?
    pub unnamed_sealer: UnnamedSealer,
    /// Folder of certificates (PEM or DER) for keys whose token holds none.
    pub certificates: Option<PathBuf>,
    /// Threads that canonicalize and digest; 0: one for each processor.
    pub digest_threads: usize,
    /// How a seal is written.
    pub form: Form,
}

/// What to do with a document in which neither `cac:Signature` nor the identity fields name a taxpayer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnnamedSealer {
    /// Answer TAXPAYER_MISMATCH.
    #[default]
    Refuse,
    /// Seal it with the seal that the request names.
    Allow,
}

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

/// `[taxpayer."VKN"]`: what is particular to one taxpayer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taxpayer {
    /// How its seals are written, where its receivers want it otherwise.
    pub form: Form,
}

/// `[[client]]`: who may call, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name in logs and receipts.
    pub name: String,
    /// How it is known from its certificate: `uri:…` or `dns:…` of the subject alternative names, or `cn:…`.
    pub identity: String,
    /// VKN or TCKN of the taxpayers whose seals it may use; `"*"` for all.
    #[serde(default)]
    pub taxpayers: Vec<String>,
    /// What it may call.
    #[serde(default = "default_calls")]
    pub calls: Vec<Call>,
    /// How urgent its documents may be.
    #[serde(default = "default_priorities")]
    pub priorities: Vec<Priority>,
    /// Its share against other clients whose documents are as urgent.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// How much it may ask for.
    #[serde(default)]
    pub quota: Quota,
    /// How seals are written that it asks for, where its receivers want them otherwise.
    #[serde(default)]
    pub form: Form,
}

/// `[client.quota]`: what is not said is not limited but by `[limits]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Documents a second, in the long run.
    pub documents_per_second: Option<NonZeroU32>,
    /// Documents that may come at once all the same; without it as many as in a second.
    pub burst: Option<NonZeroU32>,
    /// Documents admitted and unanswered at a time.
    pub in_flight: Option<usize>,
    /// Their size together.
    pub in_flight_bytes: Option<ByteSize>,
}

/// How urgent a document is. The wire's `Priority`, most urgent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(usize)]
pub enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// The day's work.
    #[default]
    Normal,
    /// Runs overnight.
    Bulk,
}

impl Priority {
    /// Most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Bulk];

    /// As the configuration and the metrics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

/// A right of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `Seal`, `SealStream`, `SealBatch`.
    Seal,
    /// `ListSeals`, `GetSeal`.
    List,
    /// `SealDigest`: a right of its own, since it signs what the appliance cannot see.
    Digest,
}

/// `[idempotency]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    /// How long an answer is remembered.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// Answers that are remembered; the oldest are forgotten first. 0: none.
    pub entries: usize,
    /// Their size together.
    pub bytes: ByteSize,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(600),
            entries: 10_000,
            bytes: ByteSize::mib(64),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber` reads it, such as `info` or `info,muhurdar::audit=off`. The environment variable
    /// MUHURDAR_LOG goes before it.
    pub filter: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

/// What is wrong with a configuration. Always the operator's to mend (exit 64).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind; the source shows the line.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// Each key is fine, but together they make no sense.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What to change.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Where it cannot be read, does not parse, or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self::parse(&text, path, &folder)
    }

    fn parse(text: &str, path: &Path, folder: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.resolve(folder);
        config.validate().map_err(|reason| ConfigError::Invalid {
            path: path.to_owned(),
            reason,
        })?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let tls = &mut self.server.tls;
        let paths = [&mut tls.certificate, &mut tls.key, &mut tls.client_ca].into_iter();
        let tokens = self
            .tokens
            .iter_mut()
            .flat_map(|t| t.pin_file.iter_mut().chain([&mut t.module]));
        let paths = paths.chain(&mut tls.crl).chain(&mut self.server.unix_socket);
        let folders = self
            .sealing
            .certificates
            .iter_mut()
            .chain(&mut self.server.state_dir)
            .chain(&mut self.server.spool_dir);
        for path in paths.chain(folders).chain(tokens) {
            // A bare library name is left to the dynamic loader's search path.
            if path.components().count() > 1 || path.extension().is_none_or(|e| e != "so") {
                *path = folder.join(&*path);
            }
        }
    }
}

impl Token {
    /// The file that a systemd credential names (`$CREDENTIALS_DIRECTORY/NAME`, systemd.exec(5)).
    #[must_use]
    pub fn credential_path(name: &str) -> Option<PathBuf> {
        env::var_os("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(name))
    }
}

/// Whether a text has the form of a VKN (10 digits) or TCKN (11 digits).
#[must_use]
pub fn is_taxpayer(text: &str) -> bool {
    matches!(text.len(), 10 | 11) && text.bytes().all(|b| b.is_ascii_digit())
}

fn duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = SignedDuration::deserialize(input)?;
    Duration::try_from(text).map_err(|_| serde::de::Error::custom("a duration may not be negative"))
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    duration(input).map(Some)
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT))
}

fn default_admin_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT))
}

fn default_drain_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_handshake_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_max_connections() -> usize {
    4096
}

fn default_max_connections_per_client() -> usize {
    256
}

fn default_sessions() -> usize {
    8
}

fn default_calls() -> Vec<Call> {
    vec![Call::Seal, Call::List]
}

fn default_priorities() -> Vec<Priority> {
    Priority::ALL.to_vec()
}

fn default_weight() -> u32 {
    1
}

/// Port of the gRPC listener.
pub const DEFAULT_PORT: u16 = 7443;
/// Port of the metrics and health listener.
pub const DEFAULT_ADMIN_PORT: u16 = 7480;

#[cfg(test)]
mod tests;
