//! CPU time of the calling thread, to tell the token's share from the service's.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_THREAD_CPUTIME_ID` of the calling thread.
pub(crate) fn thread() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
