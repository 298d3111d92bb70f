//! A trap for those who end carelessly. A library's destructors run while the process ends; a thread that is in the library then, or that ends
//! then and has the library's own clean-up run, finds memory that is gone and crashes, once in some hundred times. Here it is certain: from
//! the moment that destructors run, whoever is still inside aborts the process and says so. Set by the command `trap MS`, which also makes
//! both moments as long as that.
#![allow(unsafe_code, reason = "atexit")]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Milliseconds that a thread's end and the destructors take; 0: no trap.
static SET: AtomicU64 = AtomicU64::new(0);
/// Destructors run.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Threads that are in a call, or in the library's clean-up of their end.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn set(ms: u64) {
    static ONCE: Once = Once::new();
    SET.store(ms, Ordering::SeqCst);
    ONCE.call_once(|| {
        // SAFETY: the function lives as long as this library, which is never unloaded.
        unsafe { atexit(destructor) };
    });
}

unsafe extern "C" {
    safe fn abort() -> !;
    fn atexit(function: extern "C" fn()) -> std::ffi::c_int;
}

extern "C" fn destructor() {
    if SET.load(Ordering::SeqCst) == 0 {
        return;
    }
    ENDING.store(true, Ordering::SeqCst);
    caught_if(INSIDE.load(Ordering::SeqCst) > 0, "is in a call");
    linger();
}

fn linger() {
    std::thread::sleep(Duration::from_millis(SET.load(Ordering::SeqCst)));
}

fn caught_if(inside: bool, how: &str) {
    if inside {
        let thread = std::thread::current();
        eprintln!(
            "faulty token: TRAPPED: a thread {how} while the library's destructors run (noticed by {:?})",
            thread.name()
        );
        abort();
    }
}

/// A call in progress.
pub(crate) struct Call(());

impl Call {
    pub(crate) fn enter() -> Self {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        caught_if(ENDING.load(Ordering::SeqCst), "enters a call");
        // What the thread's end has to clean up, as a library has that keeps something for each thread (OpenSSL does).
        THREAD.with(|_| {});
        Self(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Thread;

thread_local! {
    static THREAD: Thread = const { Thread };
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Counted among those inside.
        INSIDE.fetch_add(1, Ordering::SeqCst);
        caught_if(ENDING.load(Ordering::SeqCst), "ends");
        linger();
        caught_if(ENDING.load(Ordering::SeqCst), "ends");
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}
