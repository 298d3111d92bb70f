//! Where log lines leave the process: a queue of so many bytes, and a thread of its own that writes.
//!
//! Comes in: whole lines, from whatever thread, which never waits here. Goes out: the same lines in their order, to standard error,
//! a file or a socket ([`sink`]). Who takes them may be slow, gone or full: then they wait in the queue, and what finds no room there
//! is lost and counted, by what it was and why. A seal whose line must not be lost takes its room before it is made
//! ([`Outlet::reserve`]). Knows nothing of what the lines say.

mod batch;
mod file;
mod sink;
mod socket;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use self::{batch::Batch, writer::Writer};
pub(super) use self::{
    file::{AuditFile, Rotation},
    sink::{Sink, StandardError},
    socket::AuditSocket,
};

/// Lines of what was done, and of what was refused.
pub(super) const AUDIT: &str = "muhurdar::audit";
/// The name of the outlet that takes every line but those of an audit log that has its own.
pub(super) const MAIN: &str = "main";
/// The log's lines about itself.
pub(super) const OWN: &str = "muhurdar::log";

/// Room that a seal takes for its line before it is made: about twice what that needs with the longest names.
pub(super) const LINE: usize = 1 << 10;
/// Room for what the log says of itself when there is none.
const OWN_ROOM: usize = 8 << 10;
/// Lines of seals wait so long for others: at a thousand a second the writer is woken a hundred times.
const LINGER: Duration = Duration::from_millis(10);
/// Unless so many bytes are there already.
const PLENTY: usize = 256 << 10;
/// Nobody takes anything for so long: the log has stalled.
const STALLED: Duration = Duration::from_secs(2);

/// What a line is, as far as it matters to whether it may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A seal was made.
    Seal,
    /// What else is in the audit log.
    Audit,
    /// The log speaks of itself.
    Own,
    Other,
}

impl Kind {
    pub(super) fn of(line: &Metadata<'_>) -> Self {
        match line.target() {
            AUDIT if *line.level() == Level::INFO => Self::Seal,
            AUDIT => Self::Audit,
            OWN => Self::Own,
            _ => Self::Other,
        }
    }

    fn is_audit(self) -> bool {
        matches!(self, Self::Seal | Self::Audit)
    }
}

/// Lines that were lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Of the audit log, for want of room while nothing was taken or more came than was.
    pub(crate) audit_full: u64,
    /// Of the audit log, for want of room while writing failed.
    pub(crate) audit_failed: u64,
    /// Others, likewise.
    pub(crate) other_full: u64,
    pub(crate) other_failed: u64,
}

impl Lost {
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            audit_full: self.audit_full + more.audit_full,
            audit_failed: self.audit_failed + more.audit_failed,
            other_full: self.other_full + more.other_full,
            other_failed: self.other_failed + more.other_failed,
        }
    }
}

/// How an outlet is.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// `main` or `audit`.
    pub(crate) name: &'static str,
    /// Where its lines go, for people.
    pub(crate) to: String,
    /// Bytes that are not written yet, and how many may be.
    pub(crate) queued: usize,
    pub(crate) most: usize,
    /// How long nothing was taken of what is there; zero where there is nothing.
    pub(crate) stalled: Duration,
    /// Why the last try to write failed, where it did.
    pub(crate) error: Option<String>,
    pub(crate) lost: Lost,
}

/// The way out of some lines.
#[derive(Debug)]
pub(super) struct Outlet {
    name: &'static str,
    to: String,
    /// Bytes that may wait.
    most: usize,
    /// Whether seals take room before they are made.
    reserves: bool,
    pending: Mutex<Pending>,
    /// The writer has something to do.
    work: Condvar,
    /// Everything is written.
    done: Condvar,
    /// Something has become free.
    room: Notify,
    /// By whether it was of the audit log, and whether writing failed then.
    lost: [[AtomicU64; 2]; 2],
}

#[derive(Debug, Default)]
struct Pending {
    lines: Batch,
    /// Bytes that the writer has taken and not written.
    writing: usize,
    /// Since when the writer has something that nobody takes.
    since: Option<Instant>,
    error: Option<String>,
    /// Seals under way, each of which has room for its line.
    reserved: usize,
    /// Somebody waits for such room.
    wanted: bool,
    /// The writer has nothing to do.
    idle: bool,
    /// There is something that need not wait for others.
    urgent: bool,
    reopen: bool,
    /// What was lost and not told of yet: of the audit log, and others.
    untold: [u64; 2],
    /// It was told that nobody takes anything.
    told: bool,
}

impl Pending {
    fn used(&self) -> usize {
        self.lines.len() + self.writing
    }
}

/// Room for the line of a seal; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(Arc<Outlet>);

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut pending = self.0.pending();
        pending.reserved -= 1;
        self.0.tell_of_room(&mut pending);
    }
}

