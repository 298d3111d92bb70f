//! The pool's front door.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use deadpool::Runtime;

use crate::config::{Config, TokenConfig};
use crate::dispatch::Dispatch;
use crate::driver::{Driver, driver};
use crate::error::{CkrError, OpenError, SignError};
use crate::exit;
use crate::health;
use crate::keys::{Key, KeyId};
use crate::lane::{LaneManager, LanePool};
use crate::latch::Latches;
use crate::module::lock;
use crate::queue::{Fifo, Queue, TokenMask};
use crate::shared::Shared;
use crate::slot::{Clock, Slot};
use crate::status::{self, Status};
use crate::supervisor::{self, Event, Supervisor};
use crate::table::Table;

/// Sessions on every configured token, ready to sign. Cheap to share behind an `Arc`; every method takes `&self`.
#[derive(Debug)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
    names: Vec<Arc<str>>,
}

impl Pool {
    /// Opens every token, finds its keys, opens its sessions, and proves it with a signature. Tokens that fail in a way that may pass are
    /// brought up later by themselves, as long as one is ready now.
    ///
    /// # Errors
    /// Where the configuration contradicts itself, a module cannot be loaded, or no token at all is ready; then with the first token's
    /// reason.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_with_queue(config, Box::new(Fifo::default())).await
    }

    /// As [`Pool::open`], with a queue that decides whose work a free lane gets.
    ///
    /// # Errors
    /// As [`Pool::open`].
    pub async fn open_with_queue(config: Config, queue: Box<dyn Queue>) -> Result<Self, OpenError> {
        validate(&config)?;
        let drivers = drivers(&config)?;
        let slots: Vec<_> = config
            .tokens
            .iter()
            .zip(drivers)
            .enumerate()
            .map(|(index, (token, driver))| Arc::new(Slot::new(index, token.clone(), driver)))
            .collect();
        let modules = supervisor::by_driver(&slots);
        let mut supervisors = vec![None; slots.len()];
        let mut inboxes = Vec::with_capacity(modules.len());
        for module in &modules {
            let (sender, inbox) = mpsc::channel();
            for slot in module {
                supervisors[slot.index] = Some(sender.clone());
            }
            inboxes.push(inbox);
        }
        let shared = Arc::new(Shared {
            dispatch: Mutex::new(Dispatch::new(queue, slots.len())),
            supervisors: supervisors
                .into_iter()
                .map(|s| s.expect("every slot belongs to one module"))
                .collect(),
            keys: Table::default(),
            found: tokio::sync::watch::Sender::new(0),
            clock: Clock::start(),
            queue_limit: config.queue_limit.max(1),
            runtime: tokio::runtime::Handle::current(),
            closing: AtomicBool::new(false),
            watched: AtomicU64::new(0),
            slots,
        });
        for slot in &shared.slots {
            let lanes = lane_pool(&shared, slot)?;
            slot.lanes
                .set(lanes)
                .map_err(|_| OpenError::Config("a slot has lanes already".into()))?;
        }
        let names = shared.slots.iter().map(|slot| Arc::clone(&slot.name)).collect();
        let pool = Self { names, shared };
        pool.start(modules, inboxes, &config.latches()).await?;
        Ok(pool)
    }

    /// Starts supervisors and watchdog, and waits for the first opening of every slot.
    async fn start(
        &self,
        modules: Vec<Vec<Arc<Slot>>>,
        inboxes: Vec<mpsc::Receiver<Event>>,
        latches: &Latches,
    ) -> Result<(), OpenError> {
        let refused = |name: &'static str| {
            move |cause| OpenError::Io {
                what: format!("starting the thread {name}"),
                cause,
            }
        };
        let watched = Arc::downgrade(&self.shared);
        // It calls no module, so nobody waits for it.
        std::thread::Builder::new()
            .name("token-watchdog".into())
            .spawn(move || health::watch(&watched))
            .map_err(refused("token-watchdog"))?;
        let (report, reports) = mpsc::channel();
        for (module, inbox) in modules.into_iter().zip(inboxes) {
            let supervisor = Supervisor::new(Arc::clone(&self.shared), module, latches.clone());
            let report = report.clone();
            exit::spawn("token-supervisor", move || supervisor.run(&inbox, report))
                .map_err(refused("token-supervisor"))?;
        }
        drop(report);
        let mut outcomes = tokio::task::spawn_blocking(move || reports.into_iter().collect::<Vec<_>>())
            .await
            .map_err(|e| OpenError::Io {
                what: "opening the tokens".into(),
                cause: std::io::Error::other(e),
            })?;
        // Where nothing is ready, a latch is what is told, whatever the others suffer from: who starts the service again and again must hear of it.
        outcomes.sort_by_key(|(slot, outcome)| (!matches!(outcome, Err(OpenError::Latched { .. })), *slot));
        let ready = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (slot, outcome) in outcomes {
            match outcome {
                Ok(()) => {}
                Err(error) if ready => {
                    tracing::error!(token = %self.names[slot], %error, "the token is not ready; the others are");
                }
                Err(error) => {
                    self.close().await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The keys of all tokens; the same public key on several tokens is one.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.shared.keys.list(&self.names)
    }

    /// Changes whenever something else is found on a token than before: when one comes that was away since the start, and when one
    /// was read again. Ask for it before [`Pool::keys`], so that nothing is missed between.
    #[must_use]
    pub fn discoveries(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.found.subscribe()
    }

    /// Why it is not known yet what some tokens hold; none where each was read at least once.
    #[must_use]
    pub fn unread(&self) -> Option<SignError> {
        let unread = self
            .shared
            .slots
            .iter()
            .filter(|slot| !slot.read.load(Ordering::Acquire));
        let mask = unread.fold(0, |mask, slot| mask | TokenMask::one(slot.index).0);
        (mask != 0).then(|| self.shared.unavailable(TokenMask(mask)))
    }

    /// Which tokens hold a key.
    #[must_use]
    pub fn tokens_of(&self, key: KeyId) -> TokenMask {
        self.shared
            .keys
            .get(key)
            .map_or(TokenMask::default(), |entry| entry.tokens())
    }

    /// What the pool tells of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        status::read(&self.shared)
    }

    /// Opens the PIN latch of a token and tries its PIN once.
    ///
    /// # Errors
    /// Where no token has that name.
    pub fn unlatch(&self, token: &str) -> Result<(), OpenError> {
        let slot = self.slot(token)?;
        let _ = self.shared.supervisors[slot].send(Event::Unlatch { slot });
        Ok(())
    }

    /// Looks for new keys and certificates on a token, while it signs.
    ///
    /// # Errors
    /// Where no token has that name, or it does not answer.
    pub async fn rediscover(&self, token: &str) -> Result<(), OpenError> {
        let slot = self.slot(token)?;
        let (done, answer) = tokio::sync::oneshot::channel();
        let _ = self.shared.supervisors[slot].send(Event::Rediscover { slot, done });
        let gone = CkrError {
            function: "C_FindObjects",
            code: cryptoki_sys::CKR_CRYPTOKI_NOT_INITIALIZED as u64,
        };
        answer.await.unwrap_or(Err(gone)).map_err(|error| OpenError::Token {
            token: token.to_owned(),
            error,
        })
    }

    /// [`Pool::rediscover`] for every token that signs; one that does not is read when it is back. What was found is in the log.
    pub async fn rediscover_all(&self) {
        let status = self.status();
        let there = status.tokens.iter().filter(|token| token.is_ready());
        for token in there {
            if let Err(error) = self.rediscover(&token.name).await {
                tracing::warn!(token = %token.name, %error, "the token could not be read again");
            }
        }
    }

    fn slot(&self, token: &str) -> Result<usize, OpenError> {
        self.names.iter().position(|name| **name == *token).ok_or_else(|| {
            OpenError::Config(format!(
                "no token is named {token:?}; there are {}",
                self.names.join(", ")
            ))
        })
    }

    /// Refuses what waits, lets what is being signed be answered, closes every session and ends the modules. To answer everything that was
    /// admitted, stop sending and wait for the answers first.
    pub async fn close(&self) {
        let stranded = self.shared.shut();
        for job in stranded {
            job.answer(Err(SignError::Closed));
        }
        let mut seen = HashSet::new();
        let mut ends = Vec::new();
        for slot in &self.shared.slots {
            if seen.insert(Arc::as_ptr(&slot.driver).cast::<()>() as usize) {
                let (done, end) = tokio::sync::oneshot::channel();
                let _ = self.shared.supervisors[slot.index].send(Event::Stop { done });
                ends.push(end);
            }
        }
        for end in ends {
            // A supervisor that is gone has nothing left to close.
            let _ = end.await;
        }
        self.shared.slots.iter().for_each(|slot| slot.lanes().close());
    }
}

