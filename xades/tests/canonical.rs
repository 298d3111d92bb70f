//! The canonical form is libxml2's, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod corpus;
mod oracle;

use muhurdar_xades::c14n::{Canonicalizer, Form, Method, Subset, canonicalize};
use muhurdar_xades::scan::{Deaf, Scanner};
use muhurdar_xades::{Limits, Refusal};

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
