//! The agent's side: it waits for a controller, does what that says, tells what it saw, and ends.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::WriteHalf,
    net::{TcpListener, TcpStream},
    sync::mpsc as queue,
    time::{self, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    KeyError,
    fleet::wall_nanos,
    keys,
    wire::{self, Kept, Order, VERSION, Word, Work},
};
use crate::{
    driver::{Crew, DriveError, Event, Finished, Progress, Stretch},
    machine::Machine,
};

const HANDSHAKE: Duration = Duration::from_secs(10);
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Why an agent cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Its address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// How an agent waits.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    /// Where it listens.
    pub listen: SocketAddr,
    /// It ends when no controller came for so long.
    pub idle: Duration,
    /// Whether it waits for the next controller when one has gone.
    pub stay: bool,
}

/// Serves controllers, one at a time. `said` is told where it listens and what happens.
///
/// # Errors
/// Where the keys cannot be used or the address cannot be had; not where a controller misbehaves.
pub fn serve(agent: Agent, keys: &Path, said: impl Fn(&str)) -> Result<(), AgentError> {
    let acceptor = keys::acceptor(keys)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let unheard = |error| AgentError::Listen(agent.listen, error);
        let listener = TcpListener::bind(agent.listen).await.map_err(unheard)?;
        said(&format!("agent listens on {}", listener.local_addr()?));
        let epoch = Instant::now();
        let mut until = time::Instant::now() + agent.idle;
        loop {
            let Ok(accepted) = time::timeout_at(until, listener.accept()).await else {
                said(&format!("no controller came within {:?}", agent.idle));
                return Ok(());
            };
            let Ok((tcp, from)) = accepted else { continue };
            let stream = match welcome(&acceptor, tcp).await {
                Ok(stream) => stream,
                // Whoever cannot show a controller's certificate does not put the end off.
                Err(why) => {
                    said(&format!("{from} was not let in: {why}"));
                    continue;
                }
            };
            said(&format!("controller at {from}"));
            let ended = Session::new(epoch).run(stream).await;
            said(&format!("controller at {from} has gone{ended}"));
            if !agent.stay {
                return Ok(());
            }
            until = time::Instant::now() + agent.idle;
        }
    })
}

async fn welcome(acceptor: &TlsAcceptor, tcp: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let words = |error: std::io::Error| error.to_string();
    let hello = async {
        tcp.set_nodelay(true).map_err(words)?;
        let mut stream = acceptor.accept(tcp).await.map_err(words)?;
        let Some(Order::Hello { version }) = wire::take(&mut stream).await.map_err(words)? else {
            return Err("does not speak as a controller".to_owned());
        };
        let hello = Word::Hello {
            version: VERSION,
            machine: Machine::read(),
        };
        wire::send(&mut stream, &hello).await.map_err(words)?;
        if version == VERSION {
            Ok(stream)
        } else {
            Err(format!(
                "speaks version {version} of the protocol, this agent {VERSION}"
            ))
        }
    };
    timeout(HANDSHAKE, hello)
        .await
        .unwrap_or_else(|_| Err("was too slow".to_owned()))
}

/// What is done for one controller.
struct Session {
    epoch: Instant,
    run: Option<Run>,
}

/// A run that is prepared or going on.
struct Run {
    crew: Crew,
    progress: Arc<Progress>,
    events: queue::UnboundedReceiver<Event>,
    /// Threads that have not yet said what is waited for.
    waiting: usize,
    done: Vec<u64>,
    finished: Option<Finished>,
}

impl Session {
    fn new(epoch: Instant) -> Self {
        Self { epoch, run: None }
    }

