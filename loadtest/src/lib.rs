//! The load harness of Mühürdar: what this appliance and this HSM carry.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are far below 2^52, and rounding them is what a report does"
)]

pub mod generator;
