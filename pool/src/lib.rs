//! A pool of PKCS#11 sessions that survives its HSM.
//!
//! In comes a digest and the name of a key; out goes a signature, or a reason. Between them: a queue that decides whose work a free lane
//! gets ([`Queue`]), lanes that each own a session on a thread of their own, slots that hold one login each, and a supervisor per module that
//! climbs the error ladder when the HSM has a bad day. The room knows nothing of documents, taxpayers or the wire, and nothing of where its
//! configuration was read.
//!
//! `admin` is the key ceremony: tokens, keys, certificates. [`ceiling`] measures what a token can do by itself.

// CK_ULONG is as wide as the platform's long: the conversions are needed where it is not 64 bits.
#![allow(clippy::unnecessary_cast, clippy::useless_conversion)]

mod bounded;
mod ceiling;
mod certificate;
mod ckr;
mod config;
mod cpu;
mod discovery;
mod dispatch;
mod driver;
mod error;
mod health;
mod job;
mod keys;
mod ladder;
mod lane;
mod latch;
mod login;
mod module;
mod pool;
mod proof;
mod qualify;
mod queue;
mod shared;
mod slot;
mod status;
mod supervisor;
mod sys;
mod table;
mod trust;
mod verdict;

pub mod admin;
pub mod exit;
pub mod isolation;

pub use ceiling::{Ceiling, ceiling};
pub use config::{Config, InitArgs, Isolation, Pin, RsaMechanism, Select, TokenConfig};
pub use driver::{TokenFacts, TokenFlags};
pub use error::{CkrError, OpenError, SignError};
pub use job::{Hash, Job, SignInput, Signed};
pub use keys::{Curve, Key, KeyId, KeyKind};
pub use ladder::{Rung, SlotState};
pub use latch::{Latches, unlatch};
pub use pool::Pool;
pub use qualify::{Finding, Measure, Mechanism, MechanismFacts, Qualification, Weight, qualify};
pub use queue::{Fifo, Queue, TokenMask};
pub use slot::{Cap, Recovery};
pub use status::{LaneCounts, Status, TokenStatus};
pub use sys::set_module_environment;
