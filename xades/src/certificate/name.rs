//! Distinguished names: read whatever strings they are made of, written as RFC 4514 with names that people can read, and
//! compared as the field writes them.

use std::fmt::Write as _;

use super::tlv::{self, Tlv};
use crate::policy::is_xml;

/// id-at-commonName and id-at-serialNumber (X.520), as content of an OBJECT IDENTIFIER.
pub(super) const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub(super) const SERIAL_NUMBER: &[u8] = &[0x55, 4, 5];

/// RFC 4514 section 3's table, and those beyond it that certificates carry: written as javax.security.auth.x500 and
/// OpenSSL know them, for `2.5.4.5=#130a…` helps nobody. The first name of an identifier is the one we write.
const KEYWORDS: [(&str, &str); 24] = [
    ("CN", "2.5.4.3"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("T", "2.5.4.12"),
    ("SURNAME", "2.5.4.4"),
    ("GIVENNAME", "2.5.4.42"),
    ("INITIALS", "2.5.4.43"),
    ("GENERATION", "2.5.4.44"),
    ("DNQUALIFIER", "2.5.4.46"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
    ("S", "2.5.4.8"),
    ("SP", "2.5.4.8"),
    ("SN", "2.5.4.4"),
    ("GN", "2.5.4.42"),
    ("TITLE", "2.5.4.12"),
    ("E", "1.2.840.113549.1.9.1"),
    ("EMAIL", "1.2.840.113549.1.9.1"),
];

/// A distinguished name (RFC 5280 section 4.1.2.4): relative names in the order of the certificate.
#[derive(Debug)]
pub(super) struct Name<'a>(Vec<Vec<Attribute<'a>>>);

#[derive(Debug)]
struct Attribute<'a> {
    /// Content of its OBJECT IDENTIFIER.
    kind: &'a [u8],
    value: Tlv<'a>,
}

impl<'a> Name<'a> {
    /// Reads the DER of a Name.
    pub(super) fn read(name: Tlv<'a>) -> Option<Self> {
        let relative = |set: Tlv<'a>| {
            let attributes = tlv::within(set, tlv::SET)?.into_iter().map(|attribute| {
                match tlv::within(attribute, tlv::SEQUENCE)?[..] {
                    [kind, value] if kind.tag == tlv::OBJECT_IDENTIFIER => Some(Attribute {
                        kind: kind.content,
                        value,
                    }),
                    _ => None,
                }
            });
            attributes.collect::<Option<Vec<_>>>()
        };
        tlv::within(name, tlv::SEQUENCE)?
            .into_iter()
            .map(relative)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The attributes of a type that are strings, in order.
    pub(super) fn strings(&self, kind: &[u8]) -> impl Iterator<Item = String> {
        let attributes = self.0.iter().flatten().filter(move |attribute| attribute.kind == kind);
        attributes.filter_map(|attribute| string(attribute.value))
    }

    /// The last relative name first, `,` between them, `+` within one (RFC 4514 section 2). `None` where an identifier
    /// has no dotted form.
    pub(super) fn rfc4514(&self) -> Option<String> {
        let mut text = String::new();
        for (i, relative) in self.0.iter().rev().enumerate() {
            if i > 0 {
                text.push(',');
            }
            for (j, attribute) in relative.iter().enumerate() {
                if j > 0 {
                    text.push('+');
                }
                attribute.write(&mut text)?;
            }
        }
        Some(text)
    }

    /// A character of the name that XML has no way to write (Char, XML 1.0 section 2.2).
    pub(super) fn beyond_xml(&self) -> Option<char> {
        let strings = self.0.iter().flatten().filter_map(|attribute| string(attribute.value));
        strings
            .into_iter()
            .find_map(|text| text.chars().find(|character| !is_xml(*character)))
    }
}

impl Attribute<'_> {
    fn write(&self, text: &mut String) -> Option<()> {
        let oid = tlv::dotted(self.kind)?;
        let keyword = KEYWORDS.iter().find(|(_, known)| *known == oid);
        match (keyword, string(self.value)) {
            (Some((keyword, _)), Some(value)) => {
                text.push_str(keyword);
                text.push('=');
                escape(text, &value);
            }
            (keyword, _) => {
                text.push_str(keyword.map_or(&*oid, |(keyword, _)| keyword));
                text.push_str("=#");
                hex(text, "", self.value.whole);
            }
        }
        Some(())
    }
}

