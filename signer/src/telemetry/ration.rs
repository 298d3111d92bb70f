//! So many lines of a kind in a minute, and then a count of those that were left out: what strangers, a client in a loop or a sick
//! token can cause a thousand times a second must neither fill the disk nor hide what else there is to read.
//!
//! A kind is a place in the code, and the token or client that the line names: one that floods does not hide another. It holds
//! for every line, whoever writes it, so that nobody has to remember it; but for those below INFO, which somebody has asked
//! for, and for the audit log's seals, of which none may be missing.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

use super::outlet::AUDIT;

/// Lines of a kind in a [`WINDOW`].
const LINES: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);
/// How often is looked for windows that are over.
const LOOK: Duration = Duration::from_secs(5);
/// Kinds at a time that are told apart by whom they name: certificates that nobody knows have names of their own choice.
const MOST_KINDS: usize = 2048;
/// Whose lines say what was left out.
const TARGET: &str = "muhurdar::left_out";

/// As there is one log of the process, there is one book of what it left out.
static BOOK: LazyLock<Book> = LazyLock::new(Book::default);

#[derive(Debug, Clone, Default)]
struct Book(Arc<Mutex<Rations>>);

/// Passes lines while their kind has some left.
#[derive(Debug)]
pub(super) struct Ration(Book);

impl Ration {
    /// For the log of the process.
    pub(super) fn of_the_log() -> Self {
        Self(BOOK.clone())
    }
}

impl<S: Subscriber> Filter<S> for Ration {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        is_free(event.metadata()) || self.0.open().take(event, Instant::now())
    }
}

/// Whether lines of this place are written without a ration.
fn is_free(of: &Metadata<'_>) -> bool {
    let level = *of.level();
    level > Level::INFO || of.target() == TARGET || (of.target() == AUDIT && level == Level::INFO)
}

/// Tells of what is left out, of each kind when its minute is over, and of what nobody reads, for as long as it is polled.
pub(crate) async fn tell_of_what_is_left_out() {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let left_out = BOOK.open().over(Instant::now());
        tell(left_out);
        super::log::tell_of_stalls();
    }
}

/// Tells of what was left out and not told of yet: the process ends.
pub(crate) fn tell_of_the_rest() {
    let left_out = BOOK.open().over(Instant::now() + WINDOW);
    tell(left_out);
}

fn tell(left_out: Vec<LeftOut>) {
    for LeftOut { level, count, line } in left_out {
        if level == Level::INFO {
            tracing::info!(target: TARGET, count, line, "more such lines in the last minute were left out");
        } else {
            tracing::warn!(target: TARGET, count, line, "more such lines in the last minute were left out");
        }
    }
}

impl Book {
    /// It is closed before a line is written: that is looked up here too.
    fn open(&self) -> MutexGuard<'_, Rations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the code, and the token or client that its line names.
type Kind = (Identifier, Option<String>);

#[derive(Debug, Default)]
struct Rations {
    windows: HashMap<Kind, Window>,
    /// By when each began; each of `windows` once.
    order: VecDeque<(Instant, Kind)>,
}

#[derive(Debug)]
struct Window {
    written: u32,
    left_out: u64,
    level: Level,
    /// What the last of those left out said, without its fields but whom it names.
    line: String,
}

/// What is told of a window that is over.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    level: Level,
    count: u64,
    line: String,
}

impl Rations {
    /// Whether this line may be written.
    fn take(&mut self, event: &Event<'_>, now: Instant) -> bool {
        let mut line = Line::default();
        event.record(&mut line);
        let place = event.metadata().callsite();
        let mut kind = (place.clone(), line.names);
        if self.windows.len() >= MOST_KINDS && !self.windows.contains_key(&kind) {
            kind = (place, None);
        }
        let window = self.windows.entry(kind.clone()).or_insert_with(|| {
            self.order.push_back((now, kind));
            Window {
                written: 0,
                left_out: 0,
                level: *event.metadata().level(),
                line: String::new(),
            }
        });
        if window.written < LINES {
            window.written += 1;
            return true;
        }
        window.left_out += 1;
        if window.left_out == 1 {
            window.line = line.message;
        }
        false
    }

