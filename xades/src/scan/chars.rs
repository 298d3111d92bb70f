//! Which characters may stand where: XML 1.0 (Fifth Edition), productions \[2\] Char, \[3\] S, \[4\] NameStartChar and
//! \[4a\] NameChar.

/// May begin a name. All bytes of multi-byte characters count: [`name_char`] decides about those.
pub(super) const NAME_START: u8 = 1;
/// May go on in a name.
pub(super) const NAME: u8 = 2;
/// White space.
pub(super) const SPACE: u8 = 4;
/// Ends the plain part of text: markup, references, `>`, CR, control characters, and the first byte of U+FFFE and U+FFFF.
pub(super) const TEXT_BREAK: u8 = 8;
/// Ends the plain part of an attribute value.
pub(super) const VALUE_BREAK: u8 = 16;

/// Ends the plain part of a CDATA section.
pub(super) const CDATA_BREAK: u8 = 32;
/// Ends the plain part of a comment or a processing instruction.
pub(super) const MISC_BREAK: u8 = 64;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphabetic() || b == b'_' || b == b':' || b >= 0x80 {
            class |= NAME_START | NAME;
        }
        if b.is_ascii_digit() || b == b'-' || b == b'.' {
            class |= NAME;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n') {
            class |= SPACE;
        }
        let control = b < 0x20 && b != b'\t' && b != b'\n';
        if control || matches!(b, b'<' | b'&' | b'>' | 0xEF) {
            class |= TEXT_BREAK | CDATA_BREAK;
        }
        if b == b']' {
            class |= CDATA_BREAK;
        }
        if control || matches!(b, b'-' | b'?' | 0xEF) {
            class |= MISC_BREAK;
        }
        if b < 0x20 || matches!(b, b'<' | b'&' | b'"' | b'\'' | 0xEF) {
            class |= VALUE_BREAK;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

#[inline(always)]
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// The first byte at or after `from` that is not of the class, or the length.
#[inline(always)]
pub(super) fn skip(bytes: &[u8], mut from: usize, class: u8) -> usize {
    while from < bytes.len() && is(bytes[from], class) {
        from += 1;
    }
    from
}

/// The first byte at or after `from` that is of the class, or the length.
#[inline(always)]
pub(super) fn find(bytes: &[u8], mut from: usize, class: u8) -> usize {
    while from < bytes.len() && !is(bytes[from], class) {
        from += 1;
    }
    from
}

/// The character that begins at `at`, and its length. The bytes are known to be UTF-8.
pub(super) fn decode(bytes: &[u8], at: usize) -> (u32, usize) {
    let byte = |i: usize| u32::from(bytes.get(at + i).copied().unwrap_or(0));
    match byte(0) {
        lead @ 0..0x80 => (lead, 1),
        lead @ 0x80..0xE0 => ((lead & 0x1F) << 6 | byte(1) & 0x3F, 2),
        lead @ 0xE0..0xF0 => ((lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | byte(2) & 0x3F, 3),
        lead => (
            (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | byte(3) & 0x3F,
            4,
        ),
    }
}

/// Char, production \[2\].
pub(crate) fn is_char(code: u32) -> bool {
    matches!(code, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// NameStartChar, production \[4\].
pub(crate) fn is_name_start(code: u32) -> bool {
    matches!(code,
        0x3A | 0x5F | 0x41..=0x5A | 0x61..=0x7A | 0xC0..=0xD6 | 0xD8..=0xF6 | 0xF8..=0x2FF | 0x370..=0x37D
        | 0x37F..=0x1FFF | 0x200C..=0x200D | 0x2070..=0x218F | 0x2C00..=0x2FEF | 0x3001..=0xD7FF | 0xF900..=0xFDCF
        | 0xFDF0..=0xFFFD | 0x1_0000..=0xE_FFFF)
}

/// NameChar, production \[4a\].
pub(crate) fn is_name(code: u32) -> bool {
    is_name_start(code) || matches!(code, 0x2D | 0x2E | 0x30..=0x39 | 0xB7 | 0x300..=0x36F | 0x203F..=0x2040)
}

/// Whether `name` is an NCName: a name without a colon (Namespaces in XML 1.0, production \[4\]).
pub fn is_ncname(name: &str) -> bool {
    let mut chars = name.chars();
    let is = |c: char, class: fn(u32) -> bool| c != ':' && class(u32::from(c));
    chars.next().is_some_and(|c| is(c, is_name_start)) && chars.all(|c| is(c, is_name))
}

/// Whether a byte may go on in a name.
pub(super) fn is_name_byte(byte: u8) -> bool {
    is(byte, NAME)
}
