//! Whatever the bytes and wherever they are cut: no panic, and the answer of the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muhurdar_xades::c14n::{Canonicalizer, Method, Subset, canonicalize};
use muhurdar_xades::scan::Scanner;
use muhurdar_xades::{Limits, Refusal};

fuzz_target!(|document: &[u8]| {
    // The length chooses, so that the seeds are documents and no more.
    let size = document.len() % 61 + 1;
    let mut limits = Limits::default();
    limits.depth = 50;
    limits.name = 100;
    let method = Method {
        comments: true,
        ..Method::INCLUSIVE
    };
    let whole = canonicalize(document, &method, Subset::Document, &limits, Vec::new());
    let pieces = || -> Result<Vec<u8>, Refusal> {
        let mut canonicalizer = Canonicalizer::new(&method, Subset::Document, Vec::new());
        let mut scanner = Scanner::new(&limits);
        for piece in document.chunks(size) {
            scanner.feed(piece, &mut canonicalizer)?;
        }
        scanner.finish(&mut canonicalizer)?;
        Ok(canonicalizer.into_sink())
    };
    assert_eq!(pieces(), whole);
});
