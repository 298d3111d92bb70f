//! `xml:base` of an element whose ancestors are left out: Canonical XML 1.1, section 2.4 and appendix A, which joins what
//! they carried, so that relative references in the element mean what they meant.

/// Joins a reference to the base that stood around it (C14N 1.1's changes to RFC 3986, section 5.2): the base may be
/// relative, a `..` at its end counts as a directory, and leading `..` stay.
pub(super) fn join(base: &[u8], reference: &[u8]) -> Vec<u8> {
    let (of, to) = (Parts::of(base), Parts::of(reference));
    let (scheme, authority, path, query) = if to.scheme.is_some() {
        (to.scheme, to.authority, without_dots(to.path), to.query)
    } else if to.authority.is_some() {
        (of.scheme, to.authority, without_dots(to.path), to.query)
    } else if to.path.is_empty() {
        (of.scheme, of.authority, of.path.to_vec(), to.query.or(of.query))
    } else if to.path.starts_with(b"/") {
        (of.scheme, of.authority, without_dots(to.path), to.query)
    } else {
        (of.scheme, of.authority, without_dots(&merged(&of, to.path)), to.query)
    };
    let mut out = Vec::with_capacity(base.len() + reference.len() + 1);
    let mut part = |before: &[u8], part: Option<&[u8]>, behind: &[u8]| {
        if let Some(part) = part {
            out.extend([before, part, behind].concat());
        }
    };
    part(b"", scheme, b":");
    part(b"//", authority, b"");
    part(b"", Some(&path), b"");
    part(b"?", query, b"");
    part(b"#", to.fragment, b"");
    out
}

/// RFC 3986, section 5.2.3.
fn merged(base: &Parts<'_>, path: &[u8]) -> Vec<u8> {
    if base.authority.is_some() && base.path.is_empty() {
        return [b"/", path].concat();
    }
    let last = base.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if last == b".." || last == b"." {
        return [base.path, b"/", path].concat();
    }
    [&base.path[..base.path.len() - last.len()], path].concat()
}

/// RFC 3986, section 5.2.4, but for `..` that lead out of a relative path: they stay. Of several `/` one is left.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let absolute = path.starts_with(b"/");
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut directory = false;
    for segment in path.split(|&byte| byte == b'/') {
        directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." if kept.last().is_some_and(|last| *last != b"..") => {
                kept.pop();
            }
            b".." if absolute => {}
            other => kept.push(other),
        }
    }
    let mut out = if absolute { vec![b'/'] } else { Vec::new() };
    out.extend(kept.join(&b'/'));
    if directory && !kept.is_empty() {
        out.push(b'/');
    }
    out
}

/// A URI reference, in its parts (RFC 3986, appendix B).
struct Parts<'a> {
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
    fragment: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(uri: &'a [u8]) -> Self {
        let (rest, fragment) = cut(uri, b'#');
        let (rest, query) = cut(rest, b'?');
        let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (scheme, rest) = match rest[..slash].iter().position(|&byte| byte == b':') {
            Some(colon) if colon > 0 => (Some(&rest[..colon]), &rest[colon + 1..]),
            _ => (None, rest),
        };
        let (authority, path) = match rest.strip_prefix(b"//") {
            Some(rest) => {
                let end = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        Self {
            scheme,
            authority,
            path,
            query,
            fragment,
        }
    }
}

fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == at) {
        Some(found) => (&text[..found], Some(&text[found + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, reference: &str) -> String {
        String::from_utf8(join(base.as_bytes(), reference.as_bytes())).unwrap()
    }

    #[test]
    fn references_are_joined_as_the_specification_joins_them() {
        // RFC 3986, section 5.4, of those whose answer C14N 1.1 leaves as it is; then its own.
        let rfc = "http://a/b/c/d;p?q";
        for (base, reference, expected) in [
            (rfc, "g", "http://a/b/c/g"),
            (rfc, "./g", "http://a/b/c/g"),
            (rfc, "g/", "http://a/b/c/g/"),
            (rfc, "/g", "http://a/g"),
            (rfc, "//g", "http://g"),
            (rfc, "?y", "http://a/b/c/d;p?y"),
            (rfc, "g?y#s", "http://a/b/c/g?y#s"),
            (rfc, "", "http://a/b/c/d;p?q"),
            (rfc, ".", "http://a/b/c/"),
            (rfc, "../..", "http://a/"),
            (rfc, "../../../g", "http://a/g"),
            (rfc, "g:h", "g:h"),
            ("abc/", "../", ""),
            ("../abc", "..", "../../"),
            ("abc/def/", "../../..", "../"),
            ("..", "b", "../b"),
            ("a//b/", "c", "a/b/c"),
            ("http://h", "a", "http://h/a"),
        ] {
            assert_eq!(joined(base, reference), expected, "{reference} in {base}");
        }
    }
}
