//! A document's text with the places where one document differs from the next.

use std::{ops::Range, sync::Arc};

use bytes::BufMut;

/// Stands in a text for the document's number, 16 characters.
pub(super) const NUMBER: &str = "⟦number⟧";
/// Stands in a text for the document's UUID, 36 characters.
pub(super) const UUID: &str = "⟦uuid⟧";
/// Stands in a text for a VKN, 10 digits.
pub(super) const VKN: &str = "⟦vkn⟧";
/// Stands in a text for a TCKN, 11 digits.
pub(super) const TCKN: &str = "⟦tckn⟧";

/// What differs between two documents of a template.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) number: [u8; 16],
    pub(super) uuid: u128,
    pub(super) taxpayer: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Number,
    Uuid,
    Taxpayer,
}

/// The fixed bytes of a text, and which field follows each stretch of them.
#[derive(Debug)]
pub(super) struct Template {
    fixed: Vec<u8>,
    /// Each stretch of `fixed`, and what comes after it.
    pieces: Vec<(Range<usize>, Field)>,
    /// The last stretch, which nothing follows.
    tail: Range<usize>,
    len: usize,
}

impl Template {
    /// Finds the markers in a text.
    pub(super) fn parse(text: &str) -> Self {
        const MARKERS: [(&str, Field, usize); 4] = [
            (NUMBER, Field::Number, 16),
            (UUID, Field::Uuid, 36),
            (VKN, Field::Taxpayer, 10),
            (TCKN, Field::Taxpayer, 11),
        ];
        let (mut fixed, mut pieces, mut len, mut rest) = (Vec::with_capacity(text.len()), Vec::new(), 0, text);
        let mut start = 0;
        while let Some(at) = rest.find('⟦') {
            let (marker, field, width) = MARKERS
                .into_iter()
                .find(|(marker, ..)| rest[at..].starts_with(marker))
                .expect("⟦ opens a marker and nothing else in the generator's own texts");
            fixed.extend_from_slice(&rest.as_bytes()[..at]);
            pieces.push((start..fixed.len(), field));
            start = fixed.len();
            len += width;
            rest = &rest[at + marker.len()..];
        }
        fixed.extend_from_slice(rest.as_bytes());
        len += fixed.len();
        Self {
            tail: start..fixed.len(),
            fixed,
            pieces,
            len,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn write(&self, fields: &Fields, out: &mut impl BufMut) {
        for (fixed, field) in &self.pieces {
            out.put_slice(&self.fixed[fixed.clone()]);
            match field {
                Field::Number => out.put_slice(&fields.number),
                Field::Uuid => out.put_slice(&uuid_text(fields.uuid)),
                Field::Taxpayer => out.put_slice(fields.taxpayer.as_bytes()),
            }
        }
        out.put_slice(&self.fixed[self.tail.clone()]);
    }
}

/// RFC 9562 text of a random (version 4) UUID.
fn uuid_text(random: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = ((random & !(0xF000 << 64) & !(0xC000 << 48)) | (0x4000 << 64) | (0x8000 << 48)).to_be_bytes();
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_of_version_4_whatever_the_random_number() {
        assert_eq!(uuid_text(0), *b"00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid_text(u128::MAX), *b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_template_writes_what_it_says_it_will() {
        let template = Template::parse("a⟦number⟧b⟦vkn⟧⟦uuid⟧");
        let fields = Fields {
            number: *b"ABC2026000000001",
            uuid: 0,
            taxpayer: "1234567890".into(),
        };
        let mut out = Vec::new();
        template.write(&fields, &mut out);
        assert_eq!(out, b"aABC2026000000001b123456789000000000-0000-4000-8000-000000000000");
        assert_eq!(out.len(), template.len());
    }
}
