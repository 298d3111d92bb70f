//! The life of the process: open the tokens, learn the seals, listen, serve, drain.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use muhurdar_pool::Pool;
use tokio::{
    signal::unix::Signal,
    sync::watch,
    time::{Instant, MissedTickBehavior, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Door, Gate},
    catalogue::{self, Catalogue},
    compute::Compute,
    config::{Config, RsaMechanism},
    idempotency::{Idempotency, Memory},
    notify::Notifier,
    pace::Watch,
    pipeline::{Large, Pipeline, Rules},
    reload::{self, Reloader},
    seals,
    server::{Health, Live, ServeError, Server, admin::Admin},
    telemetry::{self, Metrics},
    tokens,
    trace::{Recorder, TraceError},
    turns::Turns,
};

/// How long each of what is closed at the end may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

/// A service that listens but does not serve yet.
#[derive(Debug)]
pub struct Appliance {
    pipeline: Arc<Pipeline>,
    server: Server,
    admin: Admin,
    config: Config,
    found: watch::Receiver<u64>,
}

/// Why the appliance cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A token, a PIN or a module.
    #[error(transparent)]
    Pool(#[from] muhurdar_pool::OpenError),
    /// The token part of the configuration.
    #[error(transparent)]
    Tokens(#[from] tokens::TokenConfigError),
    /// An address or a certificate of the listeners.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The folder of certificates.
    #[error(transparent)]
    Certificates(#[from] crate::credentials::CredentialError),
    /// Threads.
    #[error("no thread to digest on: {0}")]
    Threads(std::io::Error),
    /// The folder for large documents.
    #[error("server.spool_dir: no file can be made in {0}")]
    Spool(std::io::Error),
    /// The collector of traces.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Appliance {
    /// Binds the listeners, then opens the tokens: a port that is taken is known before a PIN is used.
    ///
    /// # Errors
    /// Where anything of that does not work.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        for open in config.open_secrets() {
            tracing::warn!("{open}");
        }
        let server = Server::bind(config.clone()).await?;
        let admin = Admin::bind(config.server.admin_listen).await?;
        let extra = match &config.sealing.certificates {
            Some(folder) => seals::read_certificates(folder)?,
            None => Vec::new(),
        };
        let pool = Pool::open_with_queue(tokens::pool_config(&config)?, Box::new(Turns::default())).await?;
        let found = pool.discoveries();
        let seals = Catalogue::new(&pool, extra);
        if seals.load().is_empty() {
            tracing::warn!("no token holds a seal: a key with a certificate whose subject has a VKN or TCKN");
        }
        let metrics = Metrics::new()?;
        let gate = Gate::new(&config.limits);
        let pipeline = Arc::new(Pipeline {
            door: Door::new(
                Arc::clone(&gate),
                &config.limits,
                Watch::default().look(&pool),
                metrics.door(),
            ),
            gate,
            answers: Idempotency::new(Box::new(Memory::new(&config.idempotency))),
            seals,
            pool,
            compute: Compute::new(config.sealing.digest_threads(), metrics.digest_batches())
                .map_err(StartError::Threads)?,
            metrics,
            recorder: Recorder::new(&config)?,
            large: Large::new(&config).map_err(StartError::Spool)?,
            rules: ArcSwap::from_pointee(Rules::new(&config)),
            tokens_hash: config.tokens.iter().any(|t| t.rsa_mechanism == RsaMechanism::ShaPkcs),
        });
        Ok(Self {
            pipeline,
            server,
            admin,
            config,
            found,
        })
    }

    /// Where gRPC is served.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.server.address()
    }

    /// Where metrics and probes are served.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.address()
    }

    /// Taxpayers that have a seal.
    #[must_use]
    pub fn taxpayers(&self) -> usize {
        self.pipeline.seals.load().len()
    }

    /// Serves until `stop` is ready, and takes over what changes in the file `source`, where `hangup` (SIGHUP) says so too; then admits
    /// nothing more, answers everything admitted, and returns when its answers were read. What is not read within the drain time-out is
    /// given up.
    pub async fn run(self, stop: impl Future<Output = ()>, hangup: Signal, source: &Path) {
        let Self {
            pipeline,
            server,
            admin,
            config,
            found,
        } = self;
        let drain_timeout = config.server.drain_timeout;
        let (health, notifier) = (server.health(), Notifier::start());
        let (end, admin_end) = (CancellationToken::new(), CancellationToken::new());
        let live = server.live();
        let reloader = Reloader::new(source.to_owned(), config, Arc::clone(&pipeline), server.live());
        tokio::spawn(reload::watch(reloader, notifier.clone(), hangup, end.clone()));
        let admin = tokio::spawn(admin.serve(
            Arc::clone(&pipeline),
            server.live(),
            admin_end.clone().cancelled_owned(),
        ));
        let mut serving = tokio::spawn(server.serve(Arc::clone(&pipeline), end.clone()));
        tokio::spawn(catalogue::follow(Arc::clone(&pipeline), found, end.clone()));
        tokio::spawn(watch_trust(live, end.clone()));
        let looking = watch_readiness(Arc::clone(&pipeline), health.clone(), notifier.clone(), end.clone());
        let readiness = tokio::spawn(looking);
        tokio::spawn(keep_alive(Arc::clone(&pipeline), notifier.clone()));
        let telling = tokio::spawn(telemetry::tell_of_what_is_left_out());

        tokio::select! {
            () = stop => {}
            // Only a panic ends it by itself; the panic hook has written it.
            _ = &mut serving => return,
        }
        let give_up = Instant::now() + drain_timeout;
        let gate = &pipeline.gate;
        let (in_flight, unanswered, unread_bytes) = (gate.in_flight(), gate.calls(), gate.unread().bytes());
        tracing::info!(in_flight, unanswered, unread_bytes, "draining");
        notifier.stopping(draining(&pipeline));
        health.set(false).await;
        gate.close();
        drop(timeout_at(give_up, gate.drained()).await);
        // Nothing is in work any more, but an answer counts when it was delivered: each connection stays until its peer has
        // read what it asked for.
        end.cancel();
        if timeout_at(give_up, &mut serving).await.is_err() {
            let (in_flight, unanswered, unread_bytes) = (gate.in_flight(), gate.calls(), gate.unread().bytes());
            tracing::warn!(
                in_flight,
                unanswered,
                unread_bytes,
                ?drain_timeout,
                "drain time-out: giving up the rest"
            );
            serving.abort();
        }
        admin_end.cancel();
        drop(tokio::time::timeout(GOODBYE, admin).await);
        drop(readiness.await);
        // The process must not end while a thread is inside the module: a library whose destructors run under a call of
        // its own crashes (seen with SoftHSM2). A call that hangs is not waited for.
        drop(tokio::time::timeout(GOODBYE, pipeline.pool.close()).await);
        let recorder = Arc::clone(&pipeline.recorder);
        drop(tokio::time::timeout(GOODBYE, tokio::task::spawn_blocking(move || recorder.close())).await);
        telling.abort();
        telemetry::tell_of_the_rest();
        tracing::info!("drained");
    }
}

