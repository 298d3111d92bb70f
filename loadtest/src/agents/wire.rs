//! What controller and agent say to each other: frames of a length (four bytes, big endian) and JSON.

use std::{io, path::Path, sync::Arc, time::Duration};

use clap::ValueEnum as _;
use muhurdar_proto::seal::v1::{AnswerKind, Priority, SealResponse};
use prost::Message as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::{
    driver::{Branch, Frame, Mode, Part, Sample, Setup},
    generator::{Document, Given, Kind, Taxpayer, TaxpayerMix, Workload},
    machine::Machine,
    plan::Load,
    recorder::Recorder,
    target::{Identity, Target},
};

/// Both sides must speak the same.
pub(super) const VERSION: u32 = 1;
/// A folder of documents fits; what claims to be longer is none of ours.
const MAX_FRAME: u32 = 512 << 20;

/// What a controller says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Hello {
        version: u32,
    },
    /// What time is it there?
    Ping,
    /// Connect, and be ready.
    Prepare(Box<Work>),
    Stretch {
        first: usize,
        segments: Vec<(Load, Duration)>,
        /// On the agent's clock.
        start: i128,
    },
    /// No more stretches: tell what was seen.
    Finish,
    /// The run is given up.
    Stop,
}

/// What an agent says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    Hello {
        version: u32,
        machine: Machine,
    },
    Pong {
        /// Its monotonic clock, nanoseconds since it started.
        monotonic: i128,
        /// Its wall clock, nanoseconds since 1970.
        wall: i128,
    },
    Connected,
    Progress([u64; 3]),
    Done(Vec<u64>),
    Sample(Kept),
    Finished {
        recorder: Box<Recorder>,
        samples_dropped: u64,
    },
    /// It cannot go on, and why.
    Failed(String),
}

/// What an agent is to do: the controller's [`Setup`], with every file's content in the place of its path.
#[derive(Serialize, Deserialize)]
pub(super) struct Work {
    endpoint: String,
    ca: String,
    branches: Vec<BranchWork>,
    kinds: Vec<String>,
    sizes: String,
    taxpayers: Vec<(String, Option<Base64>)>,
    zipf: f64,
    seed: u64,
    issue_date: jiff::civil::Date,
    given: Option<Vec<(String, Base64, Option<String>)>>,
    mode: String,
    answer: i32,
    connections: usize,
    streams: usize,
    batch: usize,
    workers: usize,
    max_in_flight: usize,
    sample: f64,
    sample_bytes: usize,
    drain: Duration,
    pub(super) part: Part,
    pub(super) frame: Frame,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys and documents are in it.
        f.debug_struct("Work")
            .field("endpoint", &self.endpoint)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct BranchWork {
    name: String,
    certificate: String,
    key: Zeroizing<String>,
    share: f64,
    priority: i32,
}

/// A sampled answer on its way to the controller, who verifies.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    name: String,
    taxpayer: String,
    written: bool,
    document: Base64,
    answer: Result<Base64, String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn of(sample: &Sample) -> Self {
        Self {
            name: sample.document.name().to_owned(),
            taxpayer: sample.document.taxpayer().to_owned(),
            written: sample.document.is_written(),
            document: Base64(sample.document.to_vec()),
            answer: match &sample.answer {
                Ok(answer) => Ok(Base64(answer.encode_to_vec())),
                Err(problem) => Err(problem.clone()),
            },
        }
    }

    pub(super) fn sample(self) -> Result<Sample, String> {
        let answer = match self.answer {
            Ok(bytes) => Ok(SealResponse::decode(bytes.0.as_slice()).map_err(|error| error.to_string())?),
            Err(problem) => Err(problem),
        };
        let given = Given {
            name: self.name,
            bytes: self.document.0.into(),
            taxpayer: None,
        };
        let document = Document::given(given, self.taxpayer.into());
        Ok(Sample {
            document: if self.written {
                document.known_written()
            } else {
                document
            },
            answer,
        })
    }
}

