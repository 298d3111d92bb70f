//! The XML declaration (XML 1.0, productions \[23\] to \[26\], \[32\], \[80\] and \[81\]).

use crate::error::{Fault, Label, Reason};

use super::chars::{self, SPACE};

/// No XML declaration is longer, in bytes.
pub(crate) const LONGEST: usize = 1024;

/// Checks a declaration, `<?xml` to `?>`, and gives the encoding that it declares.
pub(super) fn parse(declaration: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let mut fields = Fields {
        bytes: declaration,
        at: 5,
        end: declaration.len() - 2,
    };
    let version = fields
        .take(b"version")?
        .ok_or_else(|| Fault::new(5, Reason::Declaration))?;
    if version != b"1.0" {
        // VersionNum is '1.' [0-9]+ in the fifth edition, but processors of version 1.0 differ in what they make of it.
        return Err(Fault::new(
            5,
            Reason::Version {
                version: Label::new(version),
            },
        ));
    }
    let encoding = fields.take(b"encoding")?;
    if let Some(name) = encoding {
        let ok = name.first().is_some_and(u8::is_ascii_alphabetic)
            && name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !ok {
            return Err(Fault::new(fields.at, Reason::Declaration));
        }
    }
    if fields
        .take(b"standalone")?
        .is_some_and(|standalone| standalone != b"yes" && standalone != b"no")
    {
        return Err(Fault::new(fields.at, Reason::Declaration));
    }
    let at = chars::skip(declaration, fields.at, SPACE);
    if at == fields.end {
        Ok(encoding)
    } else {
        Err(Fault::new(at, Reason::Declaration))
    }
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `?>` stands.
    end: usize,
}

impl<'a> Fields<'a> {
    /// The value of the next field, if it has this name.
    fn take(&mut self, name: &[u8]) -> Result<Option<&'a [u8]>, Fault> {
        let b = &self.bytes[..self.end];
        let mut at = chars::skip(b, self.at, SPACE);
        if at == self.at || !b[at..].starts_with(name) {
            return Ok(None);
        }
        at = chars::skip(b, at + name.len(), SPACE);
        let bad = |at| Fault::new(at, Reason::Declaration);
        if b.get(at) != Some(&b'=') {
            return Err(bad(at));
        }
        at = chars::skip(b, at + 1, SPACE);
        let quote = *b.get(at).filter(|b| matches!(b, b'"' | b'\'')).ok_or_else(|| bad(at))?;
        let length = b[at + 1..]
            .iter()
            .position(|&byte| byte == quote)
            .ok_or_else(|| bad(at))?;
        self.at = at + 1 + length + 1;
        Ok(Some(&b[at + 1..at + 1 + length]))
    }
}
