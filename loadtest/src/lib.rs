//! The load harness of Mühürdar: what this appliance and this HSM carry.
//!
//! What comes in: a command line. What goes out: a verdict, with the figures behind it. Data goes one way: the **plan** says when, the
//! **generator** says what, the **driver** sends and takes the answers, the **recorder** counts, **verify** judges the seals, **judge** judges the
//! run, and **report** tells it. The token is measured alone beside it (**ceiling**), the server's own account is read from its **metrics**.
//!
//! Many machines share the work as **agents**. Things are done to the service meanwhile on a **timeline**.
//!
//! The harness knows of the service what a client knows: the wire contract. What judges a seal shares no code with what made it, so that it cannot
//! share its mistakes. Two things are borrowed where they are not in question: the pool's own call for the raw signing rate of the token, and the
//! document engine where a branch would use it, on the client's side of a hash-only run.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are far below 2^52, and rounding them is what a report does"
)]

pub mod agents;
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
mod service_config;
pub mod slo;
pub mod target;
pub mod timeline;
mod verify;
