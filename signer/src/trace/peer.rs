//! From where a call comes, for the lines of the audit log: known to whatever is done for it in the task of its connection, and taken
//! along by each request of it.

use std::{future::Future, sync::Arc};

use super::journey;

tokio::task_local! {
    /// Where the peer is whose call this task answers.
    static PLACE: Arc<str>;
}

/// Answers a call from there.
pub(crate) fn coming_from<T>(place: Arc<str>, answer: impl Future<Output = T>) -> impl Future<Output = T> {
    PLACE.scope(place, answer)
}

/// The same for what does not wait.
pub(crate) fn asking_for<T>(place: &Arc<str>, work: impl FnOnce() -> T) -> T {
    PLACE.sync_scope(Arc::clone(place), work)
}

/// Where the peer is for whom this task does something, where that is known.
pub(crate) fn peer() -> Option<Arc<str>> {
    journey::peer().or_else(|| PLACE.try_with(Arc::clone).ok())
}
