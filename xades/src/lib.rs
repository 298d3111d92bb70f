//! Canonical XML, digests and XAdES seals of Turkish e-documents, in one pass and without I/O.
//!
//! The rooms, in the order a document goes through them: [`scan`] reads it and checks that it is well-formed; [`c14n`]
//! writes its canonical form into a [`Sink`](c14n::Sink), usually a digest; [`build`] writes the seal, after a
//! [`Policy`] and from what a [`Certificate`] says. [`prepare`] leads a document through them, by the table that `profile`
//! has of its family, and what it gives becomes a [`Seal`] once the signature value is there. [`verify`](mod@verify) reads a
//! seal as somebody who does not trust it.
#![forbid(unsafe_op_in_unsafe_fn)]

mod algorithm;
pub mod build;
pub mod c14n;
pub mod certificate;
mod encoding;
mod error;
mod limits;
pub mod pem;
pub mod policy;
mod prepare;
mod profile;
pub mod scan;
mod scope;
mod splice;
pub mod verify;

pub use algorithm::{DigestAlgorithm, KeyType, SignatureAlgorithm};
pub use certificate::{Certificate, WrongSignature};
pub use encoding::Encoding;
pub use error::{Fault, Inside, Label, Position, Reason, Refusal, RefusalKind};
pub use limits::Limits;
pub use policy::Policy;
pub use prepare::{Digested, Doubt, OtherDigest, Prepared, Preparer, Sealer, Sealing, Unclear, Unverified, prepare};
pub use profile::DocumentType;
pub use scope::{Ns, Scope};
pub use splice::Seal;
pub use verify::{Verified, VerifyError, VerifyOptions, verify};

/// Compiles the code of the README with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
