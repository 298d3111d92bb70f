//! Whatever the bytes: no panic, and what is sealed here verifies here.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::Identity;
use libfuzzer_sys::fuzz_target;
use muhurdar_xades::{KeyType, Limits, Policy, Prepared, Seal, Sealing, VerifyOptions, prepare, verify};

/// A P-256 key: its signature costs a fiftieth of RSA's, and nothing here is about signatures.
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::new(KeyType::EcP256));
static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

fn finish(prepared: Prepared) -> Seal {
    let value = IDENTITY.sign(prepared.signature_algorithm(), prepared.signed_info());
    if prepared.wants_countersignature() {
        return finish(prepared.countersign(&value).expect("the key is the certificate's"));
    }
    prepared.finish(&value).expect("the key is the certificate's")
}

fuzz_target!(|document: &[u8]| {
    let limits = Limits::default();
    let sealing = Sealing {
        certificate: &IDENTITY.certificate,
        policy: &POLICY,
        limits: &limits,
        signing_time: "2026-11-21T09:00:00Z".parse().expect("a time"),
        expect: None,
    };
    let Ok(prepared) = prepare(document, &sealing) else {
        return;
    };
    let document_type = prepared.document_type();
    let sealed = finish(prepared).splice(document);
    let verified = verify(&sealed, &VerifyOptions::default());
    let verified = verified.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&sealed)));
    assert_eq!(verified.document_type, document_type);
    // Once is enough.
    assert!(prepare(&sealed, &sealing).is_err());
});