impl Drop for Pool {
    /// Ends the threads in the background. [`Pool::close`] waits for them.
    fn drop(&mut self) {
        for job in self.shared.shut() {
            job.answer(Err(SignError::Closed));
        }
        let mut seen = HashSet::new();
        for slot in &self.shared.slots {
            if seen.insert(Arc::as_ptr(&slot.driver).cast::<()>() as usize) {
                let (done, _) = tokio::sync::oneshot::channel();
                let _ = self.shared.supervisors[slot.index].send(Event::Stop { done });
            }
        }
    }
}

impl Shared {
    fn shut(&self) -> Vec<crate::job::Job> {
        self.closing.store(true, Ordering::Release);
        let mut dispatch = lock(&self.dispatch);
        dispatch.closed = true;
        dispatch.drain()
    }
}

fn validate(config: &Config) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError::Config(why));
    if config.tokens.is_empty() {
        return refuse("there is no token; name at least one".into());
    }
    if config.tokens.len() > TokenMask::MAX {
        return refuse(format!(
            "{} tokens are more than {}",
            config.tokens.len(),
            TokenMask::MAX
        ));
    }
    let mut names = HashSet::new();
    for token in &config.tokens {
        let TokenConfig {
            name,
            sessions,
            call_budget,
            init_args,
            single_session,
            ..
        } = token;
        if !names.insert(name) {
            return refuse(format!("two tokens are named {name:?}"));
        }
        if *sessions == 0 {
            return refuse(format!("token {name:?}: sessions is 0; give at least 1"));
        }
        if *call_budget < Duration::from_millis(10) {
            return refuse(format!(
                "token {name:?}: a call_budget of {call_budget:?} would give up healthy calls"
            ));
        }
        if *init_args == crate::config::InitArgs::None && !*single_session {
            return refuse(format!(
                "token {name:?}: init_args = \"none\" tells the module that one thread calls; it goes with single_session"
            ));
        }
    }
    Ok(())
}

/// One driver per module, shared by its tokens.
fn drivers(config: &Config) -> Result<Vec<Arc<dyn Driver>>, OpenError> {
    let command = config.child_command.as_deref();
    config.tokens.iter().map(|token| driver(token, command)).collect()
}

fn lane_pool(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Result<LanePool, OpenError> {
    let budget = slot.config.call_budget;
    LanePool::builder(LaneManager {
        shared: Arc::downgrade(shared),
        slot: Arc::downgrade(slot),
    })
    .max_size(slot.config.sessions.max(1))
    .runtime(Runtime::Tokio1)
    // Only for the one that is being opened: requests take what is idle, and wait in the queue.
    .wait_timeout(Some(budget))
    .create_timeout(Some(budget))
    .recycle_timeout(Some(budget))
    .queue_mode(deadpool::managed::QueueMode::Lifo)
    .build()
    .map_err(|e| OpenError::Config(e.to_string()))
}
