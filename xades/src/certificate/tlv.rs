//! DER one element at a time, for the parts of certificates in which foreign things stand: names and extensions.
//!
//! Typed decoders refuse a whole certificate for one string type or identifier that they do not know (UniversalString, an
//! arc of 128 bits); here such a thing is an element like any other, passed over or shown as it is.

use std::fmt::Write as _;

/// One element: its tag, its content, and all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The first element of `input`, and what follows it; `None` where there is none: lengths are definite and minimal
/// (X.690 section 10.1), tags of one byte.
pub(crate) fn next(input: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (bytes, behind) = rest
            .split_at_checked(usize::from(first & 0x7f))
            .filter(|(b, _)| b.len() <= 4)?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = behind;
        if length < 0x80 || bytes.first() == Some(&0) {
            return None;
        }
    }
    let (content, behind) = rest.split_at_checked(length)?;
    let whole = &input[..input.len() - behind.len()];
    Some((Tlv { tag, content, whole }, behind))
}

/// Everything in `input`, which is elements and nothing else.
pub(crate) fn all(mut input: &[u8]) -> Option<Vec<Tlv<'_>>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (element, rest) = next(input)?;
        found.push(element);
        input = rest;
    }
    Some(found)
}

/// What stands in an element with this tag.
pub(crate) fn within(element: Tlv<'_>, tag: u8) -> Option<Vec<Tlv<'_>>> {
    (element.tag == tag).then(|| all(element.content)).flatten()
}

/// An object identifier in dotted form (X.690 section 8.19), its arcs as long as a UUID (X.667).
pub(crate) fn dotted(content: &[u8]) -> Option<String> {
    if content.last().is_none_or(|last| last & 0x80 != 0) {
        return None;
    }
    let mut text = String::new();
    let mut arc = 0_u128;
    for byte in content {
        arc = arc.checked_mul(0x80)? | u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = if text.is_empty() {
            let first = (arc / 40).min(2);
            write!(text, "{first}.{}", arc - 40 * first)
        } else {
            write!(text, ".{arc}")
        };
        arc = 0;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_dotted_whatever_the_size_of_its_arcs() {
        assert_eq!(dotted(&[0x55, 4, 3]).as_deref(), Some("2.5.4.3"));
        assert_eq!(dotted(&[0x2a, 0x86, 0x48]).as_deref(), Some("1.2.840"));
        assert_eq!(dotted(&[0x88, 0x37, 3]).as_deref(), Some("2.999.3"));
        let mut uuid = vec![0x69, 0x83];
        uuid.extend([0xff; 17]);
        uuid.push(0x7f);
        assert_eq!(
            dotted(&uuid).as_deref(),
            Some("2.25.340282366920938463463374607431768211455")
        );
        uuid[1] = 0x84;
        assert_eq!(dotted(&uuid), None, "129 bits");
        assert_eq!(dotted(&[0x55, 0x84]), None, "cut");
        assert_eq!(dotted(&[]), None);
    }

    #[test]
    fn lengths_are_definite_and_minimal() {
        assert_eq!(next(&[0x30, 0]).unwrap().0.content, &[]);
        assert_eq!(next(&[0x30, 1, 5, 6]).unwrap().1, &[6]);
        for wrong in [
            &[0x30][..],
            &[0x30, 1],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 0],
            &[0x3f, 0x21, 0],
        ] {
            assert!(next(wrong).is_none(), "{wrong:?}");
        }
    }
}
