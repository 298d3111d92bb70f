//! The signals that a service lives by, taken before there is anything that they could interrupt: SIGTERM and SIGINT end it, the first in
//! order and the second at once; SIGHUP has it read its configuration again, after the start where it comes during it.

use std::io;

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

/// What asks the process to end.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Waits until the process is asked to end, once more where it was before. Answers the exit code that a shell gives for that signal.
    pub(super) async fn asked(&mut self) -> u8 {
        let signal = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        128 + u8::try_from(signal.as_raw_value()).unwrap_or(0)
    }
}

/// Takes them: from here on none of them ends the process by itself, and what comes is remembered until somebody waits for it, on whatever
/// runtime. No thread is started. The second of the two is SIGHUP.
///
/// # Errors
/// Where the system gives no signal handlers.
pub(super) fn take() -> io::Result<(Stop, Signal)> {
    // Handlers belong to the process; only their making wants a runtime, and that of the service comes later: it has threads.
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let stop = Stop {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    Ok((stop, signal(SignalKind::hangup())?))
}
