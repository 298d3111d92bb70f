//! The thread that writes what an outlet has taken, for as long as the process lives. It alone waits for whoever takes the lines.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{AUDIT, LINGER, MAIN, OWN, Outlet, Sink, batch::Batch};

/// Between two tries after a failure: the first, and the longest.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    outlet: Arc<Outlet>,
    sink: Box<dyn Sink>,
    batch: Batch,
}

/// What a pause ended with.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Lines,
    Reopen,
}

impl Writer {
    pub(super) fn new(outlet: Arc<Outlet>, sink: Box<dyn Sink>) -> Self {
        Self {
            outlet,
            sink,
            batch: Batch::default(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.outlet.wait_for_lines(&mut self.batch) {
                Woken::Lines => self.write_out(),
                Woken::Reopen => self.reopen(),
            }
        }
    }

    /// Writes the batch, however long that takes.
    fn write_out(&mut self) {
        let (begun, mut failures) = (Instant::now(), 0);
        while !self.batch.is_written() {
            match self.step() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody has made it non-blocking: its reader is slow, which is no failure.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let _ = self.outlet.pause(SOON);
                }
                Err(error) => {
                    failures += 1;
                    self.failed(&error, failures);
                }
            }
        }
        self.batch.clear();
        let (lost, stalled) = self.outlet.written();
        self.tell(begun.elapsed(), failures > 0 || stalled, lost);
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some(next) = self.batch.next_line() {
            self.sink.between_lines(next);
        }
        match self.sink.write(self.batch.piece(self.sink.room()))? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            bytes => {
                self.batch.advance(bytes);
                self.outlet.progress(bytes);
                Ok(())
            }
        }
    }

    fn failed(&mut self, error: &io::Error, failures: u32) {
        if self.sink.forgets_halves() {
            self.go_back();
        }
        if self.outlet.failing(error) {
            tracing::error!(
                target: OWN,
                log = self.outlet.name,
                to = self.outlet.to,
                %error,
                "the log cannot be written: lines wait, and are lost beyond log.queue"
            );
        }
        let pause = SOON.saturating_mul(failures).min(LATER);
        if self.outlet.pause(pause) == Woken::Reopen {
            self.reopen();
        }
    }

    fn go_back(&mut self) {
        let again = self.batch.back_to_the_line();
        self.outlet.pending().writing += again;
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(true) => self.go_back(),
            Ok(false) => {}
            Err(error) => {
                let (log, to) = (self.outlet.name, &self.outlet.to);
                tracing::error!(target: OWN, log, to, %error, "the log cannot be opened anew, and goes on where it was");
            }
        }
    }

    /// Says that it goes on, and what was lost, once it does.
    fn tell(&self, took: Duration, was_told: bool, [other, audit]: [u64; 2]) {
        if other + audit == 0 && !was_told {
            return;
        }
        let (log, to) = (self.outlet.name, &self.outlet.to);
        let seconds = took.as_secs();
        tracing::warn!(
            target: OWN,
            log,
            to,
            lost_audit = audit,
            lost_other = other,
            seconds,
            "the log is written again after it could not be, or had no room"
        );
        // Who reads the audit log alone must see the gap too.
        if self.outlet.name != MAIN && audit > 0 {
            tracing::warn!(target: AUDIT, lost = audit, "lines of this log were lost here");
        }
    }
}

impl Outlet {
    /// Takes what is there, once something is. Right after something was written it waits for more to come: lines of seals come in
    /// numbers.
    fn wait_for_lines(&self, batch: &mut Batch) -> Woken {
        let pending = self.pending();
        let (pending, _) = self
            .work
            .wait_timeout_while(pending, LINGER, |pending| !pending.urgent && !pending.reopen)
            .unwrap_or_else(PoisonError::into_inner);
        let mut pending = self
            .work
            .wait_while(pending, |pending| {
                pending.idle = pending.lines.is_empty() && !pending.reopen;
                if pending.idle {
                    pending.urgent = false;
                }
                pending.idle
            })
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut pending.reopen, false) {
            return Woken::Reopen;
        }
        std::mem::swap(batch, &mut pending.lines);
        pending.urgent = false;
        pending.writing = batch.len();
        pending.since = Some(Instant::now());
        Woken::Lines
    }

    /// So many bytes are out.
    fn progress(&self, bytes: usize) {
        let mut pending = self.pending();
        pending.writing -= bytes;
        pending.since = Some(Instant::now());
        pending.error = None;
        self.tell_of_room(&mut pending);
    }

    /// All of the batch is out. Answers what was lost meanwhile, and whether it was told that nobody takes anything.
    fn written(&self) -> ([u64; 2], bool) {
        let mut pending = self.pending();
        pending.since = None;
        pending.error = None;
        if pending.used() == 0 {
            self.done.notify_all();
        }
        (std::mem::take(&mut pending.untold), std::mem::take(&mut pending.told))
    }

    /// Notes a failure. Answers whether it is the first of its kind since something was written.
    fn failing(&self, error: &io::Error) -> bool {
        let mut pending = self.pending();
        let error = error.to_string();
        let first = pending.error.is_none();
        pending.error = Some(error);
        first
    }

    /// Waits for so long, or until somebody wants it opened anew.
    fn pause(&self, time: Duration) -> Woken {
        let (mut pending, _) = self
            .work
            .wait_timeout_while(self.pending(), time, |pending| !pending.reopen)
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut pending.reopen, false) {
            return Woken::Reopen;
        }
        Woken::Lines
    }
}
