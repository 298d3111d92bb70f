//! The last warnings and errors of the log, for the status page: of each place in the code that warns, how often it did and
//! what it said last. So a flood of one does not wash away another, and there are never more than there are such places.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Bytes that are kept of what one says.
const LONGEST: usize = 400;

/// One place in the code that has warned.
#[derive(Debug, Clone)]
pub(crate) struct Warning {
    place: Identifier,
    /// WARN or ERROR.
    pub(crate) level: Level,
    /// When it did so last.
    pub(crate) at: Timestamp,
    /// How often.
    pub(crate) count: u64,
    /// What it said last.
    pub(crate) text: String,
}

/// As there is one log of the process, there is one memory of it.
static RECENT: Mutex<Vec<Warning>> = Mutex::new(Vec::new());

/// What has been warned of, the last first.
pub(crate) fn recent() -> Vec<Warning> {
    let mut warnings = RECENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    warnings.sort_by_key(|warning| std::cmp::Reverse(warning.at));
    warnings
}

/// Keeps warnings and errors as they pass.
#[derive(Debug)]
pub(super) struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        keep(metadata.callsite(), *metadata.level(), line.end());
    }
}

fn keep(place: Identifier, level: Level, text: String) {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = Timestamp::now();
    match recent.iter_mut().find(|known| known.place == place) {
        Some(known) => {
            (known.at, known.text) = (at, text);
            known.count += 1;
        }
        None => recent.push(Warning {
            place,
            level,
            at,
            count: 1,
            text,
        }),
    }
}

/// An event as a line: the message, then its fields.
#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn end(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        text
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a String cannot fail; a Debug that does has nothing to say.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn of(text: &str) -> Vec<Warning> {
        recent().into_iter().filter(|w| w.text.starts_with(text)).collect()
    }

    #[test]
    fn a_flood_of_one_warning_is_one_and_keeps_the_others() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Keep), || {
            tracing::error!(code = 7, "kept before the flood");
            for n in 0..1000 {
                tracing::warn!(n, token = "hsm-1", "kept, a flood");
            }
            tracing::info!("kept, not worth it");
        });
        let flood = of("kept, a flood");
        assert_eq!(flood.len(), 1);
        assert_eq!((flood[0].count, flood[0].level), (1000, Level::WARN));
        assert_eq!(flood[0].text, "kept, a flood n=999 token=hsm-1");
        assert_eq!(of("kept before the flood").len(), 1);
        assert!(of("kept, not worth it").is_empty());
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        let line = Line {
            message: "ş".repeat(LONGEST),
            fields: String::new(),
        };
        let text = line.end();
        assert!(text.len() <= LONGEST + '…'.len_utf8() && text.ends_with("ş…"), "{text}");
    }
}
