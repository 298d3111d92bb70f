//! What a connection owes: calls whose answers are not written yet, and answers whose last bytes may still be under way. By it
//! a connection is let go of at the end at once, or when its peer has read what it asked for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::admission::Answering;

/// How long bytes may be under way after they were written to their socket. What the socket holds back is little
/// (`accept::UNSENT`); the rest is on the line, or waits at the other end for its reader.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it owes something, when all is to end.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The calls of one connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    open: AtomicUsize,
    /// No more calls are taken on it.
    parting: AtomicBool,
    /// When the last bytes of an answer were written.
    written: Mutex<Option<Instant>>,
}

/// A call that is not answered yet. It is when this is dropped: when neither its body nor any of its bytes is left here.
#[derive(Debug)]
pub(super) struct OpenCall {
    line: Arc<Line>,
    _answering: Answering,
}

impl Line {
    /// A call begins.
    pub(super) fn call(self: &Arc<Self>, answering: Answering) -> OpenCall {
        self.open.fetch_add(1, Ordering::SeqCst);
        OpenCall {
            line: Arc::clone(self),
            _answering: answering,
        }
    }

    /// It ends in good order: what its peer has on the way is not held against it.
    pub(super) fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    /// Whether [`Line::part`] was called.
    pub(super) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Relaxed)
    }

    /// Whether something may be cut off that its peer has asked for.
    fn owes(&self) -> bool {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.load(Ordering::SeqCst) > 0 || written.is_some_and(|at| at.elapsed() < UNDER_WAY)
    }

    /// Waits until nothing is owed; so long at least, so that the peer can say goodbye too.
    pub(super) async fn settled(&self, goodbye: Duration) {
        sleep(goodbye).await;
        while self.owes() {
            sleep(ASK_EVERY).await;
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        *self.line.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.line.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::Gate, config::Limits};

    const GOODBYE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_let_go_of_when_its_last_answer_was_written_and_has_had_its_time() {
        let (gate, line, begin) = (Gate::new(&Limits::default()), Arc::new(Line::default()), Instant::now());
        line.settled(GOODBYE).await;
        assert_eq!(begin.elapsed(), GOODBYE, "one that nobody has called on");
        let (first, second) = (line.call(gate.call()), line.call(gate.call()));
        assert_eq!(gate.calls(), 2);
        let writing = async {
            sleep(Duration::from_secs(5)).await;
            drop(first);
            sleep(Duration::from_secs(20)).await;
            drop(second);
        };
        tokio::join!(line.settled(GOODBYE), writing);
        let expected = GOODBYE + Duration::from_secs(25) + UNDER_WAY;
        assert!(
            begin.elapsed() >= expected && begin.elapsed() <= expected + ASK_EVERY,
            "{:?}",
            begin.elapsed()
        );
        assert_eq!(gate.calls(), 0);
    }
}
