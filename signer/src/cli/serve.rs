//! `muhurdar serve`: the service.

use std::path::{Path, PathBuf};

use clap::Args;
use muhurdar_pool::{OpenError, exit as end};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, exit,
    signals::{self, Stop},
};
use crate::{
    appliance::{Appliance, StartError},
    config::Config,
    server::ServeError,
    telemetry::{self, LogError},
    tokens,
};

/// `muhurdar serve --config FILE`
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The configuration; deploy/muhurdar.toml shows every key
    #[arg(long, value_name = "FILE", env = "MUHURDAR_CONFIG")]
    config: PathBuf,
}

impl Serve {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let signals = signals::take().map_err(|e| Failure::io("signals", &e))?;
        let config = Config::load(&self.config).map_err(Failure::usage)?;
        serve(config, &self.config, "info", signals, |_| {})
    }
}

/// Serves until SIGTERM or SIGINT: at the first it answers what it has admitted, at the second it ends. One that comes during the start ends
/// that. `ready` is called once, when everything listens. The configuration was read from `source`, which is read again when it changes.
pub(super) fn serve(
    config: Config,
    source: &Path,
    log_filter: &str,
    (mut stop, hangup): (Stop, Signal),
    ready: impl FnOnce(&Appliance),
) -> Result<(), Failure> {
    // Before all else, since a process environment may only change while there is one thread.
    tokens::set_environment(&config).map_err(Failure::unavailable)?;
    telemetry::start_service_log(&config.log, log_filter).map_err(|error| match &error {
        LogError::Audit { source, .. } => Failure::new(exit::of_io(source), &error),
        LogError::System(_) => Failure::unavailable(&error),
        _ => Failure::usage(&error),
    })?;
    end::at_the_end(|| {
        if !telemetry::flush_log() {
            telemetry::give_up_log();
        }
    });
    telemetry::quiet_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.server.network_threads())
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Failure::io("runtime", &e))?;
    let outcome = runtime.block_on(async {
        tokio::spawn(telemetry::reopen_at_hangup());
        let starting = Box::pin(Appliance::start(config));
        let appliance = tokio::select! {
            biased;
            _ = stop.asked() => {
                tracing::info!("asked to end before everything was there: ending");
                return Ok(());
            }
            started = starting => started.map_err(|error| start_failure(&error))?,
        };
        let address = appliance.address().map_err(|e| Failure::io("listener", &e))?;
        let admin = appliance
            .admin_address()
            .map_err(|e| Failure::io("admin listener", &e))?;
        tracing::info!(%address, %admin, taxpayers = appliance.taxpayers(), "serving");
        ready(&appliance);
        let drain = CancellationToken::new();
        let running = Box::pin(appliance.run(drain.clone().cancelled_owned(), hangup, source));
        tokio::select! {
            () = running => Ok(()),
            signal = asked_twice(stop, drain) => {
                tracing::warn!("asked to end a second time: what is not answered is given up");
                Err(Failure::silent(signal))
            }
        }
    });
    // What still runs is given up: everything that was admitted has been answered, or its time is over.
    runtime.shutdown_background();
    // Who does not read the log would not read this either, and it would wait for ever.
    let read = telemetry::flush_log();
    outcome.map_err(|failure| if read { failure } else { Failure::silent(failure.code()) })
}

fn start_failure(error: &StartError) -> Failure {
    match error {
        StartError::Serve(ServeError::Listen { address, source }) => match source.kind() {
            std::io::ErrorKind::AddrInUse => Failure::unavailable(format_args!(
                "cannot listen on {address}: another process does; stop it, or choose another address"
            )),
            std::io::ErrorKind::PermissionDenied => Failure::new(exit::PERMISSION, error),
            _ => Failure::unavailable(error),
        },
        StartError::Serve(ServeError::Tls(_))
        | StartError::Tokens(_)
        | StartError::Certificates(_)
        | StartError::Trace(_)
        | StartError::Spool(_) => Failure::usage(error),
        // A supervisor that starts the service again and again must not spend the PIN's tries: the unit lists this code.
        StartError::Pool(OpenError::Latched { .. } | OpenError::Pin { .. }) => Failure::new(exit::PERMISSION, error),
        StartError::Pool(OpenError::Unwritable { cause, .. }) => Failure::new(exit::of_io(cause), error),
        _ => Failure::unavailable(error),
    }
}

/// Begins the drain when the process is asked to end, and is ready when it is asked again.
async fn asked_twice(mut stop: Stop, drain: CancellationToken) -> u8 {
    stop.asked().await;
    drain.cancel();
    stop.asked().await
}
