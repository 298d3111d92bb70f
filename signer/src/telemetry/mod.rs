//! What ops see of the service.
//!
//! Comes in: what the other rooms count, time and say. Goes out: Prometheus metrics ([`Metrics`]), the same figures read back
//! for the status page, and log lines: so many of a kind in a minute, the last warnings kept. Knows nothing of what a document says, and has no place
//! to write it down.

mod figures;
mod log;
mod metrics;
mod ration;
mod recent;
mod snapshot;

pub(crate) use self::{
    figures::{Figures, Latency},
    metrics::{Reload, Stage},
    ration::{tell_of_the_rest, tell_of_what_is_left_out},
    recent::{Warning, recent},
};
pub use self::{
    log::{quiet_panics, start_log},
    metrics::Metrics,
};
