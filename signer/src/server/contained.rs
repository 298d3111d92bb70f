//! A request by itself: whatever becomes of it is its own.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

use crate::{
    refusal::Refusal,
    trace::{self, Journey},
};

/// Follows a request to its end. A panic is its own. (No `async fn`: that would hold the work twice.)
pub(super) fn contained<T>(
    journey: Journey,
    work: impl Future<Output = Result<T, Refusal>>,
) -> impl Future<Output = Result<T, Refusal>> {
    journey.follow(AssertUnwindSafe(work).catch_unwind().map(|outcome| {
        let outcome = outcome.unwrap_or_else(|_| {
            tracing::error!(request = %trace::request_id(), "a request panicked; it was answered INTERNAL");
            Err(Refusal::Internal)
        });
        trace::ended(match &outcome {
            Ok(_) => "sealed",
            Err(refusal) => refusal.reason(),
        });
        outcome
    }))
}
