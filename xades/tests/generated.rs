//! Documents that nobody would write, composed at random: accepted, refused and written as libxml2 does, however cut.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oracle;

use muhurdar_xades::c14n::{Canonicalizer, Form, Method, Subset, canonicalize};
use muhurdar_xades::scan::Scanner;
use muhurdar_xades::{Encoding, Limits, Reason};
use proptest::prelude::*;

/// A name, with or without one of a few prefixes.
fn name() -> impl Strategy<Value = String> {
    (
        prop::sample::select(vec!["", "", "p:", "q:", "ş:"]),
        prop::sample::select(vec!["a", "b", "çö", "Signature", "x-1.y"]),
    )
        .prop_map(|(prefix, local)| format!("{prefix}{local}"))
}

/// Text as it may stand in a document, with everything that is written differently.
fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "x",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "&lt;",
        "&gt;",
        "&amp;",
        "&quot;",
        "&apos;",
        "&#13;",
        "&#xD;",
        "&#9;",
        "&#10;",
        "&#x1F600;",
        "ğüşıöç",
        "\u{10FFFD}",
        "\u{FFFD}",
        "\u{85}",
        "]]",
        "]",
        "0123456789abcdef0123456789abcdef0123",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn attribute() -> impl Strategy<Value = String> {
    (
        name(),
        text(),
        prop::sample::select(vec!["=\"|\"", "='|'", " = \"|\"", "\n=\r\n'|'"]),
        prop::sample::select(vec![" ", "  ", "\n\t"]),
    )
        .prop_map(|(name, value, form, space)| format!("{space}{name}{}", form.replace('|', &value)))
}

/// No `&` in a namespace name: libxml2 writes it unescaped, which is not canonical XML (and not even XML).
fn declaration() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        " xmlns='urn:a'",
        " xmlns=''",
        " xmlns:p='urn:a'",
        " xmlns:p=\"urn:p\"",
        " xmlns:q='urn:p'",
        " xmlns:q=\"http://q/?a=1;b#c\"",
        " xml:lang='tr'",
        " xml:space=\"preserve\"",
        " xmlns:ş='urn:s'",
    ])
    .prop_map(str::to_owned)
}

fn node() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => text(),
        1 => text().prop_map(|text| format!("<![CDATA[{}]]>", text.replace("]]", "]"))),
        1 => text().prop_map(|text| format!("<!--{}-->", text.replace('-', ""))),
        1 => text().prop_map(|text| format!("<?pi  {text}?>")),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        (
            name(),
            prop::collection::vec(prop_oneof![declaration(), attribute()], 0..5),
            prop::collection::vec(inner, 0..5),
            any::<bool>(),
        )
            .prop_map(|(name, attributes, children, space)| {
                let (attributes, children) = (attributes.concat(), children.concat());
                let space = if space { " " } else { "" };
                if children.is_empty() && space.is_empty() {
                    format!("<{name}{attributes}/>")
                } else {
                    format!("<{name}{attributes}{space}>{children}</{name}{space}>")
                }
            })
    })
}

/// A whole document; its root declares the prefixes most of the time.
fn document() -> impl Strategy<Value = String> {
    let head = prop::sample::select(vec!["", "<?xml version='1.0'?>\r\n", "<!-- a --><?b c?>\n", "\u{feff}"]);
    let root = prop::sample::select(vec![
        "",
        " xmlns:p='urn:p' xmlns:q='urn:q' xmlns:ş='urn:s'",
        " xmlns:ş='urn:s' xmlns:q='urn:q' xmlns:p='urn:p'",
    ]);
    (
        head,
        root,
        prop::collection::vec(node(), 0..6),
        prop::sample::select(vec!["", "\n", "<!-- z -->\r<?end?>"]),
    )
        .prop_map(|(head, root, nodes, tail)| format!("{head}<root{root}>{}</root>{tail}", nodes.concat()))
}