/// What is not to be written as it stands, neither into XML nor before people: it is invisible or moves the cursor.
fn is_control(character: char) -> bool {
    character.is_control() || !is_xml(character)
}

/// Text from a certificate or a token, for people: a control character, and what turns the direction of writing, becomes
/// U+FFFD, so that no name moves the cursor, ends a line, or hides what stands beside it.
#[must_use]
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        is_control(c) || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// RFC 4514 section 2.4, and after XML Signature 1.1 section 4.5.4.1 control characters as hex pairs and spaces at the end
/// as `\20`: of `\ ` a receiver that trims white space would leave the backslash.
fn escape(text: &mut String, value: &str) {
    let leading = value.len() - value.trim_start_matches(' ').len();
    let trailing = value.trim_end_matches(' ').len();
    for (at, character) in value.char_indices() {
        match character {
            ' ' if at >= trailing => text.push_str("\\20"),
            ' ' if at < leading => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            _ if is_control(character) => hex(text, "\\", character.encode_utf8(&mut [0; 4]).as_bytes()),
            _ => text.push(character),
        }
    }
}

fn hex(text: &mut String, before_each: &str, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = if before_each.is_empty() {
            write!(text, "{byte:02x}")
        } else {
            write!(text, "{before_each}{byte:02X}")
        };
    }
}

/// A DirectoryString or IA5String as text (X.680 sections 41 and 43); `None` for another type, or bytes that are not of
/// theirs.
fn string(value: Tlv<'_>) -> Option<String> {
    let bytes = value.content;
    match value.tag {
        // UTF8String, NumericString, PrintableString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x16 | 0x1a => std::str::from_utf8(bytes).ok().map(str::to_owned),
        // TeletexString: T.61 in name, Latin-1 in every certificate that was ever seen.
        0x14 => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        // UniversalString.
        0x1c => {
            let (units, rest) = bytes.as_chunks::<4>();
            let text = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            text.collect::<Option<_>>().filter(|_| rest.is_empty())
        }
        // BMPString: UCS-2 in name, UTF-16 where somebody needed more.
        0x1e => {
            let (units, rest) = bytes.as_chunks::<2>();
            let text = char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit)));
            text.collect::<Result<_, _>>().ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// Whether two texts name the same: whatever the writer's spaces, letter case of attribute names, and choice between
/// a keyword and an identifier, or between a string and `#` with its DER.
pub(super) fn match_texts(one: &str, other: &str) -> bool {
    matches!((parse(one), parse(other)), (Some(one), Some(other)) if one == other)
}

/// Relative names in the order of the text, each with its attributes sorted.
type Parsed = Vec<Vec<(String, Value)>>;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// A string whose white space is folded as X.520 compares it.
    Text(String),
    /// The DER of something else.
    Der(Vec<u8>),
}

fn parse(text: &str) -> Option<Parsed> {
    split(text, &[',', ';'])
        .iter()
        .map(|relative| {
            let mut attributes = split(relative, &['+'])
                .iter()
                .map(|attribute| {
                    let (keyword, value) = attribute.split_once('=')?;
                    Some((identifier(keyword.trim()), unescape(value.trim_start())?))
                })
                .collect::<Option<Vec<_>>>()?;
            attributes.sort();
            Some(attributes)
        })
        .collect()
}

