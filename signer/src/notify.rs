//! What the service manager hears of us (sd_notify(3)): ready, reloading, stopping, alive, and a line for people.
//!
//! Comes in: the moments of the process. Goes out: datagrams to `NOTIFY_SOCKET`, or nothing where no manager set one. They
//! are sent in order by a thread of their own: a manager that does not read holds up that thread and no request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use sd_notify::NotifyState;

/// Messages that wait for a manager that does not read. One more is dropped: whoever is that late acts on its own.
const WAITING: usize = 64;

/// Tells the service manager. Clones speak for the same process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notifier(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    words: SyncSender<Word>,
    phase: AtomicU8,
}

/// Has not said that it is ready.
const STARTING: u8 = 0;
const UP: u8 = 1;
const STOPPING: u8 = 2;

#[derive(Debug)]
enum Word {
    Ready(String),
    Status(String),
    Reloading,
    Reloaded,
    Stopping(String),
    Alive,
}

/// The configuration is being read again; dropped, that is over, however it ended.
#[derive(Debug)]
#[must_use = "the manager waits for its end"]
pub(crate) struct Reloading(Option<Arc<Told>>);

impl Notifier {
    /// Speaks to the manager that the environment names, or to nobody.
    pub(crate) fn start() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (words, spoken) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        if let Err(error) = thread.spawn(move || speak(&spoken)) {
            tracing::error!(%error, "no thread to tell the service manager anything");
            return Self(None);
        }
        Self(Some(Arc::new(Told {
            words,
            phase: AtomicU8::new(STARTING),
        })))
    }

    /// How often the manager wants a sign of life to be given: twice in the time after which it acts (sd_watchdog_enabled(3)).
    pub(crate) fn pace(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        limit.map(|limit| limit / 2)
    }

    /// The service can seal; said again, only the line for people changes.
    pub(crate) fn ready(&self, status: String) {
        let Some(told) = &self.0 else { return };
        let began = told
            .phase
            .compare_exchange(STARTING, UP, Ordering::SeqCst, Ordering::SeqCst);
        told.say(if began.is_ok() {
            Word::Ready(status)
        } else {
            Word::Status(status)
        });
    }

    /// A line for people: `systemctl status` shows it.
    pub(crate) fn status(&self, status: String) {
        if let Some(told) = &self.0 {
            told.say(Word::Status(status));
        }
    }

    /// A new configuration is being read. Before the first [`Notifier::ready`] and after [`Notifier::stopping`] the manager
    /// has other things to wait for, and is told nothing.
    pub(crate) fn reloading(&self) -> Reloading {
        let told = self.0.as_ref().filter(|told| told.is_up());
        if let Some(told) = told {
            told.say(Word::Reloading);
        }
        Reloading(told.cloned())
    }

    /// Nothing new is admitted from now on.
    pub(crate) fn stopping(&self, status: String) {
        if let Some(told) = &self.0 {
            told.phase.store(STOPPING, Ordering::SeqCst);
            told.say(Word::Stopping(status));
        }
    }

    /// A sign of life.
    pub(crate) fn alive(&self) {
        if let Some(told) = &self.0 {
            told.say(Word::Alive);
        }
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if let Some(told) = self.0.take().filter(|told| told.is_up()) {
            told.say(Word::Reloaded);
        }
    }
}

impl Told {
    fn say(&self, word: Word) {
        // Full, or the thread is gone: either way nobody listens.
        drop(self.words.try_send(word));
    }

    fn is_up(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == UP
    }
}

fn speak(words: &Receiver<Word>) {
    let mut told_once = false;
    for word in words {
        let said = match &word {
            Word::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
            Word::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            // The time tells the manager which of its requests this answers (Type=notify-reload).
            Word::Reloading => {
                NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]))
            }
            Word::Reloaded => sd_notify::notify(&[NotifyState::Ready]),
            Word::Stopping(status) => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status(status)]),
            Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        };
        if let Err(error) = said
            && !std::mem::replace(&mut told_once, true)
        {
            tracing::warn!(%error, "the service manager cannot be told anything (NOTIFY_SOCKET)");
        }
    }
}
