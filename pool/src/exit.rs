//! The end of the process: where every `main` that may load a module passes, whatever happened.
//!
//! While a process ends, the destructors of its libraries run: a module's own, and those of what it is built on, such as OpenSSL's. A thread
//! that is in the module meanwhile finds memory that is gone, and so does one that merely ends then, since a library that keeps something for
//! each thread cleans it up there: the process crashes, once in some hundred times. So every thread that may call a module is begun here and
//! its handle kept, and the process ends when each of them has ended, clean-up and all. Where one does not come back in time, since a call
//! hangs, the process is left without running destructors. It owes nothing more: the kernel takes back what it has, an HSM its sessions.

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::module::lock;
use crate::sys;

/// How long threads that may be in a module are waited for: those of a pool that was closed end at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The exit code of a panic: EX_SOFTWARE, sysexits(3).
const PANICKED: u8 = 70;

/// The threads of this process that may be in a module.
struct Register {
    /// The process ends: no more begin.
    closed: bool,
    threads: Vec<JoinHandle<()>>,
    /// What else may be in a module, on threads that are not ours: see [`Visit`].
    visits: usize,
}

static REGISTER: Mutex<Register> = Mutex::new(Register {
    closed: false,
    threads: Vec::new(),
    visits: 0,
});
static VISITED: Condvar = Condvar::new();
/// What is owed until the last moment.
static OWED: OnceLock<fn()> = OnceLock::new();

/// Runs a command, and ends the process with the exit code that it answers, or with 70 where it panics. A module that it used may be called
/// by no thread any more then; threads that do not come back within two seconds are left where they are, and no destructor is run.
///
/// Call it last in `main`, or rather: first, around everything.
pub fn run(command: impl FnOnce() -> u8) -> ! {
    // Whatever it left half done is not looked at again. The panic's hook has said what there is to say.
    let code = catch_unwind(AssertUnwindSafe(command)).unwrap_or(PANICKED);
    // All that is still owed: logs and reports are written when they are written.
    let _ = io::stdout().flush();
    end(code, PATIENCE)
}

/// Ends the process now, from whatever thread: for a second signal, or a pipe that nobody reads. Nobody is waited for, not even whoever writes
/// to standard output.
pub fn now(code: u8) -> ! {
    end(code, Duration::ZERO)
}

/// Has this done last of all, however the process ends: a log is written that is not written at once. It may not take for ever. The first
/// one counts.
pub fn at_the_end(work: fn()) {
    let _ = OWED.set(work);
}

fn end(code: u8, patience: Duration) -> ! {
    let alone = everybody_has_left(patience);
    if !alone {
        tracing::warn!("a call of a PKCS#11 module is still out: the process ends without running its destructors");
    }
    if let Some(work) = OWED.get() {
        work();
    }
    if alone {
        #[allow(clippy::disallowed_methods, reason = "here it is known that nobody is in a module")]
        std::process::exit(code.into());
    }
    sys::leave_without_destructors(code.into())
}

/// Forbids more threads, and waits for those that are there. Answers whether none is left.
fn everybody_has_left(patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let threads = {
        let mut register = lock(&REGISTER);
        if std::mem::replace(&mut register.closed, true) {
            // Somebody else ends the process already, and waits for them.
            return false;
        }
        let (mut register, _) = VISITED
            .wait_timeout_while(register, patience, |register| register.visits > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if register.visits > 0 {
            return false;
        }
        std::mem::take(&mut register.threads)
    };
    if threads.is_empty() {
        return true;
    }
    // Only joining waits for what libraries do at a thread's end, and it knows no time-out.
    let (gone, all_gone) = mpsc::channel();
    let joining = Builder::new().name("farewell".into()).spawn(move || {
        for thread in threads {
            // One that panicked has ended too.
            let _ = thread.join();
        }
        let _ = gone.send(());
    });
    joining.is_ok()
        && all_gone
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .is_ok()
}

/// Begins a thread that may call a module. The end of the process waits for it.
///
/// # Errors
/// Where the system has no thread, or the process is ending.
pub(crate) fn spawn(name: impl Into<String>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut register = lock(&REGISTER);
    if register.closed {
        return Err(io::Error::other("the process is ending"));
    }
    let thread = Builder::new().name(name.into()).spawn(move || {
        bury();
        work();
    })?;
    register.threads.push(thread);
    Ok(())
}

/// Joins threads that have ended, so that they do not pile up. On a thread that may hang: what a library does at a thread's end is its own.
fn bury() {
    let ended: Vec<_> = {
        let mut register = lock(&REGISTER);
        register.threads.extract_if(.., |thread| thread.is_finished()).collect()
    };
    for thread in ended {
        let _ = thread.join();
    }
}

/// Something through which a thread that is not one of ours may call a module: for as long as there is one, the module may be in use.
#[derive(Debug)]
pub(crate) struct Visit(());

impl Visit {
    /// Does not return where the process is ending: nobody may begin then, and nobody needs to.
    pub(crate) fn begin() -> Self {
        let mut register = lock(&REGISTER);
        while register.closed {
            drop(register);
            std::thread::park();
            register = lock(&REGISTER);
        }
        register.visits += 1;
        Self(())
    }
}

impl Clone for Visit {
    fn clone(&self) -> Self {
        Self::begin()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        lock(&REGISTER).visits -= 1;
        VISITED.notify_all();
    }
}
