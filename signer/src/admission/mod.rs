//! Who comes in: access, limits, deadline, and the door that closes when the service drains.
//!
//! Comes in: who calls, for which taxpayer, with how many bytes. Goes out: an [`Admitted`] guard that holds the request's
//! share of every limit until it is dropped, or a refusal. Knows nothing of documents, keys or tokens.

mod access;
mod gate;

pub use access::{Access, Caller};
pub use gate::{Admitted, Gate};
