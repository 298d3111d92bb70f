//! Finding the end of plain text: the one place where vector instructions are used.

use super::chars::{self, TEXT_BREAK};

/// The first byte at or after `from` that ends plain text ([`TEXT_BREAK`]), or the length.
#[inline(always)]
pub(super) fn find_text_break(bytes: &[u8], from: usize) -> usize {
    chars::find(bytes, from, TEXT_BREAK)
}
