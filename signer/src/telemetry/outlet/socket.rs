//! The audit log to a collector on this machine, by a Unix socket: a datagram a line, or a stream of lines.

use std::{
    io::{self, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::Sink;

/// A socket that a collector listens on. It may come later, and come again: a connection is made when there is something to say.
#[derive(Debug)]
pub(in crate::telemetry) struct AuditSocket {
    path: PathBuf,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Connection {
    fn make(path: &Path) -> io::Result<Self> {
        let datagram = UnixDatagram::unbound()?;
        match datagram.connect(path) {
            Ok(()) => Ok(Self::Datagram(datagram)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTOTYPE) => {
                UnixStream::connect(path).map(Self::Stream)
            }
            Err(error) => Err(error),
        }
    }
}

impl AuditSocket {
    pub(in crate::telemetry) fn new(path: PathBuf) -> Self {
        Self { path, connection: None }
    }

    fn try_write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match &mut self.connection {
            Some(Connection::Stream(stream)) => stream.write(piece),
            // Where one message ends needs no sign in it.
            Some(Connection::Datagram(socket)) => {
                let line = piece.strip_suffix(b"\n").unwrap_or(piece);
                socket.send(line).map(|_| piece.len())
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Sink for AuditSocket {
    fn to(&self) -> String {
        self.path.display().to_string()
    }

    fn between_lines(&mut self, _next: usize) {
        // Where it fails, so does the write, which says why.
        if self.connection.is_none() {
            self.connection = Connection::make(&self.path).ok();
        }
    }

    fn room(&self) -> usize {
        match self.connection {
            Some(Connection::Stream(_)) => usize::MAX,
            _ => 0,
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.connection.is_none() {
            self.connection = Some(Connection::make(&self.path)?);
            // It may take less at a time than the one before.
            if self.room() == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        self.try_write(piece).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.connection = None;
            }
        })
    }

    /// Whoever reads the next connection has not seen the beginning.
    fn forgets_halves(&self) -> bool {
        true
    }
}
