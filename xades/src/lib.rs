//! Canonical XML, digests and XAdES seals of Turkish e-documents, in one pass and without I/O.
//!
//! The rooms, in the order a document goes through them: [`scan`] reads it and checks that it is well-formed; [`c14n`]
//! writes its canonical form into a [`Sink`](c14n::Sink), usually a digest.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod c14n;
mod encoding;
mod error;
mod limits;
pub mod scan;
mod scope;

pub use encoding::Encoding;
pub use error::{Fault, Inside, Label, Position, Reason, Refusal, RefusalKind};
pub use limits::Limits;
pub use scope::{Ns, Scope};
