//! `[[client]]`: who may call, for whom, how urgently and how much.

use std::num::NonZeroU32;

use bytesize::ByteSize;
use serde::Deserialize;

use super::Form;

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

fn default_calls() -> Vec<Call> {
    vec![Call::Seal, Call::List]
}

fn default_priorities() -> Vec<Priority> {
    Priority::ALL.to_vec()
}

fn default_weight() -> u32 {
    1
}