    /// Until the controller goes; says why, where that was not to be expected.
    async fn run(mut self, stream: TlsStream<TcpStream>) -> String {
        let (mut read, mut write) = tokio::io::split(stream);
        // A task of its own: taking a message cannot be broken off halfway.
        let (heard, mut orders) = queue::unbounded_channel();
        let listening = tokio::spawn(async move {
            while let Ok(Some(order)) = wire::take::<Order>(&mut read).await {
                if heard.send(order).is_err() {
                    return;
                }
            }
        });
        let mut tick = time::interval(PROGRESS_EVERY);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        let ended = loop {
            let said = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order, &mut write).await,
                    None => break String::new(),
                },
                event = next(&mut self.run) => self.pass_on(event, &mut write).await,
                _ = tick.tick(), if self.run.is_some() => self.tell_progress(&mut write).await,
            };
            if let Err(error) = said {
                break format!(": {error}");
            }
        };
        self.stop();
        listening.abort();
        ended
    }

    async fn obey(&mut self, order: Order, to: &mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()> {
        match order {
            Order::Ping => {
                let monotonic = i128::try_from(self.epoch.elapsed().as_nanos()).unwrap_or_default();
                let wall = wall_nanos();
                wire::send(to, &Word::Pong { monotonic, wall }).await
            }
            Order::Prepare(work) => {
                self.stop();
                match Run::start(&work) {
                    Ok(run) => {
                        self.run = Some(run);
                        Ok(())
                    }
                    Err(why) => wire::send(to, &Word::Failed(why)).await,
                }
            }
            Order::Stretch { first, segments, start } => {
                let Some(run) = &mut self.run else { return Ok(()) };
                let after = Duration::from_nanos(u64::try_from(start).unwrap_or_default());
                run.waiting = run.crew.len();
                run.done = vec![0; segments.len()];
                let ordered = run.crew.order(&Stretch {
                    first,
                    segments,
                    start: self.epoch + after,
                });
                match ordered {
                    Ok(()) => Ok(()),
                    Err(error) => self.give_up(&error, to).await,
                }
            }
            Order::Finish => {
                if let Some(run) = &mut self.run {
                    run.waiting = run.crew.len();
                    run.crew.dismiss();
                }
                Ok(())
            }
            Order::Stop => {
                self.stop();
                Ok(())
            }
            Order::Hello { .. } => Ok(()),
        }
    }

    /// What a worker says, said for all of them when the last has said it.
    async fn pass_on(&mut self, event: Event, to: &mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match event {
            Event::Connected(Err(error)) => return self.give_up(&error, to).await,
            Event::Connected(Ok(())) => {}
            Event::Done(sealed) => run.done.iter_mut().zip(sealed).for_each(|(sum, count)| *sum += count),
            Event::Finished(_, finished) => match &mut run.finished {
                None => run.finished = Some(*finished),
                Some(sum) => sum.merge(*finished),
            },
            Event::Progress(..) | Event::Lost(..) => return Ok(()),
        }
        run.waiting = run.waiting.saturating_sub(1);
        if run.waiting > 0 {
            return Ok(());
        }
        if let Some(finished) = run.finished.take() {
            self.run = None;
            for sample in &finished.samples {
                wire::send(to, &Word::Sample(Kept::of(sample))).await?;
            }
            let word = Word::Finished {
                recorder: Box::new(finished.recorder),
                samples_dropped: finished.samples_dropped,
            };
            return wire::send(to, &word).await;
        }
        if run.done.is_empty() {
            return wire::send(to, &Word::Connected).await;
        }
        self.tell_progress(to).await?;
        let done = self.run.as_mut().map(|run| std::mem::take(&mut run.done));
        wire::send(to, &Word::Done(done.unwrap_or_default())).await
    }

    async fn tell_progress(&mut self, to: &mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let (sealed, failed, in_flight) = run.progress.read();
        wire::send(to, &Word::Progress([sealed, failed, in_flight])).await
    }

    async fn give_up(&mut self, why: &DriveError, to: &mut WriteHalf<TlsStream<TcpStream>>) -> std::io::Result<()> {
        self.stop();
        wire::send(to, &Word::Failed(why.to_string())).await
    }

    /// Whatever runs sends nothing more; its threads end by themselves.
    fn stop(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.progress.give_up();
            run.crew.dismiss();
        }
    }
}

impl Run {
    fn start(work: &Work) -> Result<Self, String> {
        let setup = work.setup()?;
        let progress = Arc::new(Progress::default());
        let (report, reported) = mpsc::channel();
        let crew =
            Crew::start(&setup, &work.frame, work.part, &progress, &report).map_err(|error| error.to_string())?;
        drop(report);
        let (forward, events) = queue::unbounded_channel();
        let forwarding = thread::Builder::new().name("forward".into()).spawn(move || {
            for event in reported {
                if forward.send(event).is_err() {
                    return;
                }
            }
        });
        forwarding.map_err(|error| error.to_string())?;
        Ok(Self {
            waiting: crew.len(),
            crew,
            progress,
            events,
            done: Vec::new(),
            finished: None,
        })
    }
}

/// The next event of a run; never, where there is none or it has ended.
async fn next(run: &mut Option<Run>) -> Event {
    if let Some(run) = run
        && let Some(event) = run.events.recv().await
    {
        return event;
    }
    std::future::pending().await
}
