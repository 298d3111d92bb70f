//! The threads that wait for the network.
//!
//! They and the lanes that call a software token want the same processors. A packet that arrives need not throw a lane out
//! of the middle of a signature: under `SCHED_BATCH` (sched(7)) a thread that wakes waits until the one that runs has had
//! its turn, and then finds several packets and answers to do at once. Where a processor is free nothing changes: it
//! runs at once. What that is worth is in docs/performance.md.

use std::io;

use thread_priority::{
    NormalThreadSchedulePolicy::Batch, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::runtime::{Builder, Runtime};

/// The runtime of the service: a thread for each processor.
///
/// # Errors
/// Where the system gives no thread.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("network")
        .on_thread_start(wait_for_turn)
        .build()
}

/// No privilege is wanted for it, but a filter of system calls may refuse it: then all is as it would be without.
fn wait_for_turn() {
    let batch = ThreadSchedulePolicy::Normal(Batch);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, batch) {
        tracing::debug!(
            ?error,
            "a thread of the network stays under the default scheduling policy"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn threads_of_the_network_wait_for_their_turn() {
        let runtime = runtime().unwrap();
        let (tell, told) = mpsc::channel();
        runtime.spawn(async move {
            let policy = thread_priority::thread_schedule_policy();
            tell.send(policy).unwrap();
        });
        let policy = told.recv().unwrap().unwrap();
        assert_eq!(policy, ThreadSchedulePolicy::Normal(Batch));
    }
}
