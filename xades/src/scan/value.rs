//! Attribute values: scanned, normalized (XML 1.0, section 3.3.3), and kept where they stand if they need no rewriting.

use std::ops::Range;

use crate::error::{Fault, Label, Reason};
use crate::limits::Limits;

use super::chars::{self, SPACE};
use super::data::allowed;
use super::event::Span;
use super::reference::{self, Reference};
use super::simd::{Scalar, Search};

/// A value that was read.
pub(super) struct Value {
    /// In the window, or in the scratch buffer where `stored`.
    pub(super) range: Range<usize>,
    pub(super) stored: bool,
    /// Nothing in it is escaped in canonical XML.
    pub(super) plain: bool,
    /// `="` directly behind the name, and nothing that canonical XML writes differently.
    pub(super) tidy: bool,
}

/// Reads `="…"` behind a name, and says where it ends. `None` where it goes on beyond the window.
#[inline(always)]
pub(super) fn parse<S: Search>(
    s: &mut S,
    b: &[u8],
    name: Span,
    limits: &Limits,
    scratch: &mut Vec<u8>,
) -> Result<Option<(Value, usize)>, Fault> {
    let open = match b.get(name.end..) {
        Some([b'=', b'"', ..]) => name.end + 1,
        _ => match opening(b, name)? {
            None => return Ok(None),
            Some(open) => open,
        },
    };
    let quote = b[open];
    let tidy = quote == b'"' && open == name.end + 1;
    let begin = open + 1;
    let end = s.value_break(begin);
    let too_long = |end: usize| end - begin > limits.attribute_value as usize;
    if b.get(end) == Some(&quote) && !too_long(end) {
        return Ok(Some((
            Value {
                range: begin..end,
                stored: false,
                plain: true,
                tidy,
            },
            end + 1,
        )));
    }
    rewrite(b, name, begin, end, quote, limits, scratch).map(|value| {
        value.map(|(mut value, end)| {
            value.tidy &= tidy;
            (value, end)
        })
    })
}

/// Where the quotation mark stands that opens the value of the attribute with this name, white space around `=` or not.
/// `None` where it stands beyond the window.
#[cold]
fn opening(b: &[u8], name: Span) -> Result<Option<usize>, Fault> {
    let label = || Label::new(&b[name.start..name.end]);
    let equals = chars::skip(b, name.end, SPACE);
    match b.get(equals) {
        None => return Ok(None),
        Some(b'=') => {}
        Some(_) => return Err(Fault::new(equals, Reason::AttributeValue { name: label() })),
    }
    let open = chars::skip(b, equals + 1, SPACE);
    match b.get(open) {
        None => Ok(None),
        Some(b'"' | b'\'') => Ok(Some(open)),
        Some(_) => Err(Fault::new(open, Reason::AttributeValue { name: label() })),
    }
}

/// The slow way: a value with references, white space or quotes in it, from its first such byte on.
#[cold]
fn rewrite(
    b: &[u8],
    name: Span,
    begin: usize,
    mut at: usize,
    quote: u8,
    limits: &Limits,
    scratch: &mut Vec<u8>,
) -> Result<Option<(Value, usize)>, Fault> {
    let stored = scratch.len();
    let mut copied = begin;
    // Whether canonical XML writes what is read so far just as it stands.
    let mut tidy = true;
    loop {
        if at - begin > limits.attribute_value as usize {
            let limit = limits.attribute_value.into();
            return Err(Fault::new(
                begin,
                Reason::Limit {
                    what: "an attribute value",
                    limit,
                },
            ));
        }
        let Some(&byte) = b.get(at) else { return Ok(None) };
        match byte {
            b'"' | b'\'' if byte == quote => break,
            b'"' | b'\'' => at += 1,
            b'<' => {
                let name = Label::new(&b[name.start..name.end]);
                return Err(Fault::new(at, Reason::LessThanInAttribute { name }));
            }
            b'&' => match reference::parse(b, at, limits.name as usize)? {
                Reference::Short => return Ok(None),
                Reference::Complete { character, end } => {
                    scratch.extend_from_slice(&b[copied..at]);
                    scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    tidy &= matches!(&b[at..end], b"&amp;" | b"&lt;" | b"&quot;");
                    (at, copied) = (end, end);
                }
            },
            b'\t' | b'\n' | b'\r' => {
                scratch.extend_from_slice(&b[copied..at]);
                if byte == b'\r' {
                    match b.get(at + 1) {
                        None => return Ok(None),
                        // CR LF is one line end, and so one space.
                        Some(b'\n') => at += 1,
                        Some(_) => {}
                    }
                }
                scratch.push(b' ');
                tidy = false;
                at += 1;
                copied = at;
            }
            _ => at = allowed(b, at)?,
        }
        at = Scalar(b).value_break(at);
    }
    let value = if copied == begin {
        Value {
            range: begin..at,
            stored: false,
            plain: false,
            tidy,
        }
    } else {
        scratch.extend_from_slice(&b[copied..at]);
        Value {
            range: stored..scratch.len(),
            stored: true,
            plain: false,
            tidy,
        }
    };
    Ok(Some((value, at + 1)))
}
