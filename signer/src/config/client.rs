//! `[[client]]`: who may call, for whom, how urgently and how much.

use std::{num::NonZeroU32, path::PathBuf};

use bytesize::ByteSize;
use muhurdar_xades::DocumentType;
use serde::Deserialize;

use super::{ConfigError, Form};

/// `[[client]]`: who may call, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name in logs and receipts.
    pub name: String,
    /// How it is known from its certificate: `uri:…` or `dns:…` of the subject alternative names, or `cn:…`.
    pub identity: String,
    /// VKN or TCKN of the taxpayers whose seals it may use, or patterns of them: `*` is any digits, `?` is one.
    #[serde(default)]
    pub taxpayers: Vec<String>,
    /// More of them, one a line; `#` begins a comment. Once the configuration is read they are in `taxpayers`.
    pub taxpayers_file: Option<PathBuf>,
    /// Which documents it may have sealed; all where nothing is said.
    pub documents: Option<Vec<Document>>,
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

impl Client {
    /// Spells its identity as certificates are read: host names are the same in capitals (RFC 4343).
    pub(super) fn spell_identity(&mut self) {
        if let Some(host) = self.identity.strip_prefix("dns:") {
            self.identity = format!("dns:{}", host.to_ascii_lowercase());
        }
    }

    /// Adds what its file names.
    pub(super) fn read_taxpayers(&mut self) -> Result<(), ConfigError> {
        let Some(path) = &self.taxpayers_file else {
            return Ok(());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        self.taxpayers
            .extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        Ok(())
    }
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
    /// Calls of `SealLarge` at a time, 0: none; without it half of `limits.large_in_flight`, so that nobody takes the places of all.
    pub large_in_flight: Option<usize>,
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

/// A kind of document, as the configuration writes it: `credit-note`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Document(pub DocumentType);

impl TryFrom<String> for Document {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let called = |document: DocumentType| document.id().replace('_', "-");
        let found = DocumentType::ALL.into_iter().find(|document| called(*document) == name);
        found.map(Self).ok_or_else(|| {
            let all = DocumentType::ALL.map(called).join(", ");
            format!("no document is called \"{name}\"; there are {all}")
        })
    }
}

impl From<Document> for DocumentType {
    fn from(Document(document): Document) -> Self {
        document
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
    /// `SignDigest`: a right of its own, since it signs what the appliance cannot see.
    Digest,
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