    /// Forgets the windows that are over, and says what was left out in them.
    fn over(&mut self, now: Instant) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        while let Some((begun, _)) = self.order.front()
            && now.saturating_duration_since(*begun) >= WINDOW
        {
            let window = self.order.pop_front().and_then(|(_, kind)| {
                let window = self.windows.remove(&kind)?;
                Some((kind.1, window))
            });
            if let Some((names, window)) = window
                && window.left_out > 0
            {
                let names = names.map(|names| format!(" ({names})")).unwrap_or_default();
                left_out.push(LeftOut {
                    level: window.level,
                    count: window.left_out,
                    line: window.line + &names,
                });
            }
        }
        left_out
    }
}

/// What an event says, and whom it names.
#[derive(Debug, Default)]
struct Line {
    message: String,
    names: Option<String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a String cannot fail; a Debug that does has nothing to say.
        match field.name() {
            "message" => drop(write!(self.message, "{value:?}")),
            "token" | "client" => self.names = Some(format!("{} {value:?}", field.name())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _};

    use super::{super::recent::Keep, *};

    /// Rations of its own, and the messages that they let through.
    #[derive(Debug, Clone, Default)]
    struct Log {
        book: Book,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl<S: Subscriber> tracing_subscriber::Layer<S> for Log {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.lines.lock().unwrap().push(line.message);
        }
    }

    impl Log {
        fn of(work: impl FnOnce()) -> Self {
            let log = Self::default();
            let layer = log.clone().with_filter(Ration(log.book.clone()));
            let registry = tracing_subscriber::registry().with(EnvFilter::new("debug"));
            tracing::subscriber::with_default(registry.with(Keep).with(layer), work);
            log
        }

        fn written(&self, message: &str) -> usize {
            self.lines
                .lock()
                .unwrap()
                .iter()
                .filter(|line| *line == message)
                .count()
        }

        fn over(&self, after: Duration) -> Vec<LeftOut> {
            self.book.open().over(Instant::now() + after)
        }
    }

    #[test]
    fn a_flood_is_a_few_lines_and_a_count_when_its_minute_is_over() {
        let log = Log::of(|| {
            for n in 0..1000 {
                tracing::info!(n, "somebody knocks");
            }
            tracing::warn!("something else");
        });
        assert_eq!(log.written("somebody knocks"), LINES as usize);
        assert_eq!(log.written("something else"), 1);
        assert_eq!(log.over(Duration::ZERO), [], "not yet");
        let said = LeftOut {
            level: Level::INFO,
            count: 1000 - u64::from(LINES),
            line: "somebody knocks".to_owned(),
        };
        assert_eq!(log.over(WINDOW), [said]);
        assert_eq!(log.over(WINDOW), [], "once");
        assert!(log.book.open().windows.is_empty(), "and is forgotten");
    }

    #[test]
    fn one_token_that_fails_again_and_again_does_not_hide_another() {
        let fails = |token: &str| tracing::warn!(token, "signing failed");
        let log = Log::of(|| {
            (0..1000).for_each(|_| fails("sick"));
            fails("well until now");
        });
        assert_eq!(log.written("signing failed"), LINES as usize + 1);
        let told = log.over(WINDOW);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].line, "signing failed (token sick)");
    }

    #[test]
    fn names_that_strangers_choose_take_no_more_memory_than_they_may() {
        let log = Log::of(|| {
            for n in 0..MOST_KINDS + 1000 {
                tracing::warn!(client = %n, "refused");
            }
        });
        assert!(log.book.open().windows.len() <= MOST_KINDS + 1);
        assert_eq!(log.written("refused"), MOST_KINDS + LINES as usize);
    }

    #[test]
    fn no_seal_is_left_out_of_the_audit_log_and_nothing_that_was_asked_for() {
        let log = Log::of(|| {
            for _ in 0..500 {
                tracing::info!(target: AUDIT, "sealed");
                tracing::debug!("in detail");
                tracing::warn!(target: AUDIT, "denied");
            }
        });
        assert_eq!((log.written("sealed"), log.written("in detail")), (500, 500));
        assert_eq!(log.written("denied"), LINES as usize);
    }
}
