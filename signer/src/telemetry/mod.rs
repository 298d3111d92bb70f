//! What ops see of the service.
//!
//! Comes in: what the other rooms count, time and say. Goes out: Prometheus metrics ([`Metrics`]), the same figures read back
//! for the status page, and log lines with the last warnings kept. Knows nothing of what a document says, and has no place
//! to write it down.

mod figures;
mod log;
mod metrics;
mod recent;
mod snapshot;

pub(crate) use self::{
    figures::{Figures, Latency},
    metrics::{Reload, Stage},
    recent::{Warning, recent},
};
pub use self::{
    log::{quiet_panics, start_log},
    metrics::Metrics,
};
