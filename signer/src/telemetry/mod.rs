//! What ops see of the service.
//!
//! Comes in: what the other rooms count, time and say. Goes out: Prometheus metrics ([`Metrics`]), the same figures read back
//! for the status page, and log lines: so many of a kind in a minute, the last warnings kept, on a way out that holds up nobody
//! ([`outlet`]). Knows nothing of what a document says, and has no place to write it down.

mod figures;
mod log;
mod metrics;
mod outlet;
mod ration;
mod recent;
mod snapshot;

pub(crate) use self::{
    figures::{Figures, Latency},
    log::{
        LineOfASeal, audit_problem, line_of_a_seal, line_of_a_seal_in_time, log_status, reopen_at_hangup,
        takes_lines_of_seals,
    },
    metrics::{Reload, Stage},
    outlet::Status as LogStatus,
    ration::{tell_of_the_rest, tell_of_what_is_left_out},
    recent::{Warning, recent},
};
pub use self::{
    log::{LogError, flush_log, give_up_log, quiet_panics, start_log, start_service_log},
    metrics::Metrics,
};
