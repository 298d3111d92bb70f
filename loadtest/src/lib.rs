//! The load harness of Mühürdar: what this appliance and this HSM carry.
//!
//! What comes in: a command line. What goes out: a verdict, with the figures behind it. Data goes one way: the **plan** says when, the
//! **generator** says what, the **driver** sends and takes the answers, the **recorder** counts, **verify** judges the seals, **judge** judges the
//! run, and **report** tells it. The token is measured alone beside it (**ceiling**), the server's own account is read from its **metrics**.
//!
//! The harness knows of the service what a client knows: the wire contract. It shares no code with the signer, so that it cannot share
//! its mistakes; only the raw signing rate of the token is measured by the pool's own call, because the pool is not what is in question there.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are far below 2^52, and rounding them is what a report does"
)]

pub mod ceiling;
pub mod cli;
pub mod compare;
pub mod criteria;
pub mod driver;
pub mod generator;
mod judge;
pub mod machine;
mod metrics;
pub mod null_server;
pub mod plan;
mod recorder;
pub mod report;
pub mod run;
pub mod screen;
pub mod slo;
pub mod target;
pub mod timeline;
mod verify;
