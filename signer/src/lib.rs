//! Mühürdar, the service: a seal for a document, by a key that never leaves its HSM.
//!
//! Data goes one way: **wire → admit → digest → sign → check → splice → wire**. [`server`] speaks gRPC, [`admission`]
//! decides who comes in, [`pipeline`] is the one function that reads top to bottom; documents are `muhurdar-xades`'
//! business, tokens `muhurdar-pool`'s. [`appliance`] is the life of the
//! process, [`cli`] what an operator types, [`client`] the other end of the wire.

pub mod admission;
pub mod appliance;
mod catalogue;
pub mod cli;
pub mod client;
pub mod compute;
pub mod config;
pub mod credentials;
pub mod forms;
pub mod idempotency;
mod notify;
pub mod outside;
mod pace;
pub mod pipeline;
pub mod refusal;
pub mod reload;
pub mod seals;
pub mod server;
pub mod telemetry;
pub mod tokens;
pub mod trace;
mod turns;
