//! Fixtures of the end-to-end tests: the real binary with a real token in a folder of its own, clients with real
//! certificates, and verifiers that nobody here wrote.
//!
//! Comes in: what a test wants of its appliance. Goes out: where it listens, what it answered, what others say about it.
//! It knows the command line and the wire, and nothing of what is behind them: what a test here sees, a user sees.
//!
//! A fixture that cannot do its work panics with what to do about it; these are tests.

mod appliance;
mod browser;
pub mod calls;
mod client;
mod data;
mod documents;
mod flood;
pub mod frames;
mod hsm;
mod memory;
mod neighbour;
mod oracle;
mod pki;
mod process;
mod suffered;

pub use appliance::{Appliance, Builder, Prepared};
pub use browser::Browser;
pub use client::{Branch, Refused, refused, refused_item};
pub use data::{files, shared, skipped};
pub use documents::{EC, RSA, invoice, sealer_of};
pub use flood::Flood;
pub use hsm::{copy, faulty_token};
pub use memory::Memory;
pub use neighbour::{Latencies, Neighbour};
pub use oracle::{Python, invalid, xmlsec1};
pub use pki::{
    Validity, authority, certify, certify_for, new_seal, new_seal_for, renew_server, revoke, revoke_for, successor,
};
pub use process::{Output, binary, muhurdar, own_address, turn};
pub use suffered::Suffered;
