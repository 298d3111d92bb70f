//! The scanner accepts and refuses what strict libxml2 does, wherever the input is cut.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod corpus;
mod oracle;

use muhurdar_xades::scan::{EndTag, Handler, Part, Scanner, StartTag, Text, Window};
use muhurdar_xades::{Fault, Limits, Reason, Refusal, RefusalKind};
use std::fmt::Write as _;
use std::ops::Range;

/// Writes down what it hears, pieces of text joined.
#[derive(Default)]
struct Notes(String);

impl Notes {
    fn line(&mut self, line: &str) {
        write!(self.0, "\n{line}").unwrap();
    }
}

fn show(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("events are UTF-8")
}

impl Handler for Notes {
    fn start_tag(&mut self, w: &Window<'_>, tag: &StartTag<'_>) -> Result<(), Fault> {
        let mut line = format!(
            "<{} {} {} {}",
            tag.ordinal,
            tag.depth,
            show(tag.name.qualified),
            tag.empty
        );
        write!(line, " {}..{}", w.offset(tag.range.start), w.offset(tag.range.end)).unwrap();
        write!(
            line,
            " {{{}}}{}",
            show(tag.scope.name(tag.name.ns)),
            show(tag.name.local)
        )
        .unwrap();
        for d in tag.declarations() {
            write!(line, " xmlns:{}={}{}", show(d.prefix), show(d.uri), d.changes).unwrap();
        }
        for a in tag.sorted_attributes() {
            write!(
                line,
                " {{{}}}{}={:?}",
                show(tag.scope.name(a.name.ns)),
                show(a.name.local),
                show(a.value)
            )
            .unwrap();
        }
        self.line(&line);
        Ok(())
    }
    fn end_tag(&mut self, w: &Window<'_>, tag: &EndTag<'_>) -> Result<(), Fault> {
        self.line(&format!(
            "/{} {} {}\n",
            tag.depth,
            show(tag.qualified),
            w.offset(tag.range.end)
        ));
        Ok(())
    }
    fn text(&mut self, _: &Window<'_>, text: &Text<'_>) -> Result<(), Fault> {
        self.0.push_str(show(text.value));
        Ok(())
    }
    fn cdata_edge(&mut self, w: &Window<'_>, range: Range<usize>) -> Result<(), Fault> {
        self.line(&format!("cdata {}", w.offset(range.start)));
        Ok(())
    }
    fn comment(&mut self, _: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.part("comment", part);
        Ok(())
    }
    fn instruction(&mut self, _: &Window<'_>, part: &Part<'_>) -> Result<(), Fault> {
        self.part("pi", part);
        Ok(())
    }
    fn outside(&mut self, _: &Window<'_>, _: Range<usize>) -> Result<(), Fault> {
        Ok(())
    }
    fn window_end(&mut self, _: &Window<'_>, _: usize) -> Result<(), Fault> {
        Ok(())
    }
}

impl Notes {
    fn part(&mut self, kind: &str, part: &Part<'_>) {
        match part {
            Part::Start { target, .. } => self.line(&format!("{kind} {}", show(target))),
            Part::Data { value, .. } => self.0.push_str(show(value)),
            Part::End { .. } => self.line("end of it"),
        }
    }
}

fn whole(document: &[u8]) -> Result<String, Refusal> {
    let mut notes = Notes::default();
    Scanner::new(&Limits::default())
        .run(document, &mut notes)
        .map(|_| notes.0)
}

fn pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<String, Refusal> {
    let mut notes = Notes::default();
    let mut scanner = Scanner::new(&Limits::default());
    for piece in pieces {
        scanner.feed(piece, &mut notes)?;
    }
    scanner.finish(&mut notes).map(|()| notes.0)
}

fn libxml2_accepts(document: &[u8]) -> bool {
    oracle::canonical(document, oracle::Mode::Inclusive, false, &[], oracle::Part::Document).is_some()
}

