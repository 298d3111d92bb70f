//! The canonical form is libxml2's, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod corpus;
mod oracle;

use muhurdar_xades::c14n::{Canonicalizer, Form, Method, Subset, canonicalize};
use muhurdar_xades::scan::{Deaf, Scanner};
use muhurdar_xades::{Encoding, Limits, Refusal};

fn methods() -> Vec<(Method, oracle::Mode)> {
    let mut all = Vec::new();
    for comments in [false, true] {
        for (form, mode) in [
            (Form::Inclusive, oracle::Mode::Inclusive),
            (Form::Exclusive, oracle::Mode::Exclusive),
            (Form::Inclusive11, oracle::Mode::Inclusive11),
        ] {
            all.push((
                Method {
                    form,
                    comments,
                    inclusive_prefixes: Vec::new(),
                },
                mode,
            ));
        }
    }
    all
}

fn ours(document: &[u8], method: &Method, subset: Subset) -> Result<Vec<u8>, Refusal> {
    canonicalize(document, method, subset, &Limits::default(), Vec::new())
}

fn compare(name: &str, document: &[u8], method: &Method, mode: oracle::Mode, subset: Subset) {
    let prefixes: Vec<&str> = method.inclusive_prefixes.iter().map(String::as_str).collect();
    let part = match subset {
        Subset::Document => oracle::Part::Document,
        Subset::Element(number) => oracle::Part::Element(usize::try_from(number).unwrap()),
        Subset::Without(number) => oracle::Part::Without(usize::try_from(number).unwrap()),
    };
    let Ok(ours) = ours(document, method, subset) else {
        return;
    };
    let theirs = oracle::canonical(document, mode, method.comments, &prefixes, part);
    let theirs = theirs.unwrap_or_else(|| panic!("libxml2 refuses {name}"));
    if ours != theirs {
        let at = ours
            .iter()
            .zip(&theirs)
            .position(|(x, y)| x != y)
            .unwrap_or(ours.len().min(theirs.len()));
        let near = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(60)..(at + 60).min(bytes.len())]).into_owned()
        };
        panic!(
            "{name}, {method:?}, {subset:?}: differs at {at}\nours:   {:?}\ntheirs: {:?}",
            near(&ours),
            near(&theirs)
        );
    }
}

fn well_formed(document: &[u8]) -> bool {
    Scanner::new(&Limits::default()).run(document, &mut Deaf).is_ok()
}

#[test]
fn whole_documents_are_written_as_libxml2_writes_them() {
    if !oracle::available() {
        return;
    }
    for (method, mode) in methods() {
        for document in corpus::SMALL
            .iter()
            .map(|text| text.as_bytes())
            .chain(corpus::NOT_TEXT.iter().copied())
        {
            compare(
                &String::from_utf8_lossy(document),
                document,
                &method,
                mode,
                Subset::Document,
            );
        }
        for (name, document) in corpus::shared() {
            compare(&name, &document, &method, mode, Subset::Document);
        }
    }
}

#[test]
fn parts_of_documents_are_written_as_libxml2_writes_them() {
    if !oracle::available() {
        return;
    }
    let shared = corpus::shared()
        .into_iter()
        .filter(|(_, document)| document.len() < 40_000);
    let small = corpus::SMALL
        .iter()
        .chain(corpus::NESTED)
        .map(|text| ((*text).to_owned(), text.as_bytes().to_vec()));
    for (name, document) in small.chain(shared).filter(|(_, document)| well_formed(document)) {
        for (method, mode) in methods() {
            for number in (0..12).chain([40, 97]) {
                if oracle::elements(&document) <= number {
                    break;
                }
                compare(&name, &document, &method, mode, Subset::Element(number as u64));
                // A document without its root is nobody's case, and libxml2 has its own idea of the line ends there.
                if number > 0 {
                    compare(&name, &document, &method, mode, Subset::Without(number as u64));
                }
            }
        }
    }
}