/// Says, once for each set of TLS files, that one of them has run out: they were good when they were read.
async fn watch_trust(live: Arc<Live>, end: CancellationToken) {
    let mut said = None;
    while !end.is_cancelled() {
        live.trust().warn_of_what_has_run_out(&mut said, SystemTime::now());
        tokio::select! {
            () = tokio::time::sleep(READINESS_INTERVAL) => {}
            () = end.cancelled() => {}
        }
    }
}

async fn watch_readiness(pipeline: Arc<Pipeline>, health: Health, notifier: Notifier, end: CancellationToken) {
    let (mut last, mut said, mut pace) = (None, String::new(), Watch::default());
    while !end.is_cancelled() {
        let ready = pipeline.readiness();
        pipeline.door.set_pace(pace.look(&pipeline.pool));
        if last != Some(ready.is_ok()) {
            health.set(ready.is_ok()).await;
            match ready {
                Ok(()) => tracing::info!("ready"),
                Err(why) => tracing::warn!(why = why.trim_end(), "not ready"),
            }
            last = Some(ready.is_ok());
        }
        let status = in_a_line(&pipeline, ready);
        if status != said {
            said.clone_from(&status);
            if ready.is_ok() {
                notifier.ready(status);
            } else {
                notifier.status(status);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(READINESS_INTERVAL) => {}
            () = end.cancelled() => {}
        }
    }
}

/// How the service is, for people who ask the service manager.
fn in_a_line(pipeline: &Pipeline, ready: Result<(), &'static str>) -> String {
    if pipeline.gate.is_closed() {
        return draining(pipeline);
    }
    if let Err(why) = ready {
        return format!("not ready: {}", why.trim_end());
    }
    let tokens = pipeline.pool.status().tokens;
    let signing = tokens.iter().filter(|t| t.is_ready()).count();
    format!(
        "ready: {signing} of {} tokens sign, for {} taxpayers",
        tokens.len(),
        pipeline.seals.load().len()
    )
}

fn draining(pipeline: &Pipeline) -> String {
    format!("draining: {} calls are to be answered", pipeline.gate.calls())
}

/// Gives the service manager its sign of life for as long as there is life: this task runs only where the runtime turns,
/// and it is silent where nobody watches the tokens' calls any more, since then a call that hangs would hang for ever.
async fn keep_alive(pipeline: Arc<Pipeline>, notifier: Notifier) {
    let Some(pace) = notifier.pace() else { return };
    let mut beats = tokio::time::interval(pace);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let silence = pipeline.pool.status().watchdog_silence;
        if silence < pace {
            notifier.alive();
        } else {
            tracing::error!(
                ?silence,
                "nobody watches the tokens' calls; the service manager gets no sign of life"
            );
        }
    }
}
