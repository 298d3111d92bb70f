//! Lines and columns, counted only when somebody must be told.

use crate::error::Position;

/// A place in the document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    line: u64,
    column: u64,
    /// The last byte was a CR: a LF that follows belongs to the same line end.
    after_cr: bool,
}

impl Place {
    pub(super) const START: Self = Self {
        line: 1,
        column: 1,
        after_cr: false,
    };

    /// The place behind `bytes`.
    pub(super) fn advance(mut self, bytes: &[u8]) -> Self {
        let Some(&last) = bytes.last() else { return self };
        let mut ends = memchr::memchr_iter(b'\n', bytes).count();
        // Of CR LF, the LF was counted.
        let alone = |&at: &usize| bytes.get(at + 1) != Some(&b'\n');
        ends += memchr::memchr_iter(b'\r', bytes).filter(alone).count();
        // A CR that ended the bytes before was counted there.
        ends -= usize::from(self.after_cr && bytes[0] == b'\n');
        self.line += ends as u64;
        let tail = match memchr::memrchr2(b'\n', b'\r', bytes) {
            Some(end) => {
                self.column = 1;
                &bytes[end + 1..]
            }
            None => bytes,
        };
        self.column += tail.iter().filter(|&&b| b & 0xC0 != 0x80).count() as u64;
        self.after_cr = last == b'\r';
        self
    }

    pub(super) fn at(self, offset: u64) -> Position {
        Position {
            offset,
            line: self.line,
            column: self.column,
        }
    }
}
