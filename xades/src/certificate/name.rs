//! Distinguished names as text: written as RFC 4514 with names that people can read, read as the field writes them.

use std::fmt::Write as _;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Any, Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::name::Name;

pub(super) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
pub(super) const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");

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

/// The last relative name first, `,` between them, `+` within one (RFC 4514 section 2).
pub(super) fn rfc4514(name: &Name) -> String {
    let mut text = String::new();
    for (i, relative) in name.0.iter().rev().enumerate() {
        if i > 0 {
            text.push(',');
        }
        for (j, attribute) in relative.0.iter().enumerate() {
            if j > 0 {
                text.push('+');
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

/// The first attribute of a type, where it is a string.
pub(super) fn attribute(name: &Name, oid: ObjectIdentifier) -> Option<String> {
    let attribute = name
        .0
        .iter()
        .flat_map(|relative| relative.0.iter())
        .find(|attribute| attribute.oid == oid)?;
    string(&attribute.value)
}

/// Whether two texts name the same: whatever the writer's spaces, letter case of attribute names, and choice between
/// a keyword and an identifier, or between a string and `#` with its DER.
pub(super) fn match_texts(one: &str, other: &str) -> bool {
    matches!((parse(one), parse(other)), (Some(one), Some(other)) if one == other)
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue) {
    let oid = attribute.oid.to_string();
    let keyword = KEYWORDS
        .iter()
        .find(|(_, known)| *known == oid)
        .map(|(keyword, _)| *keyword);
    match (keyword, string(&attribute.value)) {
        (Some(keyword), Some(value)) => {
            text.push_str(keyword);
            text.push('=');
            escape(text, &value);
        }
        (keyword, _) => {
            text.push_str(keyword.unwrap_or(&oid));
            text.push_str("=#");
            for byte in attribute.value.to_der().unwrap_or_default() {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
}

/// RFC 4514 section 2.4, and control characters as hex pairs (XML Signature 1.1 section 4.5.4.1).
fn escape(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (i, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if i == 0 || i == last => text.push_str("\\ "),
            '#' if i == 0 => text.push_str("\\#"),
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(text, "\\{:02X}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
}

/// A DirectoryString or IA5String as text; `None` for another type, or bytes that are not of theirs.
fn string(value: &Any) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        // T.61 in name, Latin-1 in every certificate that was ever seen.
        Tag::TeletexString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// Relative names in the order of the text, each with its attributes sorted.
type Parsed = Vec<Vec<(String, String)>>;

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

/// The value behind `=`: `#` and DER, or a string whose white space is folded as X.520 compares it.
fn unescape(value: &str) -> Option<String> {
    if let Some(hex) = value.trim_end().strip_prefix('#') {
        let der = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok())
            .collect::<Option<Vec<_>>>()?;
        return Some(
            Any::from_der(&der)
                .ok()
                .and_then(|any| string(&any))
                .map_or(hex.to_owned(), |text| fold(&text)),
        );
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value
        .trim_end()
        .bytes()
        .filter(|byte| *byte != b'"' || value.contains("\\\""))
        .peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let first = rest.next()?;
        match (
            char::from(first).to_digit(16),
            rest.peek().and_then(|second| char::from(*second).to_digit(16)),
        ) {
            (Some(high), Some(low)) => {
                rest.next();
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            _ => bytes.push(first),
        }
    }
    String::from_utf8(bytes).ok().map(|text| fold(&text))
}

fn fold(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_4514_reserves_is_escaped() {
        let mut text = String::new();
        escape(&mut text, " #A, B+C; \"D\" <E>\\ A.Ş.\u{1} ");
        assert_eq!(text, r#"\ #A\, B\+C\; \"D\" \<E\>\\ A.Ş.\01\ "#);
        text.clear();
        escape(&mut text, "#A");
        assert_eq!(text, r"\#A");
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
        assert!(match_texts(r"O=A\C5\9E", "O=AŞ"));
        assert!(!match_texts(
            ours,
            "CN=e-Fatura Deneme A.Ş.,SERIALNUMBER=9999999998,OU=e-Fatura Deneme A.Ş."
        ));
        assert!(!match_texts("CN=A,C=TR", "C=TR,CN=A"), "the order is part of the name");
        assert!(!match_texts("", ""), "no name is not a name");
        assert!(!match_texts("CN=A,C", "CN=A,C"));
    }
}