/// Where bases stand in each other: C14N 1.1 joins those that are left out.
#[test]
fn bases_that_are_left_out_are_joined_as_libxml2_joins_them() {
    if !oracle::available() {
        return;
    }
    let bases = [
        None,
        Some("http://example.org/a/b"),
        Some("http://example.org/a/b/"),
        Some("http://example.org"),
        Some("x"),
        Some("x/y/"),
        Some("/x"),
        Some("../x"),
        Some("./x/"),
        Some("../../x/z"),
        Some("?q"),
        Some("urn:x"),
    ];
    let mut compared = 0;
    let attribute = |base: Option<&str>| base.map_or_else(String::new, |base| format!(" xml:base='{base}'"));
    for outer in bases {
        for middle in bases {
            for inner in bases {
                let document = format!(
                    "<a{} xml:id='a'><b{} xml:id='b' xml:lang='tr'><c{}><d/></c></b></a>",
                    attribute(outer),
                    attribute(middle),
                    attribute(inner)
                );
                for (method, mode) in methods() {
                    for number in 0..4 {
                        let part = oracle::Part::Element(number);
                        let theirs = oracle::canonical(document.as_bytes(), mode, method.comments, &[], part).unwrap();
                        // Libxml2 keeps the first segment of a relative path though a `..` follows it.
                        if !theirs.windows(4).any(|window| window == b"x/..") {
                            let subset = Subset::Element(number as u64);
                            compare(&document, document.as_bytes(), &method, mode, subset);
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 30_000, "only {compared} were compared");
}

/// Line ends that are two units, characters of one, two and four, references, names beyond ASCII: cut anywhere.
#[test]
fn other_encodings_may_be_cut_anywhere_too() {
    let text =
        "<kök xmlns:ş='urn:s' a=\"ğ&amp;&#x131;'\r\n\">\r\nÇağ &lt;<!-- ö -->\r<?ü ö?><![CDATA[ş]]><ş:b/>é</kök>\r\n";
    let expected = ours(text.as_bytes(), &Method::INCLUSIVE, Subset::Document).unwrap();
    for (encoding, label, mark) in [
        (Encoding::Utf8, "UTF-8", &b""[..]),
        (Encoding::Utf8, "UTF-8", b"\xEF\xBB\xBF"),
        (Encoding::Utf16Le, "UTF-16", b"\xff\xfe"),
        (Encoding::Utf16Be, "UTF-16", b"\xfe\xff"),
        (Encoding::Latin5, "ISO-8859-9", b""),
        (Encoding::Windows1254, "windows-1254", b""),
    ] {
        let declared = format!("<?xml version='1.0' encoding='{label}'?>{text}");
        let document = [mark, &encoding.encode(&declared)].concat();
        assert_eq!(ours(&document, &Method::INCLUSIVE, Subset::Document).unwrap(), expected);
        for at in 0..=document.len() {
            let mut canonicalizer = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, Vec::new());
            let mut scanner = Scanner::new(&Limits::default());
            for piece in [&document[..at], &document[at..]] {
                scanner.feed(piece, &mut canonicalizer).unwrap();
            }
            scanner.finish(&mut canonicalizer).unwrap();
            assert_eq!(canonicalizer.into_sink(), expected, "{label} cut at {at}");
        }
        // What is wrong is named with its place, wherever the input was cut: here an end tag that is missing.
        let broken = &document[..document.len() - encoding.encode("</kök>\r\n").len()];
        let refusal = ours(broken, &Method::INCLUSIVE, Subset::Document).unwrap_err();
        for at in 0..=broken.len() {
            let mut canonicalizer = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, 0u64);
            let mut scanner = Scanner::new(&Limits::default());
            let fed = [&broken[..at], &broken[at..]]
                .iter()
                .try_for_each(|piece| scanner.feed(piece, &mut canonicalizer));
            let said = fed.and_then(|()| scanner.finish(&mut canonicalizer)).unwrap_err();
            assert_eq!(said, refusal, "{label} cut at {at}");
        }
    }
}

#[test]
fn prefixes_listed_as_inclusive_are_written_as_libxml2_writes_them() {
    if !oracle::available() {
        return;
    }
    for list in [vec!["p"], vec!["#default", "q"], vec!["p", "q", "nobody"]] {
        let inclusive_prefixes = list.into_iter().map(str::to_owned).collect();
        let method = Method {
            form: Form::Exclusive,
            comments: true,
            inclusive_prefixes,
        };
        for document in corpus::NESTED {
            for number in 0..oracle::elements(document.as_bytes()) {
                let subset = Subset::Element(number as u64);
                compare(document, document.as_bytes(), &method, oracle::Mode::Exclusive, subset);
            }
            compare(
                document,
                document.as_bytes(),
                &method,
                oracle::Mode::Exclusive,
                Subset::Document,
            );
        }
    }
}

#[test]
fn the_canonical_form_is_the_same_wherever_the_input_is_cut() {
    for (method, _) in methods() {
        for text in corpus::SMALL.iter().chain(corpus::NESTED) {
            let document = text.as_bytes();
            let Ok(expected) = ours(document, &method, Subset::Document) else {
                continue;
            };
            for at in 0..=document.len() {
                let mut canonicalizer = Canonicalizer::new(&method, Subset::Document, Vec::new());
                let mut scanner = Scanner::new(&Limits::default());
                scanner.feed(&document[..at], &mut canonicalizer).unwrap();
                scanner.feed(&document[at..], &mut canonicalizer).unwrap();
                scanner.finish(&mut canonicalizer).unwrap();
                assert_eq!(canonicalizer.into_sink(), expected, "cut at {at} of {text:?}");
            }
        }
    }
}
