//! The process of the service, where the harness is to reach for it.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// From its start until it listens, and from SIGTERM until it has gone.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A service that can be signalled, and perhaps started again.
#[derive(Debug)]
pub struct Service {
    pid: Pid,
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    command: String,
    log: Option<PathBuf>,
    listens: SocketAddr,
}

impl Service {
    /// One that somebody else has started.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid: Some(pid).filter(|pid| *pid > 1).and_then(Pid::from_raw)?,
            started: None,
        })
    }

    /// Starts one, and waits until it listens. What it says goes into `log`.
    ///
    /// # Errors
    /// Where it ends, or does not listen in time.
    pub fn start(command: &str, listens: SocketAddr, log: Option<&Path>) -> io::Result<Self> {
        if answers(listens) {
            return Err(io::Error::other(format!("something listens on {listens} already")));
        }
        let child = spawn(command, log)?;
        let mut started = Started {
            child,
            command: command.to_owned(),
            log: log.map(Path::to_owned),
            listens,
        };
        let pid = started.wait_until_it_listens()?;
        Ok(Self {
            pid,
            started: Some(started),
        })
    }

    /// Sends a signal, such as `HUP`.
    pub(super) fn signal(&self, name: &str) -> io::Result<()> {
        let signal = match name {
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            "KILL" => Signal::KILL,
            _ => Signal::TERM,
        };
        Ok(kill_process(self.pid, signal)?)
    }

    /// SIGTERM, and a new start when it has gone; returns when it listens again.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.signal("TERM")?;
        let Some(started) = &mut self.started else {
            return Err(io::Error::other("nobody said how to start it again"));
        };
        started.wait_until_it_is_gone()?;
        started.child = spawn(&started.command, started.log.as_deref())?;
        self.pid = started.wait_until_it_listens()?;
        Ok(())
    }
}

impl Drop for Service {
    /// What was started here is ended here.
    fn drop(&mut self) {
        let _ = self.started.is_some().then(|| self.signal("TERM"));
        if let Some(started) = &mut self.started
            && started.wait_until_it_is_gone().is_err()
        {
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

impl Started {
    fn wait_until_it_listens(&mut self) -> io::Result<Pid> {
        let end = Instant::now() + PATIENCE;
        while !answers(self.listens) {
            if let Some(status) = self.child.try_wait()? {
                let log = self.log.as_ref();
                let see = log.map_or_else(String::new, |log| format!("; see {}", log.display()));
                return Err(io::Error::other(format!(
                    "the service ended ({status}) before it listened{see}"
                )));
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "the service does not listen on {}",
                    self.listens
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(Pid::from_child(&self.child))
    }

    fn wait_until_it_is_gone(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(io::Error::other("the service does not end after SIGTERM"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Whether somebody listens there. A connection whose two ends are one is our own: TCP lets two opens meet (RFC 9293, 3.5),
/// also where the system happened to give the outgoing one the very port that it goes to.
fn answers(address: SocketAddr) -> bool {
    let connection = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    connection.is_ok_and(|ends| ends.local_addr().ok() != ends.peer_addr().ok())
}

/// The shell becomes the service: a signal to it is one to the service.
fn spawn(command: &str, log: Option<&Path>) -> io::Result<Child> {
    let output = || match log {
        Some(log) => Ok(Stdio::from(File::options().create(true).append(true).open(log)?)),
        None => io::Result::Ok(Stdio::null()),
    };
    Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        .spawn()
}
