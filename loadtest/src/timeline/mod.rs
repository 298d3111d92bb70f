//! Things done to the service while it is loaded: a token fails and comes back, a signal, a restart, any command.
//!
//! What comes in: [`Action`]s, from a script (`--script`) or one by one (`--at`), and the [`Hands`] to carry them out with. What goes out: the
//! [`Event`]s that are drawn over the graphs, each with when it really began and, where it lasted, when it ended. A thread of its own keeps the
//! time, so that nothing here waits for the load and the load waits for nothing here.

mod action;
mod service;

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use self::{
    action::{Action, ActionError, Deed, Needs, read_script},
    service::Service,
};
use crate::report::Event;

/// A token answers a command at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a timeline reaches with.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    /// Control socket of a token that misbehaves on command (tests/faulty-token).
    pub token: Option<PathBuf>,
    /// The service's process.
    pub service: Option<Arc<Mutex<Service>>>,
}

/// Something that was done.
#[derive(Clone, Debug)]
struct Done {
    at: Instant,
    until: Option<Instant>,
    deed: Deed,
    problem: Option<String>,
}

/// The actions of a run, carried out as they come due.
#[derive(Debug)]
pub(crate) struct Timeline {
    thread: Option<JoinHandle<()>>,
    /// Dropped, it ends the thread.
    end: Option<mpsc::Sender<()>>,
    done: Arc<Mutex<Vec<Done>>>,
}

impl Timeline {
    /// Begins; `began` is when the load does.
    pub(crate) fn begin(actions: &[Action], hands: &Hands, began: Instant) -> io::Result<Self> {
        let mut actions = actions.to_vec();
        actions.sort_by_key(|action| action.at);
        let (end, ended) = mpsc::channel();
        let done = Arc::new(Mutex::new(Vec::new()));
        let (hands, record) = (hands.clone(), done.clone());
        let thread = thread::Builder::new()
            .name("timeline".into())
            .spawn(move || keep(actions, &hands, began, &ended, &record))?;
        Ok(Self {
            thread: Some(thread),
            end: Some(end),
            done,
        })
    }

    /// Ends, and tells what was done, `origin` being the zero of the report's clock.
    pub(crate) fn end(mut self, origin: Instant) -> Vec<Event> {
        self.stop();
        let done = lock(&self.done).clone();
        let since = |at: Instant| at.saturating_duration_since(origin).as_secs_f64();
        let mut events: Vec<Event> = done
            .iter()
            .enumerate()
            .map(|(index, one)| {
                let restored =
                    |later: &&Done| matches!((&one.deed, &later.deed), (Deed::Fail(a), Deed::Restore(b)) if a == b);
                let restored = done[index..].iter().find(restored).map(|later| later.at);
                Event {
                    at_s: since(one.at),
                    until_s: one.until.or(restored).map(since),
                    what: match &one.problem {
                        None => one.deed.to_string(),
                        Some(problem) => format!("{} (failed: {problem})", one.deed),
                    },
                }
            })
            .collect();
        events.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        events
    }

    fn stop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(actions: Vec<Action>, hands: &Hands, began: Instant, ended: &mpsc::Receiver<()>, record: &Mutex<Vec<Done>>) {
    let mut running: Vec<Child> = Vec::new();
    for Action { at, deed } in actions {
        let wait = (began + at).saturating_duration_since(Instant::now());
        if !matches!(ended.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Timeout)) {
            break;
        }
        // Reap what has ended; what goes on goes on.
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let at = Instant::now();
        let outcome = carry_out(&deed, hands, &mut running);
        let until = match &deed {
            Deed::Restart => Some(Instant::now()),
            Deed::Stall(time) => Some(at + *time),
            _ => None,
        };
        lock(record).push(Done {
            at,
            until: until.filter(|_| outcome.is_ok()),
            deed,
            problem: outcome.err().map(|error| error.to_string()),
        });
    }
    running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

fn carry_out(deed: &Deed, hands: &Hands, running: &mut Vec<Child>) -> io::Result<()> {
    let token = |command: &str| match &hands.token {
        Some(socket) => control(socket, command),
        None => Err(io::Error::other("no control socket of a token is known")),
    };
    let service = || {
        let service = hands.service.as_deref();
        service
            .map(lock)
            .ok_or_else(|| io::Error::other("the service's process is not known"))
    };
    match deed {
        Deed::Fail(label) => token(&format!("remove {label}")),
        Deed::Restore(label) => token(&format!("return {label}")),
        Deed::Stall(time) => token(&format!("stall {}", time.as_millis())),
        Deed::Token(command) => token(command),
        Deed::Signal(name) => service()?.signal(name),
        Deed::Restart => service()?.restart(),
        Deed::Run(command) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]);
            shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            running.push(shell.spawn()?);
            Ok(())
        }
    }
}

