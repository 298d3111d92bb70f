//! Wide and deep documents: within the limits they are read, beyond them refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::time::Duration;

use muhurdar_xades::c14n::{Canonicalizer, Form, Method, Subset, canonicalize};
use muhurdar_xades::scan::Scanner;
use muhurdar_xades::{Limits, RefusalKind};

#[test]
fn ten_thousand_attributes_a_thousand_namespaces_and_a_thousand_levels_are_within_the_limits() {
    let mut wide = String::from("<a");
    for at in 0..10_000 {
        write!(wide, " a{}='{at}'", (at * 7919) % 10_000).unwrap();
    }
    wide.push_str("/>");
    let mut bound = String::from("<a");
    for at in 0..1_000 {
        write!(bound, " xmlns:p{at}='urn:{at}'").unwrap();
    }
    bound.push('>');
    for at in 0..20_000 {
        write!(
            bound,
            "<p{0}:b p{1}:c='1' p{2}:c='2'/>",
            at % 1000,
            at * 31 % 1000,
            (at * 31 + 1) % 1000
        )
        .unwrap();
    }
    bound.push_str("</a>");
    let deep = "<a>".repeat(1_000) + &"</a>".repeat(1_000);
    for document in [&wide, &bound, &deep] {
        let form = canonicalize(
            document.as_bytes(),
            &Method::INCLUSIVE,
            Subset::Document,
            &Limits::default(),
            Vec::new(),
        );
        let form = form.unwrap();
        let again = canonicalize(
            &form,
            &Method::INCLUSIVE,
            Subset::Document,
            &Limits::default(),
            Vec::new(),
        )
        .unwrap();
        assert!(form == again, "canonical XML is its own canonical form");
    }
}

/// What this thread has had of the processor: others may have the rest of it.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

/// The least that canonicalizing takes.
fn least(document: &str, form: Form) -> Duration {
    let method = Method {
        form,
        ..Method::INCLUSIVE
    };
    let once = || {
        let start = cpu_time();
        canonicalize(document.as_bytes(), &method, Subset::Document, &Limits::default(), 0u64).unwrap();
        cpu_time() - start
    };
    (0..15).map(|_| once()).min().unwrap()
}

/// Sixteen times the document: linear time is sixteen times as long, and quadratic 256 times. The bound lies between, far
/// from both.
#[test]
fn time_grows_as_the_document_does() {
    let attributes = |count: usize| {
        let all: String = (0..count).map(|at| format!(" a{}='{at}'", at * 7919 % count)).collect();
        format!("<a{all}/>")
    };
    let namespaces = |count: usize| {
        let all: String = (0..count).map(|at| format!(" xmlns:p{at}='urn:{at}'")).collect();
        let used: String = (0..count)
            .map(|at| format!("<p{at}:b p{}:c='1'/>", (at * 31 + 1) % count))
            .collect();
        format!("<a{all}>{used}</a>")
    };
    // Each level with a declaration of its own.
    let levels = |count: usize| {
        let opened: String = (0..count).map(|at| format!("<p:a xmlns:p='urn:{at}'>")).collect();
        opened + &"</p:a>".repeat(count)
    };
    let texts = |count: usize| format!("<a>{}</a>", "]>&amp;\u{feff}<!-- - --><b/>\r\n".repeat(count));
    let pair = |document: &dyn Fn(usize) -> String, count: usize| (document(count / 16), document(count));
    let shapes = [
        ("10,000 attributes", pair(&attributes, 10_000)),
        ("1,000 namespaces", pair(&namespaces, 1_000)),
        ("1,000 levels", pair(&levels, 1_000)),
        ("100,000 interruptions of text", pair(&texts, 100_000)),
    ];
    for form in [Form::Inclusive, Form::Exclusive] {
        for (what, (few, many)) in &shapes {
            let (few, many) = (least(few, form), least(many, form));
            assert!(
                many < few.max(Duration::from_micros(5)) * 80,
                "{what} take {many:?}, a sixteenth of them {few:?} ({form:?})"
            );
        }
    }
}

#[test]
fn what_is_over_a_limit_is_refused_as_that_wherever_it_is_cut() {
    let mut limits = Limits::default();
    (limits.bytes, limits.depth, limits.attributes, limits.namespaces) = (2000, 5, 4, 3);
    (
        limits.name,
        limits.namespace_name,
        limits.attribute_value,
        limits.start_tag,
    ) = (10, 20, 30, 90);
    let long = |times| "x".repeat(times);
    let within = [
        "<a><b><c><d><e/></d></c></b></a>".to_owned(),
        format!("<a b='{}'/>", long(30)),
        format!("<{}/>", long(10)),
        format!("<a>{}</a>", long(1900)),
        "<a b='1' c='2' xmlns:p='urn:p' xmlns:q='urn:q'/>".to_owned(),
    ];
    let over = [
        "<a><b><c><d><e><f/></e></d></c></b></a>".to_owned(),
        format!("<a b='{}'/>", long(31)),
        format!("<{}/>", long(11)),
        format!("<a>&{};</a>", long(11)),
        format!("<a>{}</a>", long(2000)),
        "<a b='1' c='2' d='3' e='4' f='5'/>".to_owned(),
        "<a xmlns:p='urn:p' xmlns:q='urn:q'><b xmlns:r='urn:r' xmlns:s='urn:s'/></a>".to_owned(),
        format!("<a xmlns='urn:{}'/>", long(20)),
        format!("<a{}/>", " ".repeat(100)),
    ];
    let scan = |document: &str, size: usize| {
        let mut sink = Canonicalizer::new(&Method::INCLUSIVE, Subset::Document, 0u64);
        let mut scanner = Scanner::new(&limits);
        document
            .as_bytes()
            .chunks(size)
            .try_for_each(|piece| scanner.feed(piece, &mut sink))?;
        scanner.finish(&mut sink)
    };
    for size in [1, 3, 40, 5000] {
        for document in &within {
            scan(document, size).unwrap_or_else(|refusal| panic!("{document} in pieces of {size}: {refusal}"));
        }
        for document in &over {
            let refusal = scan(document, size).expect_err(document);
            assert_eq!(
                refusal.kind(),
                RefusalKind::Limit,
                "{document} in pieces of {size}: {refusal}"
            );
        }
    }
}
