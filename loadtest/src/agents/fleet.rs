//! The controller's side: agents that are connected, whose clocks are known.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc as queue,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    DEFAULT_PORT, KeyError,
    clock::{Clock, Exchange},
    keys,
    wire::{self, Kept, Order, VERSION, Word, Work},
};
use crate::{
    driver::{DriveError, Event, Finished, Frame, Part, Sample, Setup, Stretch},
    machine::Machine,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Questions to an agent's clock.
const PINGS: usize = 20;

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The controller's keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// An agent cannot be reached, or is none.
    #[error("agent {0}: {1}")]
    Agent(String, String),
    /// An agent's clock is too far off.
    #[error(
        "agent {name}: its clock is {off} ms from this machine's, known to ±{bound} ms, and {limit:?} are allowed: set the clocks by NTP, \
         or allow more with --clock-limit"
    )]
    Clock {
        /// Which.
        name: String,
        /// Milliseconds; ahead where positive.
        off: f64,
        /// Milliseconds.
        bound: f64,
        /// What is allowed.
        limit: Duration,
    },
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Agents that wait for work.
#[derive(Debug)]
pub struct Fleet {
    links: Vec<Arc<Link>>,
    // Last, so that the links' tasks outlive what speaks through them.
    _runtime: Runtime,
}

/// What is known of an agent, for the report.
#[derive(Clone, Debug)]
pub(crate) struct AgentState {
    pub(crate) name: String,
    pub(crate) clock: Clock,
    /// Beyond what the comparisons may be wrong by.
    pub(crate) drift: Duration,
    pub(crate) machine: Machine,
}

struct Link {
    name: String,
    number: usize,
    machine: Machine,
    epoch: Instant,
    orders: queue::UnboundedSender<Order>,
    /// Where what the agent says of the running run goes.
    events: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    pongs: Mutex<mpsc::Receiver<Pong>>,
    clock: Mutex<Clock>,
}

struct Pong {
    monotonic: i128,
    wall: i128,
    answered: Instant,
    wall_here: i128,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An agent's place in a run.
#[derive(Debug)]
pub(crate) struct Seat {
    link: Arc<Link>,
}

impl Seat {
    pub(crate) fn name(&self) -> &str {
        &self.link.name
    }

    fn say(&self, order: Order) -> Result<(), DriveError> {
        let gone = |_| DriveError::Agent(self.link.name.clone(), "the connection is gone".to_owned());
        self.link.orders.send(order).map_err(gone)
    }

    pub(crate) fn order(&self, stretch: &Stretch) -> Result<(), DriveError> {
        let here = self.link.since_epoch(stretch.start);
        let start = lock(&self.link.clock).there(here);
        self.say(Order::Stretch {
            first: stretch.first,
            segments: stretch.segments.clone(),
            start,
        })
    }

    pub(crate) fn finish(&self) -> Result<(), DriveError> {
        self.say(Order::Finish)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // After a run that went to its end there is nothing left to stop.
        let _ = self.link.orders.send(Order::Stop);
        *lock(&self.link.events) = None;
    }
}

impl Fleet {
    /// Connects to agents and compares their clocks with this machine's.
    ///
    /// # Errors
    /// Where one is not there, does not let this controller in, or has a clock that is too far off.
    pub fn connect(hosts: &[String], keys: &Path, limit: Duration) -> Result<Self, FleetError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("agents")
            .enable_all()
            .build()?;
        let (connector, name) = keys::connector(keys)?;
        let mut links = Vec::new();
        for (number, host) in hosts.iter().enumerate() {
            let host = with_port(host);
            let wrong = |why: String| FleetError::Agent(host.clone(), why);
            let opened = runtime.block_on(async { timeout(PATIENCE, open(&host, &connector, name.clone())).await });
            let (stream, machine) = opened
                .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
                .map_err(wrong)?;
            let link = runtime.block_on(async { Link::start(host.clone(), number, machine, stream) });
            let clock = link
                .compare()
                .ok_or_else(|| wrong("does not tell the time".to_owned()))?;
            if clock.farthest() > limit {
                return Err(FleetError::Clock {
                    name: host,
                    off: (clock.wall_us() / 100.0).round() / 10.0,
                    bound: (clock.bound_us() / 10.0).round() / 100.0,
                    limit,
                });
            }
            *lock(&link.clock) = clock;
            links.push(Arc::new(link));
        }
        Ok(Self {
            links,
            _runtime: runtime,
        })
    }

    /// Hands every agent its part of the work; each then says [`Event::Connected`].
    pub(crate) fn take_seats(
        &self,
        setup: &Setup,
        frame: &Frame,
        report: &mpsc::Sender<Event>,
    ) -> Result<Vec<Seat>, DriveError> {
        let of = self.links.len() * setup.workers;
        self.links
            .iter()
            .map(|link| {
                *lock(&link.events) = Some(report.clone());
                let seat = Seat { link: link.clone() };
                let part = Part {
                    first: link.number * setup.workers,
                    of,
                };
                seat.say(Order::Prepare(Box::new(Work::of(setup, frame, part))))?;
                Ok(seat)
            })
            .collect()
    }

