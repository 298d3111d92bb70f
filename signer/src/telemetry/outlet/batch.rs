//! Lines one after the other in memory, and how far they are written.

/// Room that is kept from one batch to the next.
const KEPT: usize = 256 << 10;

/// Lines, each with where it ends.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes that are written, and lines that are whole among them.
    written: usize,
    whole: usize,
}

impl Batch {
    pub(super) fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
    }

    /// Bytes of all its lines.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn is_written(&self) -> bool {
        self.whole == self.ends.len()
    }

    /// Forgets everything, and most of a burst's room.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.written, self.whole) = (0, 0);
        self.bytes.shrink_to(KEPT);
        self.ends.shrink_to(KEPT / size_of::<usize>());
    }

    /// Where the line that is next begins.
    fn begin(&self) -> usize {
        self.whole.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// The rest of the next line, and as many whole ones behind it as there is room for beside it. Empty when all are written.
    pub(super) fn piece(&self, room: usize) -> &[u8] {
        let Some(first) = self.ends.get(self.whole) else {
            return &[];
        };
        let fit = self.written.saturating_add(room);
        let fitting = self.ends[self.whole..].partition_point(|end| *end <= fit);
        let end = match fitting {
            0 => *first,
            n => self.ends[self.whole + n - 1],
        };
        &self.bytes[self.written..end]
    }

    /// Bytes of the next line, where nothing of it is written yet.
    pub(super) fn next_line(&self) -> Option<usize> {
        let end = *self.ends.get(self.whole)?;
        (self.written == self.begin()).then(|| end - self.written)
    }

    /// So many bytes of the piece are written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        self.whole += self.ends[self.whole..].partition_point(|end| *end <= self.written);
    }

    /// What was written of a line that is not whole was for nothing: it is next again. Answers how many bytes that were.
    pub(super) fn back_to_the_line(&mut self) -> usize {
        let for_nothing = self.written - self.begin();
        self.written -= for_nothing;
        for_nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_the_rest_of_a_line_and_whole_ones_behind_it() {
        let mut batch = Batch::default();
        for line in [&b"one\n"[..], b"three\n", b"5\n"] {
            batch.push(line);
        }
        assert_eq!(batch.piece(0), b"one\n", "one at least");
        assert_eq!(batch.piece(9), b"one\n", "no part of another");
        assert_eq!(batch.piece(10), b"one\nthree\n");
        assert_eq!((batch.piece(usize::MAX).len(), batch.next_line()), (12, Some(4)));
        batch.advance(6);
        assert_eq!((batch.piece(0), batch.next_line()), (&b"ree\n"[..], None));
        assert_eq!(batch.piece(usize::MAX), b"ree\n5\n");
        assert_eq!(batch.back_to_the_line(), 2);
        assert_eq!((batch.piece(0), batch.next_line()), (&b"three\n"[..], Some(6)));
        batch.advance(8);
        assert!(batch.is_written() && batch.piece(usize::MAX).is_empty());
        assert_eq!((batch.next_line(), batch.back_to_the_line()), (None, 0));
        batch.clear();
        assert!(batch.is_empty());
    }
}
