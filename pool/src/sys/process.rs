//! What the pool does to its own process.

/// Ends the process as it is: no destructor runs, no exit handler, nothing is flushed (`_exit`, POSIX.1).
pub(crate) fn leave_without_destructors(code: i32) -> ! {
    // SAFETY: it asks for nothing and does not return.
    unsafe { libc::_exit(code) }
}

/// Has SIGTERM, SIGINT and SIGHUP pass this process by.
pub(crate) fn ignore_requests_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: every one of these may be ignored, and SIG_IGN is no handler that could run anywhere.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Sets variables that PKCS#11 modules read at `C_Initialize`, such as `SOFTHSM2_CONF`. Call it first in `main`, before the
/// runtime or anything else starts a thread.
///
/// # Errors
/// A sentence, where another thread already runs, or the system does not say (it is looked up in `/proc`): a change of the environment while
/// somebody reads it is undefined behaviour (`setenv`, POSIX.1). Variables that have their values already are no change.
pub fn set_module_environment<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Result<(), String>
where
    K: AsRef<std::ffi::OsStr>,
    V: AsRef<std::ffi::OsStr>,
{
    let mut variables = variables
        .into_iter()
        .filter(|(name, value)| std::env::var_os(name).as_deref() != Some(value.as_ref()))
        .peekable();
    if variables.peek().is_none() {
        return Ok(());
    }
    let elsewhere = "set it outside, or run the module in a child process (isolation)";
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => {}
        Ok(threads) => {
            return Err(format!(
                "the environment of PKCS#11 modules must be set before the first thread starts, and {threads} run; {elsewhere}"
            ));
        }
        Err(error) => {
            return Err(format!(
                "the environment of PKCS#11 modules must be set before the first thread starts, and this system does not say whether one has \
                 (/proc/self/task: {error}); {elsewhere}"
            ));
        }
    }
    for (name, value) in variables {
        // SAFETY: no other thread runs, so nobody reads the environment meanwhile: it was counted, and this thread has started none since.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}