    /// What is known of the agents, with their clocks compared once more.
    pub(crate) fn states(&self) -> Vec<AgentState> {
        self.links
            .iter()
            .map(|link| {
                let clock = *lock(&link.clock);
                // An agent that does not answer any more has said all that it had to say.
                let drift = link.compare().map_or(Duration::ZERO, |later| clock.drift(&later));
                AgentState {
                    name: link.name.clone(),
                    clock,
                    drift,
                    machine: link.machine.clone(),
                }
            })
            .collect()
    }
}

impl Link {
    fn start(name: String, number: usize, machine: Machine, stream: TlsStream<TcpStream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (orders, ordered) = queue::unbounded_channel();
        let (pong, pongs) = mpsc::channel();
        let events = Arc::new(Mutex::new(None));
        tokio::spawn(speak(write, ordered));
        tokio::spawn(listen(read, number, events.clone(), pong));
        Self {
            name,
            number,
            machine,
            epoch: Instant::now(),
            orders,
            events,
            pongs: Mutex::new(pongs),
            clock: Mutex::new(Clock::default()),
        }
    }

    fn since_epoch(&self, at: Instant) -> i128 {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        match at.checked_duration_since(self.epoch) {
            Some(after) => nanos(after),
            None => -nanos(self.epoch.duration_since(at)),
        }
    }

    /// Asks the agent's clock some times; None where it does not answer.
    fn compare(&self) -> Option<Clock> {
        let pongs = lock(&self.pongs);
        let mut exchanges = Vec::new();
        for _ in 0..PINGS {
            let asked = Instant::now();
            self.orders.send(Order::Ping).ok()?;
            let pong = pongs.recv_timeout(PATIENCE).ok()?;
            exchanges.push(Exchange {
                asked: self.since_epoch(asked),
                answered: self.since_epoch(pong.answered),
                there: pong.monotonic,
                wall: pong.wall - pong.wall_here,
            });
        }
        Clock::of(&exchanges)
    }
}

fn with_port(host: &str) -> String {
    let bare_v6 = host.contains("::") && !host.starts_with('[');
    match host.rsplit_once(':') {
        _ if bare_v6 => format!("[{host}]:{DEFAULT_PORT}"),
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:{DEFAULT_PORT}"),
    }
}

async fn open(
    host: &str,
    connector: &TlsConnector,
    name: ServerName<'static>,
) -> Result<(TlsStream<TcpStream>, Machine), String> {
    let tcp = TcpStream::connect(host)
        .await
        .map_err(|error| format!("cannot be reached: {error}"))?;
    // The clocks are compared over it.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let refused = |error: std::io::Error| {
        format!("does not let this controller in, or is no agent: {error}; are both sides' keys of one set?")
    };
    let mut stream = connector.connect(name, tcp).await.map_err(refused)?;
    wire::send(&mut stream, &Order::Hello { version: VERSION })
        .await
        .map_err(refused)?;
    match wire::take(&mut stream).await.map_err(refused)? {
        Some(Word::Hello { version, machine }) if version == VERSION => Ok((stream, machine)),
        Some(Word::Hello { version, .. }) => Err(format!(
            "speaks version {version} of the protocol, this controller {VERSION}"
        )),
        _ => Err("does not answer as an agent".to_owned()),
    }
}

async fn speak(mut to: WriteHalf<TlsStream<TcpStream>>, mut orders: queue::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        // That the agent is gone is heard by who listens.
        if wire::send(&mut to, &order).await.is_err() {
            return;
        }
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
}

async fn listen(
    mut from: ReadHalf<TlsStream<TcpStream>>,
    number: usize,
    events: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
    pongs: mpsc::Sender<Pong>,
) {
    let tell = |event| {
        if let Some(events) = &*lock(&events) {
            let _ = events.send(event);
        }
    };
    let mut samples: Vec<Sample> = Vec::new();
    loop {
        let word = match wire::take(&mut from).await {
            Ok(Some(word)) => word,
            Ok(None) => return tell(Event::Lost(number, "it has gone".to_owned())),
            Err(error) => return tell(Event::Lost(number, format!("it cannot be heard any more: {error}"))),
        };
        match word {
            Word::Pong { monotonic, wall } => {
                let pong = Pong {
                    monotonic,
                    wall,
                    answered: Instant::now(),
                    wall_here: wall_nanos(),
                };
                let _ = pongs.send(pong);
            }
            Word::Connected => {
                samples.clear();
                tell(Event::Connected(Ok(())));
            }
            Word::Progress(counts) => tell(Event::Progress(number, counts)),
            Word::Done(sealed) => tell(Event::Done(sealed)),
            Word::Sample(kept) => match Kept::sample(kept) {
                Ok(sample) => samples.push(sample),
                Err(why) => tell(Event::Lost(number, why)),
            },
            Word::Finished {
                recorder,
                samples_dropped,
            } => {
                let finished = Finished {
                    recorder: *recorder,
                    samples: std::mem::take(&mut samples),
                    samples_dropped,
                };
                tell(Event::Finished(Some(number), Box::new(finished)));
            }
            Word::Failed(why) => tell(Event::Lost(number, why)),
            Word::Hello { .. } => {}
        }
    }
}

/// Nanoseconds since 1970.
pub(super) fn wall_nanos() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_port_gets_the_usual_one() {
        for (host, expected) in [
            ("load-1", "load-1:7470"),
            ("load-1:99", "load-1:99"),
            ("10.0.0.7", "10.0.0.7:7470"),
            ("::1", "[::1]:7470"),
            ("[::1]", "[::1]:7470"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(with_port(host), expected);
        }
    }
}
