//! The configuration: one TOML file, every key known, typed once at start.
//!
//! Comes in: the path of a file. Goes out: [`Config`], whose paths are absolute (relative ones are taken from the file's
//! own folder) and whose limits are in range. Secrets are never inline: they come by file, environment or systemd
//! credential, and this module only says where from.

mod client;
mod form;
mod secrets;
mod seeing;
mod token;
mod validate;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::Deserialize;

pub use self::{
    client::{Call, Client, Document, Priority, Quota},
    form::Form,
    seeing::{Audit, Log, LogFormat, Telemetry, WhenFull},
    token::{InitArgs, Isolation, RsaMechanism, Token},
};

/// Everything that the service is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    /// Who else is told about it.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The file that it was read from, for messages that name a command.
    #[serde(skip)]
    pub source: PathBuf,
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
    /// Names by which the admin listener may be asked for, beside `localhost` and addresses: a browser that was led here by another
    /// name gets nothing.
    #[serde(default)]
    pub admin_hosts: Vec<String>,
    /// The listener's own certificate and the authority of its clients.
    pub tls: Tls,
    /// Folder that outlives the process: the PIN latches, for service, commands and harness alike. `state` beside the configuration where
    /// nothing is said.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Folder where documents of `SealLarge` wait for their seal, encrypted and without a name; the system's temporary folder
    /// where nothing is said. Room for `limits.large_in_flight` of `limits.large_document`.
    pub spool_dir: Option<PathBuf>,
    /// How long everything admitted may take to be answered after SIGTERM, and its answers to be read.
    #[serde(default = "default_drain_timeout", deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// How long a TLS handshake may take, and a request to the admin listener to come.
    #[serde(default = "default_handshake_timeout", deserialize_with = "duration")]
    pub handshake_timeout: Duration,
    /// How often a connection is asked for a sign of life.
    #[serde(default = "default_keep_alive_interval", deserialize_with = "duration")]
    pub keep_alive_interval: Duration,
    /// How long it may take to give one: a peer that stalls half way through a header block can give none.
    #[serde(default = "default_keep_alive_timeout", deserialize_with = "duration")]
    pub keep_alive_timeout: Duration,
    /// How old a connection may become, a tenth more or less, before its client is asked to make another for its next calls;
    /// those that are open stay, for as long as they like. Zero: as old as it likes.
    #[serde(default, deserialize_with = "duration")]
    pub max_connection_age: Duration,
    /// Connections at a time. One more takes the place of the oldest that is still in its handshake, or is closed unread.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Of them, those of one client; callers without a certificate count as one.
    #[serde(default = "default_max_connections_per_client")]
    pub max_connections_per_client: usize,
    /// Threads that serve connections and work on small documents where they arrive; 0: one for every two processors.
    #[serde(default)]
    pub network_threads: usize,
}

impl Server {
    /// How many threads serve connections. One for every two processors where nothing is said: a thread that finds the next
    /// document already there spares waking another (docs/performance.md), and the others are for digests and tokens.
    #[must_use]
    pub fn network_threads(&self) -> usize {
        match self.network_threads {
            0 => (processors() / 2).max(1),
            n => n,
        }
    }
}

/// What the process may use of this machine.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `[server.tls]`: files in PEM or DER.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
    /// The authorities that client certificates must chain to.
    pub client_ca: PathBuf,
    /// Revoked client certificates: one or more lists.
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
    /// Their size together; that of open calls and of messages that are not whole yet, of which one client may have half; and that
    /// of answers that are not read yet, likewise.
    pub in_flight_bytes: ByteSize,
    /// Documents, of those in flight, that may wait for their turn.
    pub queue: usize,
    /// Their size together.
    pub queue_bytes: ByteSize,
    /// Percent of the work and of the queue that is kept for `BULK` while more urgent work waits.
    pub bulk_percent: u64,
    /// Size of a document in `SealLarge`.
    pub large_document: ByteSize,
    /// Calls of `SealLarge` at a time; half of them one client's, where its quota says nothing.
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
    /// Longest time that a message may take to arrive; and that a document of `SealLarge` may bring less than 64 KiB, or not be read.
    #[serde(deserialize_with = "duration")]
    pub arrival_timeout: Duration,
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
            arrival_timeout: Duration::from_secs(60),
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

impl Sealing {
    /// How many threads canonicalize and digest. One for each processor where nothing is said.
    #[must_use]
    pub fn digest_threads(&self) -> usize {
        match self.digest_threads {
            0 => processors(),
            n => n,
        }
    }
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

/// `[taxpayer."VKN"]`: what is particular to one taxpayer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taxpayer {
    /// How its seals are written, where its receivers want it otherwise.
    pub form: Form,
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
        config.source = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for client in &mut config.clients {
            client.spell_identity();
            client.read_taxpayers()?;
        }
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
        let audit = self.log.audit.iter_mut();
        let audit = audit.flat_map(|audit| audit.file.iter_mut().chain(&mut audit.socket));
        let lists = self.clients.iter_mut().flat_map(|client| &mut client.taxpayers_file);
        let paths = paths
            .chain(&mut tls.crl)
            .chain(&mut self.server.unix_socket)
            .chain(audit)
            .chain(lists);
        let folders = self
            .sealing
            .certificates
            .iter_mut()
            .chain([&mut self.server.state_dir])
            .chain(&mut self.server.spool_dir);
        for path in paths.chain(folders).chain(tokens) {
            // A bare library name is left to the dynamic loader's search path.
            if path.components().count() > 1 || path.extension().is_none_or(|e| e != "so") {
                *path = folder.join(&*path);
            }
        }
    }
}

/// Whether a text has the form of a VKN (10 digits) or TCKN (11 digits).
#[must_use]
pub fn is_taxpayer(text: &str) -> bool {
    matches!(text.len(), 10 | 11) && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text is a pattern of such numbers: digits, `*` for any of them and `?` for one.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?']) && text.bytes().all(|b| b.is_ascii_digit() || b"*?".contains(&b))
}

fn duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = SignedDuration::deserialize(input)?;
    Duration::try_from(text).map_err(|_| serde::de::Error::custom("a duration may not be negative"))
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    duration(input).map(Some)
}

fn default_state_dir() -> PathBuf {
    muhurdar_pool::Latches::FOLDER.into()
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

fn default_keep_alive_interval() -> Duration {
    Duration::from_secs(30)
}

fn default_keep_alive_timeout() -> Duration {
    Duration::from_secs(20)
}

fn default_max_connections() -> usize {
    4096
}

fn default_max_connections_per_client() -> usize {
    256
}

/// Port of the gRPC listener.
pub const DEFAULT_PORT: u16 = 7443;
/// Port of the metrics and health listener.
pub const DEFAULT_ADMIN_PORT: u16 = 7480;

#[cfg(test)]
mod tests;
