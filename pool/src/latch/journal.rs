//! What happened to one token's PIN, a line for each event. Lines are only ever added, so that a machine that stops in the middle of
//! writing one leaves the word before it in force, and never none.

use serde::{Deserialize, Serialize};

use crate::driver::TokenFacts;

/// Which token it is, whatever it is called and wherever it is plugged in: the serial number is the manufacturer's own, so two
/// manufacturers may both have a "1" (PKCS#11 3.1, section 3.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    serial: String,
    manufacturer: String,
    model: String,
    label: String,
}

impl Identity {
    pub(crate) fn of(facts: &TokenFacts) -> Self {
        Self {
            serial: facts.serial.clone(),
            manufacturer: facts.manufacturer.clone(),
            model: facts.model.clone(),
            label: facts.label.clone(),
        }
    }

    /// The name of its file. Of the label only where there is no serial number: a label can be changed.
    pub(crate) fn file_name(&self) -> String {
        let Self {
            serial,
            manufacturer,
            model,
            label,
        } = self;
        let own = if serial.is_empty() { label } else { serial };
        let whole = [serial.as_str(), manufacturer, model, own].join("\0");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_bytes());
        format!(
            "pin-{}-{}.latch",
            super::safe(own),
            crate::keys::hex(&digest.as_ref()[..8])
        )
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "\"{}\", serial {}, {} {}",
            self.label, self.serial, self.manufacturer, self.model
        )
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) at: jiff::Timestamp,
    pub(super) pid: u32,
    /// The name by which it was configured then.
    pub(super) token: String,
    #[serde(flatten)]
    pub(super) of: Identity,
    pub(super) deed: Deed,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Deed {
    /// `C_Login` is about to be called.
    Tries,
    /// It was called, and the token went away meanwhile.
    Interrupted,
    /// It must not be called again.
    Latched,
    /// It was not called, under a name that is new here.
    Refused,
    /// An operator's word: it may be called once, even where one try is left.
    Unlatched,
}

/// What its last word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing stands in the way.
    Free,
    /// A process is inside `C_Login`, or ended there.
    Tries { pid: u32, at: jiff::Timestamp },
    /// The last try did not come to its end.
    Interrupted,
    /// Why it must not be tried.
    Latched(String),
    /// An operator allows one try.
    Allowed,
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) lines: Vec<Line>,
    /// A line that is whole and makes no sense.
    damaged: bool,
}

impl Journal {
    pub(super) fn of(lines: Vec<Line>) -> Self {
        Self { lines, damaged: false }
    }

    /// Reads what was written, and answers how much of it is whole.
    pub(super) fn parse(text: &[u8]) -> (Self, usize) {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut journal = Self::default();
        for line in text[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(line) => journal.lines.push(line),
                Err(_) => journal.damaged = true,
            }
        }
        (journal, whole)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && !self.damaged
    }

    pub(super) fn state(&self) -> State {
        if self.damaged {
            return State::Latched("it cannot be read; see that the PIN is right, then remove it".into());
        }
        let word = self.lines.iter().rev().find(|line| line.deed != Deed::Refused);
        word.map_or(State::Free, |line| match line.deed {
            Deed::Tries => State::Tries {
                pid: line.pid,
                at: line.at,
            },
            Deed::Interrupted => State::Interrupted,
            Deed::Unlatched => State::Allowed,
            Deed::Latched | Deed::Refused => State::Latched(format!("{}, at {:.0}", line.why, line.at)),
        })
    }

    /// Whether an operator may mean it by this name.
    /// Whether a line of it cannot be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        self.lines.iter().any(|line| line.token == token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(serial: &str, manufacturer: &str, label: &str) -> Identity {
        Identity {
            serial: serial.into(),
            manufacturer: manufacturer.into(),
            model: "m".into(),
            label: label.into(),
        }
    }

    fn line(deed: Deed) -> Vec<u8> {
        let line = Line {
            at: jiff::Timestamp::UNIX_EPOCH,
            pid: 7,
            token: "hsm".into(),
            of: identity("1", "a", "l"),
            deed,
            why: "CKR_PIN_INCORRECT".into(),
        };
        let mut text = serde_json::to_vec(&line).unwrap();
        text.push(b'\n');
        text
    }

    #[test]
    fn a_token_is_its_serial_number_and_who_gave_it() {
        let one = identity("1", "a", "x").file_name();
        assert_eq!(one, identity("1", "a", "renamed").file_name());
        for other in [
            identity("1", "b", "x"),
            identity("2", "a", "x"),
            identity("", "a", "1"),
            identity("", "a", "x"),
        ] {
            assert_ne!(one, other.file_name(), "{other}");
        }
        assert_ne!(identity("", "a", "x").file_name(), identity("", "a", "y").file_name());
        let odd = identity("../../etc/a b\u{130}", "a", "x").file_name();
        assert!(
            odd.starts_with("pin-______etc_a_b_-") && odd.ends_with(".latch"),
            "{odd}"
        );
    }

    #[test]
    fn the_last_whole_line_holds_wherever_the_machine_stopped() {
        let (tries, latched, unlatched) = (line(Deed::Tries), line(Deed::Latched), line(Deed::Unlatched));
        let text = [tries.clone(), latched.clone(), unlatched].concat();
        for end in 0..=text.len() {
            let (journal, whole) = Journal::parse(&text[..end]);
            let state = journal.state();
            let as_expected = match end {
                n if n < tries.len() => state == State::Free && whole == 0,
                n if n < tries.len() + latched.len() => matches!(state, State::Tries { pid: 7, .. }),
                n if n < text.len() => matches!(&state, State::Latched(why) if why.contains("PIN_INCORRECT")),
                _ => state == State::Allowed,
            };
            assert!(as_expected, "{end}: {state:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_token_and_changes_nothing() {
        let (journal, _) = Journal::parse(&[line(Deed::Latched), line(Deed::Refused)].concat());
        assert!(matches!(journal.state(), State::Latched(_)));
        assert!(journal.knows("hsm") && !journal.knows("other"));
    }

    #[test]
    fn what_cannot_be_read_is_a_latch() {
        for text in [&b"\xff\xfe\n"[..], b"{}\n", b"latched\n"] {
            let (journal, _) = Journal::parse(text);
            assert!(matches!(journal.state(), State::Latched(_)));
            assert!(!journal.is_empty());
        }
    }
}
