//! Character data and attribute values as C14N writes them (Canonical XML 1.0 section 2.3).

/// `& < >` and carriage return.
pub(super) fn text(out: &mut String, value: &str) {
    escape(out, value, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

/// `& < "`, tab, line feed and carriage return.
pub(super) fn attribute(out: &mut String, value: &str) {
    escape(out, value, |byte| match byte {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

/// Only ASCII is ever replaced, so that cutting at a replaced byte cuts between characters.
fn escape(out: &mut String, value: &str, replacement: impl Fn(u8) -> Option<&'static str>) {
    let mut start = 0;
    for (i, byte) in value.bytes().enumerate() {
        if let Some(replacement) = replacement(byte) {
            out.push_str(&value[start..i]);
            out.push_str(replacement);
            start = i + 1;
        }
    }
    out.push_str(&value[start..]);
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_and_attributes_have_their_own_escapes() {
        let value = "Ş<a>&\"'\t\r\n";
        let (mut text, mut attribute) = (String::new(), String::new());
        super::text(&mut text, value);
        super::attribute(&mut attribute, value);
        assert_eq!(text, "Ş&lt;a&gt;&amp;\"'\t&#xD;\n");
        assert_eq!(attribute, "Ş&lt;a>&amp;&quot;'&#x9;&#xD;&#xA;");
    }
}
