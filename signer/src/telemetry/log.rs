//! Log lines, for people or for machines: which are written, how they look, and which way out they take.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter::FilterExt as _, filter::filter_fn, fmt, fmt::MakeWriter, layer::SubscriberExt as _,
    registry::LookupSpan, util::SubscriberInitExt as _,
};

use super::{
    outlet::{
        AUDIT, AuditFile, AuditSocket, Lines, Lost, MAIN, Outlet, Reserved, Rotation, Sink, StandardError, Status,
    },
    ration::Ration,
    recent::Keep,
};
use crate::config::{Audit, Log, LogFormat, WhenFull};

/// How long the end of the process waits for the log to be written.
const GOODBYE: Duration = Duration::from_secs(2);

/// As there is one log of the process, there are its ways out.
static OUTLETS: OnceLock<Outlets> = OnceLock::new();

#[derive(Debug)]
struct Outlets {
    main: Arc<Outlet>,
    /// That of the audit log, where it has one of its own.
    audit: Option<Arc<Outlet>>,
    /// Where each seal takes room for its line before it is made.
    before_a_seal: Option<Arc<Outlet>>,
}

impl Outlets {
    fn all(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        [&self.main].into_iter().chain(&self.audit)
    }
}

fn outlets() -> impl Iterator<Item = &'static Arc<Outlet>> {
    OUTLETS.get().into_iter().flat_map(Outlets::all)
}

/// Why the log cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It is said which lines are wanted, and that makes no sense.
    #[error("log filter \"{filter}\": {problem}")]
    Filter {
        /// As it was said.
        filter: String,
        /// Why.
        problem: tracing_subscriber::filter::ParseError,
    },
    /// The file of the audit log.
    #[error("log.audit.file: {}: {source}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No descriptor or no thread.
    #[error("log: {0}")]
    System(io::Error),
}

/// Writes where a panic was and nothing of what it said: its message may quote a document.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(location, thread, "panic");
    }));
}

/// Starts writing log lines to standard error, as a command does that has nothing to do beside. A second call changes nothing.
///
/// # Errors
/// Where the filter does not parse.
pub fn start_log(log: &Log, default_filter: &str) -> Result<(), LogError> {
    let registry = tracing_subscriber::registry()
        .with(filter(log, default_filter)?)
        .with(Keep);
    let layer = looking(log.format, io::stderr().is_terminal(), io::stderr);
    drop(registry.with(layer.with_filter(Ration::of_the_log())).try_init());
    Ok(())
}

/// Starts writing log lines as a service does, which must not wait for whoever reads them: on threads of their own, to standard
/// error and where the configuration wants the audit log. A second call changes nothing.
///
/// # Errors
/// Where the filter does not parse, or the file of the audit log cannot be opened.
pub fn start_service_log(log: &Log, default_filter: &str) -> Result<(), LogError> {
    let filter = filter(log, default_filter)?;
    let (most, blocks) = (
        usize::try_from(log.queue.as_u64()).unwrap_or(usize::MAX),
        log.when_full == WhenFull::Block,
    );
    let own = log.audit.as_ref().map(sink).transpose()?;
    let open = |name, sink, reserves| Outlet::open(name, sink, most, reserves).map_err(LogError::System);
    let standard_error = Box::new(StandardError::open().map_err(LogError::System)?);
    let main = open(MAIN, standard_error, blocks && own.is_none())?;
    let audit = own.map(|sink| open("audit", sink, blocks)).transpose()?;

    let terminal = io::stderr().is_terminal();
    let layer = looking(log.format, terminal, Lines(Arc::clone(&main)));
    let has_its_own = audit.is_some();
    let to_main = filter_fn(move |line| !(has_its_own && is_audit(line)));
    let to_audit = audit.as_ref().map(|audit| {
        let layer = looking(log.format, false, Lines(Arc::clone(audit)));
        layer.with_filter(filter_fn(is_audit).and(Ration::of_the_log()))
    });
    let layer = layer.with_filter(to_main.and(Ration::of_the_log()));
    let registry = tracing_subscriber::registry().with(filter).with(Keep);
    if registry.with(layer).with(to_audit).try_init().is_err() {
        return Ok(());
    }
    // Where no line of a seal is wanted, none needs room.
    let wanted = tracing::enabled!(target: AUDIT, Level::INFO);
    let before_a_seal = Some(audit.as_ref().unwrap_or(&main)).filter(|_| blocks && wanted);
    let outlets = Outlets {
        before_a_seal: before_a_seal.map(Arc::clone),
        main,
        audit,
    };
    drop(OUTLETS.set(outlets));
    Ok(())
}

fn filter(log: &Log, default: &str) -> Result<EnvFilter, LogError> {
    let filter = match std::env::var("MUHURDAR_LOG") {
        Ok(filter) => filter,
        Err(_) => log.filter.clone().unwrap_or_else(|| default.to_owned()),
    };
    // Who gives the audit log a place of its own wants all of it there.
    let all = log.audit.as_ref().map(|_| format!("{AUDIT}=info").parse());
    let parse = || match all {
        Some(all) => Ok(EnvFilter::try_new(&filter)?.add_directive(all?)),
        None => EnvFilter::try_new(&filter),
    };
    parse().map_err(|problem| LogError::Filter {
        filter: filter.clone(),
        problem,
    })
}