/// Splits where no backslash and no quotation mark hides the separator.
fn split<'a>(text: &'a str, separators: &[char]) -> Vec<&'a str> {
    let (mut parts, mut start, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (i, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && separators.contains(&character) => {
                parts.push(&text[start..i]);
                start = i + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn identifier(keyword: &str) -> String {
    let upper = keyword.to_ascii_uppercase();
    let known = KEYWORDS.iter().find(|(known, _)| *known == upper).map(|(_, oid)| *oid);
    known.unwrap_or(upper.strip_prefix("OID.").unwrap_or(&upper)).to_owned()
}

/// The value behind `=`: `#` and DER, or a string with the escapes of RFC 4514, or in quotation marks as RFC 2253 still
/// reads them (within which .NET writes one twice).
fn unescape(value: &str) -> Option<Value> {
    if let Some(hex) = value.trim_end().strip_prefix('#') {
        let der = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok())
            .collect::<Option<Vec<_>>>()?;
        let text = tlv::next(&der).filter(|(_, rest)| rest.is_empty());
        let text = text.and_then(|(element, _)| string(element));
        return Some(text.map_or(Value::Der(der), |text| Value::Text(fold(&text))));
    }
    let mut bytes = Vec::with_capacity(value.len());
    // Where the value ends, if all that follows is white space that nobody has escaped.
    let mut end = 0;
    let mut quoted = false;
    let mut rest = value.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => {
                let first = rest.next()?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                match (digit(first), rest.peek().and_then(|second| digit(*second))) {
                    (Some(high), Some(low)) => {
                        rest.next();
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    _ => bytes.push(first),
                }
            }
            b'"' if quoted && rest.peek() == Some(&b'"') => {
                rest.next();
                bytes.push(b'"');
            }
            b'"' => {
                quoted = !quoted;
                continue;
            }
            _ => bytes.push(byte),
        }
        if byte == b'\\' || quoted || !byte.is_ascii_whitespace() {
            end = bytes.len();
        }
    }
    bytes.truncate(end);
    String::from_utf8(bytes).ok().map(|text| Value::Text(fold(&text)))
}

fn fold(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(value: &str) -> String {
        let mut text = String::new();
        escape(&mut text, value);
        text
    }

    #[test]
    fn what_rfc_4514_reserves_is_escaped() {
        assert_eq!(
            escaped(" #A, B+C; \"D\" <E>\\ A.Ş.\u{1}\u{85}\u{ffff} "),
            r#"\ #A\, B\+C\; \"D\" \<E\>\\ A.Ş.\01\C2\85\EF\BF\BF\20"#
        );
        assert_eq!(escaped("#A"), r"\#A");
        assert_eq!(escaped("  A  "), r"\ \ A\20\20");
        assert_eq!(escaped("  "), r"\20\20");
        assert_eq!(escaped("A\\ "), r"A\\\20");
    }

    #[test]
    fn what_was_written_is_read_as_what_it_was() {
        for value in [
            "", " ", "#", "\\", " \\ ", "\\ ", "\"", "a\"b", "a=b", "\n", "\0", "ş, ", "\\20", "+;<>",
        ] {
            let text = format!("CN={},C=TR", escaped(value));
            let parsed = parse(&text).unwrap_or_else(|| panic!("{text:?} is read"));
            assert_eq!(parsed[0][0].1, Value::Text(fold(value)), "{text:?}");
            assert_eq!(parsed.len(), 2, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        let ours = "CN=e-Fatura Deneme A.Ş.,SERIALNUMBER=9999999999,OU=e-Fatura Deneme A.Ş.";
        assert!(match_texts(
            ours,
            "CN=e-Fatura Deneme A.Ş.,2.5.4.5=#130a39393939393939393939,OU=e-Fatura Deneme A.Ş."
        ));
        assert!(match_texts(
            ours,
            "cn=e-Fatura  Deneme A.Ş., serialNumber=9999999999, ou=e-Fatura Deneme A.Ş."
        ));
        assert!(match_texts(r"O=A\, B,C=TR", r#"O="A, B", C=TR"#));
        assert!(match_texts(r#"O=A \"B\" C\, D,C=TR"#, r#"O="A ""B"" C, D", C=TR"#));
        assert!(match_texts(r"O=A\C5\9E", "O=AŞ"));
        assert!(match_texts(r"O=A\20,C=TR", "O=A\\ , C=TR\n"));
        assert!(match_texts("2.5.4.97=#0C0141", "OID.2.5.4.97=#0c0141"));
        assert!(
            !match_texts("2.5.4.97=#040141", "2.5.4.97=040141"),
            "DER is not its digits"
        );
        assert!(!match_texts(
            ours,
            "CN=e-Fatura Deneme A.Ş.,SERIALNUMBER=9999999998,OU=e-Fatura Deneme A.Ş."
        ));
        assert!(!match_texts("CN=A,C=TR", "C=TR,CN=A"), "the order is part of the name");
        assert!(!match_texts("", ""), "no name is not a name");
        assert!(!match_texts("CN=A,C", "CN=A,C"));
    }
}
