//! Whatever the bytes: no panic, libxml2's verdict, libxml2's canonical form.
#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use muhurdar_xades::c14n::{Form, Method, Subset, canonicalize};
use muhurdar_xades::{Inside, Limits, Reason, RefusalKind};

/// Whether a namespace declaration has a reference in it: libxml2 then writes `&` unescaped, which is not canonical XML.
fn declares_by_reference(document: &[u8]) -> bool {
    (0..document.len())
        .filter(|&at| document[at..].starts_with(b"xmlns"))
        .any(|at| {
            let behind = &document[at..];
            let Some(open) = behind.iter().position(|byte| matches!(byte, b'"' | b'\'')) else {
                return false;
            };
            behind[open + 1..]
                .iter()
                .take_while(|&&byte| byte != behind[open])
                .any(|&byte| byte == b'&')
        })
}

fuzz_target!(|document: &[u8]| {
    // The length chooses, so that the seeds are documents and no more.
    let choice = document.len();
    let (form, mode) = [
        (Form::Inclusive, oracle::Mode::Inclusive),
        (Form::Exclusive, oracle::Mode::Exclusive),
        (Form::Inclusive11, oracle::Mode::Inclusive11),
    ][choice % 3];
    let method = Method {
        form,
        comments: choice % 2 == 1,
        inclusive_prefixes: Vec::new(),
    };
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
            )
            || (matches!(
                refusal.reason(),
                Reason::UnexpectedEnd {
                    inside: Inside::Character
                }
            ) && document.len() % 2 == 1))
    {
        return;
    }
    let encoding = document.windows(8).any(|window| window == b"encoding");
    if declares_by_reference(document) || encoding || !oracle::available() {
        return;
    }
    let theirs = oracle::canonical(document, mode, method.comments, &[], oracle::Part::Document);
    assert_eq!(ours.ok(), theirs);
});