impl Outlet {
    /// One to this sink, and its writer's thread. Where it reserves, no line of a seal is lost that has taken its room.
    ///
    /// # Errors
    /// Where there is no thread.
    pub(super) fn open(name: &'static str, sink: Box<dyn Sink>, most: usize, reserves: bool) -> io::Result<Arc<Self>> {
        let outlet = Arc::new(Self {
            name,
            to: sink.to(),
            most,
            reserves,
            pending: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            room: Notify::new(),
            lost: Default::default(),
        });
        let writer = Writer::new(Arc::clone(&outlet), sink);
        std::thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || writer.run())?;
        Ok(outlet)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, or loses it. Does not wait.
    fn push(&self, line: &[u8], kind: Kind) {
        let mut pending = self.pending();
        // What is reserved is somebody's. Who chatters leaves half of it to the audit log.
        let free = self.most.saturating_sub(pending.reserved * LINE);
        let most = match kind {
            // There are as many as have reserved.
            Kind::Seal if self.reserves => usize::MAX,
            Kind::Seal | Kind::Audit => free,
            Kind::Own => self.most + OWN_ROOM,
            Kind::Other => free.min(self.most / 2),
        };
        if pending.used().saturating_add(line.len()) > most {
            let (audit, failed) = (usize::from(kind.is_audit()), usize::from(pending.error.is_some()));
            pending.untold[audit] += 1;
            drop(pending);
            self.lost[audit][failed].fetch_add(1, Ordering::Relaxed);
            return;
        }
        pending.lines.push(line);
        let urgent = kind != Kind::Seal || pending.lines.len() >= PLENTY;
        let wake = std::mem::replace(&mut pending.idle, false) || (urgent && !pending.urgent);
        pending.urgent |= urgent;
        drop(pending);
        if wake {
            self.work.notify_one();
        }
    }

    /// Takes room for the line of a seal, where there is some now. Only where this outlet reserves.
    pub(super) fn try_reserve(self: &Arc<Self>) -> Option<Reserved> {
        let mut pending = self.pending();
        if !self.has_room_in(&pending) {
            pending.wanted = true;
            return None;
        }
        pending.reserved += 1;
        drop(pending);
        Some(Reserved(Arc::clone(self)))
    }

    /// The same, once there is some.
    pub(super) async fn reserve(self: &Arc<Self>) -> Reserved {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reserved) = self.try_reserve() {
                return reserved;
            }
            freed.await;
        }
    }

    /// Whether a seal would find room for its line.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_in(&self.pending())
    }

    fn has_room_in(&self, pending: &Pending) -> bool {
        pending.used() + (pending.reserved + 1) * LINE <= self.most
    }

    fn tell_of_room(&self, pending: &mut Pending) {
        if std::mem::replace(&mut pending.wanted, false) {
            self.room.notify_waiters();
        }
    }

    /// Has the sink opened anew: a file that somebody has moved away.
    pub(super) fn reopen(&self) {
        self.pending().reopen = true;
        self.work.notify_one();
    }

    /// Waits until everything is written, but not longer than this. Answers whether it is.
    pub(super) fn flush(&self, until: Instant) -> bool {
        let mut pending = self.pending();
        pending.urgent = true;
        self.work.notify_one();
        let left = until.saturating_duration_since(Instant::now());
        let (pending, _) = self
            .done
            .wait_timeout_while(pending, left, |pending| pending.used() > 0)
            .unwrap_or_else(PoisonError::into_inner);
        pending.used() == 0
    }

    pub(super) fn status(&self) -> Status {
        let pending = self.pending();
        Status {
            name: self.name,
            to: self.to.clone(),
            queued: pending.used(),
            most: self.most,
            stalled: pending.since.map_or(Duration::ZERO, |since| since.elapsed()),
            error: pending.error.clone(),
            lost: self.lost(),
        }
    }

    fn lost(&self) -> Lost {
        let [[other_full, other_failed], [audit_full, audit_failed]] = self
            .lost
            .each_ref()
            .map(|of| of.each_ref().map(|n| n.load(Ordering::Relaxed)));
        Lost {
            audit_full,
            audit_failed,
            other_full,
            other_failed,
        }
    }

    /// Says, once, that nobody takes what is written. It is said where the page shows it, since this log may not take it either.
    pub(super) fn tell_of_a_stall(&self) {
        let mut pending = self.pending();
        let stalled = pending.since.is_some_and(|since| since.elapsed() >= STALLED);
        if !stalled || pending.error.is_some() || std::mem::replace(&mut pending.told, true) {
            return;
        }
        drop(pending);
        tracing::error!(
            target: OWN,
            log = self.name,
            to = self.to,
            "nobody takes the lines of the log: they wait, and are lost beyond log.queue; see who reads it"
        );
    }
}

/// Writes each line to its outlet.
#[derive(Debug)]
pub(super) struct Lines(pub(super) Arc<Outlet>);

/// Takes one line.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    outlet: &'a Outlet,
    kind: Kind,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Pen<'a>;

    fn make_writer(&'a self) -> Pen<'a> {
        Pen {
            outlet: &self.0,
            kind: Kind::Other,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Pen<'a> {
        Pen {
            outlet: &self.0,
            kind: Kind::of(line),
        }
    }
}

impl io::Write for Pen<'_> {
    /// A line comes whole, in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.outlet.push(line, self.kind);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
