//! Character references and the five predefined entities (XML 1.0, sections 4.1 and 4.6).

use crate::error::{Fault, Label, Reason};

use super::chars::{self, NAME};

/// A reference that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    /// It goes on beyond the window.
    Short,
    Complete {
        /// What it stands for.
        character: char,
        /// Behind the `;`.
        end: usize,
    },
}

/// Reads the reference at the `&` at `at`. It may be at most `longest` bytes long.
pub(super) fn parse(b: &[u8], at: usize, longest: usize) -> Result<Reference, Fault> {
    let begin = at + 1;
    let (numeric, begin) = if b.get(begin) == Some(&b'#') {
        (true, begin + 1)
    } else {
        (false, begin)
    };
    let end = chars::skip(b, begin, NAME);
    if end - at > longest {
        return Err(Fault::new(
            at,
            Reason::Limit {
                what: "a reference",
                limit: longest as u64,
            },
        ));
    }
    let body = &b[begin..end];
    match b.get(end) {
        None => return Ok(Reference::Short),
        Some(b';') => {}
        Some(_) => {
            return Err(Fault::new(
                at,
                if numeric {
                    Reason::CharacterReference
                } else {
                    Reason::Reference
                },
            ));
        }
    }
    let character = if numeric {
        number(body).ok_or_else(|| Fault::new(at, Reason::CharacterReference))?
    } else {
        match body {
            b"lt" => '<',
            b"gt" => '>',
            b"amp" => '&',
            b"quot" => '"',
            b"apos" => '\'',
            b"" => return Err(Fault::new(at, Reason::Reference)),
            name => return Err(Fault::new(at, Reason::Entity { name: Label::new(name) })),
        }
    };
    Ok(Reference::Complete {
        character,
        end: end + 1,
    })
}

/// The character that decimal digits, or `x` and hexadecimal digits, stand for.
fn number(body: &[u8]) -> Option<char> {
    let (digits, radix) = match body {
        [b'x', digits @ ..] => (digits, 16),
        digits => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    let mut code = 0u32;
    for &digit in digits {
        let digit = char::from(digit).to_digit(radix)?;
        // Beyond the last code point it stays beyond: no overflow however many digits follow.
        code = (code * radix + digit).min(0x0011_0000);
    }
    char::from_u32(code).filter(|_| chars::is_char(code))
}