/// Waits until a token that misbehaves answers at its socket, which is opened with the token; no longer than an answer may take.
pub(crate) fn reach(socket: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match control(socket, "stat") {
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Says a command to a token that misbehaves, and hears that it holds.
fn control(socket: &Path, command: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).take(65_536).read_line(&mut answer)?;
    if answer.starts_with("ok") {
        Ok(())
    } else {
        Err(io::Error::other(answer.trim().to_owned()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(text: &str) -> Action {
        text.parse().unwrap()
    }

    #[test]
    fn actions_start_in_their_order_and_only_when_due() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("done").display().to_string();
        let actions = [
            action(&format!("1h=touch {file}.never")),
            action(&format!("2ms=touch {file}.second")),
            action(&format!("1ms=touch {file}.first")),
        ];
        let origin = Instant::now();
        let timeline = Timeline::begin(&actions, &Hands::default(), origin).unwrap();
        while !folder.path().join("done.second").exists() {
            thread::yield_now();
        }
        let events = timeline.end(origin);
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[0].what.ends_with(".first") && events[1].what.ends_with(".second"));
    }

    #[test]
    fn a_token_that_fails_is_out_until_it_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let token = thread::spawn(move || {
            let said = listener.incoming().take(3).map(|stream| {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let answer = if line.starts_with("stall") {
                    "error no such command"
                } else {
                    "ok "
                };
                writeln!(stream, "{answer}").unwrap();
                line.trim().to_owned()
            });
            said.collect::<Vec<_>>()
        });
        let at = |ms, deed| Action {
            at: Duration::from_millis(ms),
            deed,
        };
        let actions = [
            at(1, Deed::Fail("a".into())),
            at(30, Deed::Restore("a".into())),
            at(31, Deed::Stall(Duration::from_secs(2))),
        ];
        let hands = Hands {
            token: Some(socket),
            service: None,
        };
        let origin = Instant::now();
        let timeline = Timeline::begin(&actions, &hands, origin).unwrap();
        assert_eq!(token.join().unwrap(), ["remove a", "return a", "stall 2000"]);
        while lock(&timeline.done).len() < 3 {
            thread::yield_now();
        }
        let events = timeline.end(origin);
        assert_eq!(events[0].until_s, Some(events[1].at_s));
        assert!(
            events[2].what.contains("no such command") && events[2].until_s.is_none(),
            "{events:?}"
        );
    }

    #[test]
    fn a_service_is_signalled_and_started_again_and_ended() {
        // Something that listens and knows one signal.
        if Command::new("python3").arg("--version").output().is_err() {
            return eprintln!("SKIPPED a_service_is_signalled_and_started_again_and_ended: python3 is not installed");
        }
        let folder = tempfile::tempdir().unwrap();
        // Nobody else listens on a loopback address of this process alone, nor has a port there for a connection that it opens.
        let host = std::net::Ipv4Addr::from(0x7f40_0000 | (std::process::id() & 0x3f_ffff));
        let address = std::net::SocketAddr::from((host, 7000));
        let (script, log) = (folder.path().join("s.py"), folder.path().join("log"));
        let text = format!(
            "import signal, socket, sys\nsignal.signal(signal.SIGHUP, lambda *a: print('hup', flush=True))\n\
             s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             s.bind(('{host}', 7000))\ns.listen()\nprint('up', flush=True)\nwhile True: s.accept()[0].close()\n"
        );
        std::fs::write(&script, text).unwrap();
        let mut service = Service::start(&format!("python3 {}", script.display()), address, Some(&log)).unwrap();
        service.signal("HUP").unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let end = Instant::now() + Duration::from_secs(10);
        while said() != "up\nhup\n" && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        service.restart().unwrap();
        assert!(Service::start("true", address, None).is_err(), "the port is taken");
        drop(service);
        assert_eq!(said(), "up\nhup\nup\n");
        assert!(
            std::net::TcpStream::connect(address).is_err(),
            "it goes with its harness"
        );
        assert!(
            Service::start("true", address, None).is_err(),
            "what ends before it listens is no service"
        );
        assert!(Service::of(1).is_none() && Service::of(-7).is_none());
    }
}