fn methods() -> impl Strategy<Value = (Method, oracle::Mode)> {
    let forms = vec![
        (Form::Inclusive, oracle::Mode::Inclusive),
        (Form::Exclusive, oracle::Mode::Exclusive),
        (Form::Inclusive11, oracle::Mode::Inclusive11),
    ];
    (
        prop::sample::select(forms),
        any::<bool>(),
        prop::sample::subsequence(vec!["p", "q", "#default"], 0..3),
    )
        .prop_map(|((form, mode), comments, list)| {
            let list = if form == Form::Exclusive { list } else { Vec::new() };
            (
                Method {
                    form,
                    comments,
                    inclusive_prefixes: list.into_iter().map(str::to_owned).collect(),
                },
                mode,
            )
        })
}

fn in_pieces(document: &[u8], size: usize, method: &Method) -> Option<Vec<u8>> {
    let mut canonicalizer = Canonicalizer::new(method, Subset::Document, Vec::new());
    let mut scanner = Scanner::new(&Limits::default());
    for piece in document.chunks(size) {
        scanner.feed(piece, &mut canonicalizer).ok()?;
    }
    scanner.finish(&mut canonicalizer).ok()?;
    Some(canonicalizer.into_sink())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_composed_document_is_written_as_libxml2_writes_it(
        document in document(), (method, mode) in methods(), size in 1..40usize, number in 0..12u64, damage in any::<Option<(prop::sample::Index, u8)>>(),
    ) {
        if !oracle::available() {
            return Ok(());
        }
        let mut document = document.into_bytes();
        if let Some((at, byte)) = damage {
            let at = at.index(document.len());
            document[at] = byte % 0x80;
        }
        let prefixes: Vec<&str> = method.inclusive_prefixes.iter().map(String::as_str).collect();
        let ask = |part| oracle::canonical(&document, mode, method.comments, &prefixes, part);
        let ours = canonicalize(&document, &method, Subset::Document, &Limits::default(), Vec::new());
        let theirs = ask(oracle::Part::Document);
        let on_purpose = ours.as_ref().err().is_some_and(|refusal| {
            matches!(refusal.reason(), Reason::Dtd | Reason::Version { .. } | Reason::Declaration | Reason::Character { code: 0 })
        });
        if !on_purpose {
            prop_assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{}", String::from_utf8_lossy(&document));
        }
        prop_assert_eq!(in_pieces(&document, size, &method), ours.as_ref().ok().cloned());
        if ours.is_ok() && usize::try_from(number).unwrap() < oracle::elements(&document) {
            let part = oracle::Part::Element(usize::try_from(number).unwrap());
            let ours = canonicalize(&document, &method, Subset::Element(number), &Limits::default(), Vec::new()).unwrap();
            prop_assert_eq!(Some(ours), ask(part));
        }
    }

    #[test]
    fn a_document_means_the_same_in_every_encoding_that_has_its_letters(document in document(), size in 1..40usize) {
        let text = document.trim_start_matches('\u{feff}').replace("<?xml version='1.0'?>", "");
        // Names cannot be written with references; this leaves those that ISO-8859-9 has.
        let utf8 = canonicalize(text.as_bytes(), &Method::INCLUSIVE, Subset::Document, &Limits::default(), Vec::new());
        for (encoding, label, mark) in [
            (Encoding::Utf16Le, "UTF-16", &b"\xff\xfe"[..]),
            (Encoding::Utf16Be, "UTF-16", b"\xfe\xff"),
            (Encoding::Latin5, "ISO-8859-9", b""),
        ] {
            // References mean nothing in comments, instructions and CDATA.
            if label != "UTF-16" && (text.contains("<!") || text.contains("<?")) && !text.chars().all(|c| u32::from(c) < 0x180 && c != '\u{85}') {
                continue;
            }
            let bytes = [mark, &encoding.encode(&format!("<?xml version='1.0' encoding='{label}'?>{text}"))].concat();
            let other = canonicalize(&bytes, &Method::INCLUSIVE, Subset::Document, &Limits::default(), Vec::new());
            prop_assert_eq!(other.as_ref().ok(), utf8.as_ref().ok());
            prop_assert_eq!(in_pieces(&bytes, size, &Method::INCLUSIVE), utf8.as_ref().ok().cloned());
        }
    }
}
