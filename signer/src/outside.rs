//! Text that somebody else wrote: a caller's field or header, a name in a certificate, an identifier in a document.
//!
//! Comes in: any text at all. Goes out: one that may be told to somebody, logged or stored, since it is short and holds
//! nothing that changes how the text around it is read. Where such a text decides something it is compared whole, or refused
//! before; this is for saying it.

use std::{borrow::Cow, fmt};

/// Bytes of a text from outside that are shown: room for a UUID, a digest in hexadecimal, or a name in a certificate.
pub const LONGEST: usize = 128;

/// A text from outside, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside(Box<str>);

impl Outside {
    /// Cuts a text to [`LONGEST`] bytes, and puts U+FFFD in the place of what is no character for people.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(shown(text, LONGEST).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text of at most so many bytes: cut where it is longer, with an ellipsis in the place of its rest, and without what ends a
/// line or turns its direction.
pub(crate) fn shown(text: &str, most: usize) -> Cow<'_, str> {
    const ELLIPSIS: char = '…';
    let cut = if text.len() > most {
        let room = most.saturating_sub(ELLIPSIS.len_utf8());
        let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        Cow::Owned(format!("{}{ELLIPSIS}", &text[..end]))
    } else {
        Cow::Borrowed(text)
    };
    if !cut.contains(is_no_text) {
        return cut;
    }
    // U+FFFD is wider than what it replaces may be.
    let clean = cut.replace(is_no_text, "\u{fffd}");
    if clean.len() > most {
        return Cow::Owned(shown(&clean, most).into_owned());
    }
    Cow::Owned(clean)
}

/// Controls, line and paragraph separators, and what turns the direction of the text that follows (Unicode TR 36, 3.3.2).
fn is_no_text(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_it_is_where_it_is_short() {
        for text in ["", "TST2026000000001", "Şahin İnşaat", "x".repeat(LONGEST).as_str()] {
            assert_eq!(Outside::new(text).as_str(), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        for text in ["x".repeat(12_000_000), "ş".repeat(LONGEST), "𝒳".repeat(LONGEST)] {
            let shown = Outside::new(&text).to_string();
            assert!((LONGEST - 6..=LONGEST).contains(&shown.len()), "{}", shown.len());
            assert!(shown.ends_with('…') && text.starts_with(shown.trim_end_matches('…')));
        }
    }

    #[test]
    fn nothing_in_it_begins_a_line_or_turns_one_and_it_stays_short() {
        assert_eq!(
            Outside::new("a\r\nb\u{202e}c\u{85}").as_str(),
            "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"
        );
        assert!(Outside::new(&"\n".repeat(LONGEST)).as_str().len() <= LONGEST);
    }
}