/// What we refuse on purpose where libxml2 does not.
fn refused_by_policy(refusal: &Refusal, utf_16: bool) -> bool {
    use muhurdar_xades::{Inside, Reason};
    matches!(refusal.kind(), RefusalKind::DtdForbidden | RefusalKind::Limit)
        || matches!(
            refusal.reason(),
            Reason::Version { .. } | Reason::EncodingContradiction { .. } | Reason::EncodingUnknown { .. }
        )
        // Libxml2 takes a NUL behind the root element for the end, and misses a space before `standalone`.
        || matches!(refusal.reason(), Reason::Character { code: 0 } | Reason::Declaration)
        // It drops half a code unit at the end of UTF-16; XML 1.0, section 4.3.3, makes it fatal.
        || matches!(refusal.reason(), Reason::UnexpectedEnd { inside: Inside::Character })
            && utf_16
}

fn utf_16(document: &[u8]) -> bool {
    document.starts_with(b"\xff\xfe") || document.starts_with(b"\xfe\xff")
}

fn agree(document: &[u8]) {
    let ours = whole(document);
    let theirs = libxml2_accepts(document);
    let same = match &ours {
        Ok(_) => theirs,
        Err(refusal) => !theirs || refused_by_policy(refusal, utf_16(document)),
    };
    let shown = String::from_utf8_lossy(document);
    assert!(
        same,
        "libxml2 accepts: {theirs}; we: {:?}\n{shown}",
        ours.map(|_| ()).map_err(|e| e.to_string())
    );
}

#[test]
fn it_accepts_and_refuses_what_libxml2_does() {
    if !oracle::available() {
        return;
    }
    for document in corpus::SMALL {
        agree(document.as_bytes());
    }
    for document in corpus::NOT_TEXT {
        agree(document);
    }
    for (_, document) in corpus::shared() {
        agree(&document);
    }
}

#[test]
fn it_accepts_and_refuses_mutated_documents_as_libxml2_does() {
    if !oracle::available() {
        return;
    }
    // Each byte of each small document replaced by each of these, removed, or doubled.
    let mut disagreements = Vec::new();
    let mut agree = |document: &[u8]| {
        if std::panic::catch_unwind(|| agree(document)).is_err() {
            disagreements.push(String::from_utf8_lossy(document).into_owned());
        }
    };
    let replacements = b"<>&;'\"= /!?-[]:#x0a\t\r\n\0\x01\x7f\x80\xc2\xef\xbf\xbe\xff";
    for document in corpus::SMALL {
        let bytes = document.as_bytes();
        for at in 0..bytes.len() {
            let (before, after) = (&bytes[..at], &bytes[at + 1..]);
            for &byte in replacements {
                agree(&[before, &[byte], after].concat());
                agree(&[before, &[byte], &bytes[at..]].concat());
            }
            agree(&[before, after].concat());
            agree(before);
        }
    }
    assert!(
        disagreements.is_empty(),
        "{} disagreements: {disagreements:#?}",
        disagreements.len()
    );
}

#[test]
fn the_answer_is_the_same_wherever_the_input_is_cut() {
    let texts = corpus::SMALL.iter().map(|text| text.as_bytes());
    for document in texts.chain(corpus::NOT_TEXT.iter().copied()) {
        let expected = whole(document);
        for at in 0..=document.len() {
            assert_eq!(
                pieces([&document[..at], &document[at..]]),
                expected,
                "cut at {at} of {document:?}"
            );
        }
        for size in 1..=3 {
            assert_eq!(
                pieces(document.chunks(size)),
                expected,
                "pieces of {size} of {document:?}"
            );
        }
    }
    for (name, document) in corpus::shared()
        .into_iter()
        .filter(|(_, document)| document.len() < 20_000)
    {
        let expected = whole(&document);
        for size in [1, 2, 7, 61, 997] {
            assert_eq!(pieces(document.chunks(size)), expected, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn a_declaration_longer_than_any_is_refused_wherever_the_input_is_cut() {
    for mark in ["", "\u{feff}"] {
        let document = format!("{mark}<?xml version='1.0'{}?><a/>", " ".repeat(1024));
        let document = document.as_bytes();
        let refusal = whole(document).unwrap_err();
        assert!(matches!(refusal.reason(), Reason::Declaration), "{refusal}");
        for at in 0..document.len() {
            assert_eq!(
                pieces([&document[..at], &document[at..]]),
                Err(refusal.clone()),
                "cut at {at}"
            );
        }
    }
}
