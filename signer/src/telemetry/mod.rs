//! What ops see of the service.
//!
//! Comes in: what the other rooms count, time and say. Goes out: Prometheus metrics ([`Metrics`]) and log lines. Knows nothing
//! of what a document says, and has no place to write it down.

mod log;
mod metrics;

pub(crate) use self::metrics::{Reload, Stage};
pub use self::{
    log::{quiet_panics, start_log},
    metrics::Metrics,
};