fn is_audit(line: &Metadata<'_>) -> bool {
    line.target() == AUDIT
}

/// Lines as they look, for a terminal or not.
fn looking<S, W>(format: LogFormat, terminal: bool, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let human = match format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let layer = fmt::layer().with_writer(to);
    if human {
        layer.with_ansi(terminal).with_target(false).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    }
}

/// What is wrong with a place for the audit log, as far as it can be told without making anything there.
pub(crate) fn audit_problem(log: &Log) -> Option<String> {
    let file = log.audit.as_ref()?.file.as_deref()?;
    let folder = file.parent().filter(|folder| !folder.is_dir())?;
    Some(format!("log.audit.file: there is no folder {}", folder.display()))
}

fn sink(audit: &Audit) -> Result<Box<dyn Sink>, LogError> {
    if let Some(path) = &audit.socket {
        return Ok(Box::new(AuditSocket::new(path.clone())));
    }
    let path = audit.file.clone().unwrap_or_default();
    let rotation = Rotation {
        size: Some(audit.rotate_size.as_u64()).filter(|size| *size > 0),
        daily: audit.rotate_daily,
        keep: audit.keep,
    };
    let opened = AuditFile::open(path.clone(), rotation);
    let opened = opened.map_err(|source| LogError::Audit { path, source })?;
    Ok(Box::new(opened))
}

/// Waits until every line is written, but not for long: who does not take them does not hold up the end. Answers whether all are.
pub fn flush_log() -> bool {
    static GIVEN_UP: OnceLock<()> = OnceLock::new();
    let until = if GIVEN_UP.get().is_some() {
        Instant::now()
    } else {
        Instant::now() + GOODBYE
    };
    // Each of them, although one is late.
    let written = outlets().filter(|outlet| !outlet.flush(until)).count() == 0;
    if !written {
        let _ = GIVEN_UP.set(());
    }
    written
}

/// Says, in whatever can still be written, how much could not be and is lost with the process.
pub fn give_up_log() {
    const LAST_WORDS: Duration = Duration::from_millis(300);
    for status in log_status().into_iter().filter(|status| status.queued > 0) {
        let error = status.error.as_deref().unwrap_or("nobody takes them");
        tracing::error!(
            log = status.name,
            bytes = status.queued,
            error,
            "lines of the log could not be written, and are lost"
        );
    }
    let until = Instant::now() + LAST_WORDS;
    for outlet in outlets() {
        outlet.flush(until);
    }
}

/// How each way out is; none in a process that does not serve.
pub(crate) fn log_status() -> Vec<Status> {
    outlets().map(|outlet| outlet.status()).collect()
}

/// What was lost of all of them.
pub(crate) fn lost_lines() -> Lost {
    outlets()
        .map(|outlet| outlet.status().lost)
        .fold(Lost::default(), Lost::and)
}

/// Says which of them nobody reads.
pub(super) fn tell_of_stalls() {
    outlets().for_each(|outlet| outlet.tell_of_a_stall());
}

/// Has the audit log's file opened anew at each SIGHUP. Not behind the reload that it asks for too: that may wait for a token.
pub(crate) async fn reopen_at_hangup() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP will not have the audit log opened anew");
            return;
        }
    };
    while hangup.recv().await.is_some() {
        outlets().for_each(|outlet| outlet.reopen());
    }
}

/// Room for the line of a seal; none where none is needed.
#[derive(Debug, Default)]
pub(crate) struct LineOfASeal {
    #[allow(dead_code, reason = "held for what dropping it gives back")]
    reserved: Option<Reserved>,
}

/// Takes room for the line of a seal that is to be made, where it must not be lost (`log.when_full = "block"`). None where there is no
/// room now.
pub(crate) fn line_of_a_seal() -> Option<LineOfASeal> {
    let Some(outlet) = OUTLETS.get().and_then(|outlets| outlets.before_a_seal.as_ref()) else {
        return Some(LineOfASeal::default());
    };
    outlet.try_reserve().map(|reserved| LineOfASeal {
        reserved: Some(reserved),
    })
}

/// The same, once there is some.
pub(crate) async fn line_of_a_seal_in_time() -> LineOfASeal {
    let reserved = match OUTLETS.get().and_then(|outlets| outlets.before_a_seal.as_ref()) {
        Some(outlet) => Some(outlet.reserve().await),
        None => None,
    };
    LineOfASeal { reserved }
}

/// Whether a seal that is made now would find room for its line, where it needs any.
pub(crate) fn takes_lines_of_seals() -> bool {
    let before_a_seal = OUTLETS.get().and_then(|outlets| outlets.before_a_seal.as_ref());
    before_a_seal.is_none_or(|outlet| outlet.has_room())
}
