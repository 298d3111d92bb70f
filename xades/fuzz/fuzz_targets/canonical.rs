//! Whatever the bytes: no panic, libxml2's verdict, libxml2's canonical form.
#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use muhurdar_xades::c14n::{Form, Method, Subset, canonicalize};
use muhurdar_xades::{Limits, Reason, RefusalKind};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, document)) = data.split_first() else { return };
    let (form, mode) = [
        (Form::Inclusive, oracle::Mode::Inclusive),
        (Form::Exclusive, oracle::Mode::Exclusive),
        (Form::Inclusive11, oracle::Mode::Inclusive11),
    ][usize::from(choice) % 3];
    let method = Method { form, comments: choice & 0x80 != 0, inclusive_prefixes: Vec::new() };
    let ours = canonicalize(document, &method, Subset::Document, &Limits::default(), Vec::new());
    // Refused on purpose, or differently for a known reason: see tests/well_formed.rs and tests/generated.rs.
    if let Err(refusal) = &ours
        && (matches!(refusal.kind(), RefusalKind::DtdForbidden | RefusalKind::Limit)
            || matches!(
                refusal.reason(),
                Reason::Version { .. }
                    | Reason::EncodingContradiction { .. }
                    | Reason::EncodingUnknown { .. }
                    | Reason::Declaration
                    | Reason::Character { code: 0 }
            ))
    {
        return;
    }
    let ampersand = document.windows(5).any(|window| window == b"xmlns") && document.contains(&b'&');
    if ampersand || document.windows(8).any(|window| window == b"encoding") || !oracle::available() {
        return;
    }
    let theirs = oracle::canonical(document, mode, method.comments, &[], oracle::Part::Document);
    assert_eq!(ours.ok(), theirs);
});
