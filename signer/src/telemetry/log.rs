//! Log lines, for people or for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{ration::Ration, recent::Keep};
use crate::config::{Log, LogFormat};

/// Writes where a panic was and nothing of what it said: its message may quote a document.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(location, thread, "panic");
    }));
}

/// Starts writing log lines to standard error. A second call changes nothing.
///
/// # Errors
/// Where the filter does not parse.
pub fn start_log(log: &Log, default_filter: &str) -> Result<(), String> {
    let filter = match std::env::var("MUHURDAR_LOG") {
        Ok(filter) => filter,
        Err(_) => log.filter.clone().unwrap_or_else(|| default_filter.to_owned()),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|e| format!("log filter \"{filter}\": {e}"))?;
    let terminal = std::io::stderr().is_terminal();
    let human = match log.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let registry = tracing_subscriber::registry().with(filter).with(Keep);
    let layer = fmt::layer().with_writer(std::io::stderr);
    let started = if human {
        let layer = layer.with_ansi(terminal).with_target(false);
        registry.with(layer.with_filter(Ration::of_the_log())).try_init()
    } else {
        let layer = layer.json().flatten_event(true);
        registry.with(layer.with_filter(Ration::of_the_log())).try_init()
    };
    drop(started);
    Ok(())
}
