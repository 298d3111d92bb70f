//! What takes lines.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

/// Takes lines, on the writer's own thread, where it may block.
pub(in crate::telemetry) trait Sink: Send {
    /// Where they go, for people.
    fn to(&self) -> String;

    /// A line of so many bytes is next, and nothing of it is written: time to begin another file.
    fn between_lines(&mut self, _next: usize) {}

    /// Bytes that it takes at a time; of one line it takes more.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Writes some of these bytes: they begin where those before have ended.
    ///
    /// # Errors
    /// Where none is taken now. They are tried again.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize>;

    /// Whether a line that failed half way is written again as a whole.
    fn forgets_halves(&self) -> bool {
        false
    }

    /// Opens it anew by its name; what comes next is the beginning of a line. False where it has none.
    ///
    /// # Errors
    /// Where that does not work; it goes on with what it had.
    fn reopen(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Standard error, without the lock of [`io::Stderr`]: whoever else writes there must not wait because this does.
#[derive(Debug)]
pub(in crate::telemetry) struct StandardError(File);

impl StandardError {
    /// # Errors
    /// Where there is no descriptor left.
    pub(in crate::telemetry) fn open() -> io::Result<Self> {
        let own = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self(own.into()))
    }
}

impl Sink for StandardError {
    fn to(&self) -> String {
        "standard error".to_owned()
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.write(piece)
    }
}
