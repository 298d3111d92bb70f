//! Canonical XML, digests and XAdES seals.

pub mod build;
pub mod certificate;
pub mod policy;

mod algorithm;

pub use algorithm::{DigestAlgorithm, KeyType, SignatureAlgorithm};
pub use certificate::{Certificate, WrongSignature};
pub use policy::Policy;
