//! How canonical XML writes characters (C14N 1.0, section 2.3).

use memchr::memchr3;

/// What one character of text that is not plain becomes; `None` where it stays as it is.
pub(super) fn text(value: &[u8]) -> Option<&'static [u8]> {
    match value {
        b"&" => Some(b"&amp;"),
        b"<" => Some(b"&lt;"),
        b">" => Some(b"&gt;"),
        b"\r" => Some(b"&#xD;"),
        _ => None,
    }
}

/// Appends an attribute value.
pub(crate) fn attribute(value: &[u8], out: &mut Vec<u8>) {
    // Few values have anything to escape, namespace names least of all.
    if memchr3(b'&', b'<', b'"', value).is_none() && memchr3(b'\t', b'\n', b'\r', value).is_none() {
        out.extend_from_slice(value);
        return;
    }
    let mut copied = 0;
    for (at, byte) in value.iter().enumerate() {
        let written: &[u8] = match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'"' => b"&quot;",
            b'\t' => b"&#x9;",
            b'\n' => b"&#xA;",
            b'\r' => b"&#xD;",
            _ => continue,
        };
        out.extend_from_slice(&value[copied..at]);
        out.extend_from_slice(written);
        copied = at + 1;
    }
    out.extend_from_slice(&value[copied..]);
}