impl Work {
    pub(super) fn of(setup: &Setup, frame: &Frame, part: Part) -> Self {
        let bytes = |der: &Arc<[u8]>| Base64(der.to_vec());
        let workload = &setup.workload;
        Self {
            endpoint: setup.target.endpoint.clone(),
            ca: setup.target.ca.to_string(),
            branches: setup
                .branches
                .iter()
                .map(|branch| BranchWork {
                    name: branch.identity.name.clone(),
                    certificate: branch.identity.certificate.to_string(),
                    key: (*branch.identity.key).clone(),
                    share: branch.share,
                    priority: branch.priority.into(),
                })
                .collect(),
            kinds: workload.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
            sizes: workload.sizes.to_string(),
            taxpayers: workload
                .taxpayers
                .taxpayers()
                .iter()
                .map(|taxpayer| (taxpayer.number.to_string(), taxpayer.certificate.as_ref().map(bytes)))
                .collect(),
            zipf: workload.taxpayers.exponent(),
            seed: workload.seed,
            issue_date: workload.issue_date,
            given: workload.given.as_ref().map(|given| {
                let one = |given: &Given| {
                    let taxpayer = given.taxpayer.as_ref().map(ToString::to_string);
                    (given.name.clone(), Base64(given.bytes.to_vec()), taxpayer)
                };
                given.iter().map(one).collect()
            }),
            mode: setup.mode.name().to_owned(),
            answer: setup.answer.into(),
            connections: setup.connections,
            streams: setup.streams,
            batch: setup.batch,
            workers: setup.workers,
            max_in_flight: setup.max_in_flight,
            sample: setup.sample,
            sample_bytes: setup.sample_bytes,
            drain: setup.drain,
            part,
            frame: frame.clone(),
        }
    }

    /// The agent's own [`Setup`].
    pub(super) fn setup(&self) -> Result<Setup, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let taxpayers = self
            .taxpayers
            .iter()
            .map(|(number, certificate)| Taxpayer {
                number: number.as_str().into(),
                certificate: certificate.as_ref().map(|der| der.0.as_slice().into()),
            })
            .collect();
        let kinds: Result<Vec<Kind>, String> = self.kinds.iter().map(|name| Kind::from_str(name, false)).collect();
        Ok(Setup {
            target: Target::new(&self.endpoint, &self.ca, Path::new("the controller's CA")).map_err(|e| words(&e))?,
            branches: self.branches.iter().map(BranchWork::branch).collect(),
            workload: Workload {
                kinds: kinds?,
                sizes: self.sizes.parse().map_err(|e| words(&e))?,
                taxpayers: TaxpayerMix::new(taxpayers, self.zipf).ok_or("no taxpayer to seal for")?,
                seed: self.seed,
                issue_date: self.issue_date,
                given: self.given.as_ref().map(|given| {
                    let one = |(name, bytes, taxpayer): &(String, Base64, Option<String>)| Given {
                        name: name.clone(),
                        bytes: bytes.0.clone().into(),
                        taxpayer: taxpayer.as_deref().map(Into::into),
                    };
                    given.iter().map(one).collect()
                }),
            },
            mode: Mode::from_str(&self.mode, false)?,
            answer: AnswerKind::try_from(self.answer).map_err(|e| words(&e))?,
            connections: self.connections,
            streams: self.streams,
            batch: self.batch,
            workers: self.workers,
            max_in_flight: self.max_in_flight,
            sample: self.sample,
            sample_bytes: self.sample_bytes,
            drain: self.drain,
        })
    }
}

impl BranchWork {
    fn branch(&self) -> Branch {
        Branch {
            identity: Identity {
                name: self.name.clone(),
                certificate: self.certificate.as_str().into(),
                key: Arc::new(self.key.clone()),
            },
            share: self.share,
            priority: Priority::try_from(self.priority).unwrap_or_default(),
        }
    }
}

/// Bytes that are base64 in JSON.
struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use base64::{display::Base64Display, engine::general_purpose::STANDARD};
        to.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// Sends one message.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    // Keys may be in it.
    let frame = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(frame.len()).ok().filter(|length| *length <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::other("too large to send to an agent"))?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(&frame).await?;
    to.flush().await
}

/// Takes one message; None where the other side has closed.
pub(super) async fn take<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let length = match from.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_FRAME {
        return Err(io::Error::other("a message that is too long"));
    }
    // Grown by what really comes, not by what is claimed.
    let mut frame = Zeroizing::new(Vec::new());
    let read = from.take(u64::from(length)).read_to_end(&mut frame).await?;
    if read < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&frame).map(Some).map_err(io::Error::other)
}
