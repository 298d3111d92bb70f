//! The rest of a seal: everything but the document's digest and the signature itself. To stay within 12 µs.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros, and a benchmark may panic"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{Authority, Profile};
use criterion::{Criterion, criterion_group, criterion_main};
use muhurdar_xades::build::{Draft, Ids, Place};
use muhurdar_xades::{DigestAlgorithm, KeyType, Policy};

/// What a UBL-TR invoice has in scope where its seal goes.
const SCOPE: [(&str, &str); 11] = [
    ("", "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2"),
    (
        "cac",
        "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2",
    ),
    (
        "cbc",
        "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2",
    ),
    ("ccts", "urn:un:unece:uncefact:documentation:2"),
    ("ds", "http://www.w3.org/2000/09/xmldsig#"),
    (
        "ext",
        "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2",
    ),
    (
        "qdt",
        "urn:oasis:names:specification:ubl:schema:xsd:QualifiedDatatypes-2",
    ),
    (
        "ubltr",
        "urn:oasis:names:specification:ubl:schema:xsd:TurkishCustomizationExtensionComponents",
    ),
    (
        "udt",
        "urn:un:unece:uncefact:data:specification:UnqualifiedDataTypesSchemaModule:2",
    ),
    ("xades", "http://uri.etsi.org/01903/v1.3.2#"),
    ("xsi", "http://www.w3.org/2001/XMLSchema-instance"),
];

fn building_a_seal(c: &mut Criterion) {
    let authority = Authority::new();
    let policy = Policy::default();
    let mut group = c.benchmark_group("build");
    for key in [KeyType::Rsa2048, KeyType::EcP384] {
        let identity = authority.issue(key, &Profile::default());
        let digest = policy
            .signature_algorithm(&identity.certificate)
            .digest()
            .digest(b"the document");
        let value = vec![0x5a; key.signature_len()];
        group.bench_function(key.name(), |b| {
            b.iter(|| {
                let place = Place::new(black_box(SCOPE), []);
                let draft = Draft {
                    place: &place,
                    ids: &Ids::new(black_box("Signature_ABC2026000000001")),
                    body_digest: digest.as_ref(),
                    certificate: &identity.certificate,
                    policy: &policy,
                    signing_time: jiff::Timestamp::UNIX_EPOCH,
                    claimed_role: policy.claimed_role.as_deref(),
                };
                draft.build().assemble(black_box(&value))
            });
        });
    }
    // The two digests in it, alone: what no writing can save.
    let (properties, signed_info) = (vec![b'a'; 2000], vec![b'b'; 2000]);
    for digest in [DigestAlgorithm::Sha256, DigestAlgorithm::Sha384] {
        group.bench_function(format!("{digest:?} of two times 2,000 bytes"), |b| {
            b.iter(|| {
                (
                    digest.digest(black_box(&properties)),
                    digest.digest(black_box(&signed_info)),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, building_a_seal);
criterion_main!(benches);
