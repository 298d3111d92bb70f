//! The verifier: what others sealed verifies, what was tampered with does not, and says why.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::seals::{check, invoice, sealed, sealed_at, with};
use common::{Authority, Identity, Profile};
use muhurdar_xades::certificate::Unfit;
use muhurdar_xades::policy::{CanonicalizationMethod, ReferenceOrder};
use muhurdar_xades::verify::{Chain, Failure};
use muhurdar_xades::{
    Certificate, DocumentType, KeyType, Policy, RefusalKind, SignatureAlgorithm, VerifyOptions, verify,
};
use rcgen::KeyUsagePurpose;

#[test]
fn all_nine_seals_of_others_verify() {
    let Some(folder) = common::shared("signed") else { return };
    let files = common::xml_files(&folder);
    assert_eq!(files.len(), 9);
    for file in files {
        let document = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let verified = verify(&document, &VerifyOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = match &*name {
            name if name.contains("KULLANICI") => DocumentType::UserAccount,
            name if name.contains("FATURA_ZARF") => DocumentType::Invoice,
            _ => DocumentType::ApplicationResponse,
        };
        assert_eq!(verified.document_type, expected, "{name}");
        assert_eq!(verified.taxpayer, "9999999999");
        assert_eq!(verified.algorithm, SignatureAlgorithm::RsaSha256);
        assert_eq!(verified.claimed_role.as_deref(), Some("Tedarikçi"));
        assert_eq!(verified.chain, Chain::NotChecked);
        assert!(verified.signing_time_text.starts_with("2013-") && verified.signature_id.starts_with("Signature_"));
        let counters = usize::from(expected == DocumentType::UserAccount);
        assert_eq!(verified.counter_signed_by.len(), counters, "{name}");
    }
}

#[test]
fn every_hostile_document_is_refused_for_its_own_reason() {
    let Some(folder) = common::shared("hostile") else {
        return;
    };
    for file in common::xml_files(&folder) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let error = verify(&std::fs::read(&file).unwrap(), &VerifyOptions::default()).unwrap_err();
        let failure = error.failure();
        match &*name {
            "xxe-attack.xml" | "billion-laughs.xml" => {
                let Failure::Document(refusal) = failure else {
                    panic!("{name}: {error}")
                };
                assert_eq!(refusal.kind(), RefusalKind::DtdForbidden, "{name}");
            }
            "edited-after-sealing.xml" => assert_eq!(*failure, Failure::DocumentDigest),
            // Its value is right for its SignedInfo, but no document of this digest was ever in it.
            "already-signed-but-not-valid.xml" => assert_eq!(*failure, Failure::DocumentDigest),
            _ => panic!("{name} is new: say what must be said of it"),
        }
        assert!(
            error.position().is_some() || matches!(failure, Failure::Document(_)),
            "{name}: {error}"
        );
    }
}

#[test]
fn our_own_seals_verify_with_every_key_and_policy() {
    let authority = Authority::new();
    for key in [KeyType::Rsa2048, KeyType::EcP256, KeyType::EcP384, KeyType::EcP521] {
        let identity = authority.issue(key, &Profile::default());
        for canonicalization in CanonicalizationMethod::ALL {
            for reference_order in [ReferenceOrder::DocumentFirst, ReferenceOrder::PropertiesFirst] {
                let policy = Policy {
                    canonicalization,
                    reference_order,
                    ..Policy::default()
                };
                let document = sealed_at(&identity, &policy, "2026-05-15T12:43:13Z");
                let verified = check(&document).unwrap_or_else(|failure| panic!("{key}: {failure}\n{document}"));
                assert_eq!(verified.certificate, identity.certificate);
                assert_eq!(verified.signing_time_text, "2026-05-15T15:43:13+03:00");
            }
        }
    }
}

#[test]
fn comments_white_space_and_an_archives_properties_are_let_pass() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    // Comments are no part of what a URI="" reference digests.
    check(&with(&document, "<b/>", "<b><!-- c --></b>")).unwrap();
    check(&format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- c -->{document}\n"
    ))
    .unwrap();
    let archived = "<xades:UnsignedProperties><xades:UnsignedSignatureProperties><xades:SignatureTimeStamp>AAAA</xades:\
                    SignatureTimeStamp></xades:UnsignedSignatureProperties></xades:UnsignedProperties></xades:\
                    QualifyingProperties>";
    check(&with(&document, "</xades:QualifyingProperties>", archived)).unwrap();
}

#[test]
fn a_document_without_a_seal_is_not_sealed() {
    let (before, after) = invoice();
    assert_eq!(check(&format!("{before}{after}")).unwrap_err(), Failure::NotSealed);
}

#[test]
fn the_certificate_must_have_been_fit_when_it_sealed() {
    let authority = Authority::new();
    let identity = authority.issue(KeyType::EcP256, &Profile::default());
    let certificate = &identity.certificate;
    let at = |time: &str| check(&sealed_at(&identity, &Policy::default(), time)).unwrap_err();
    let (from, since) = (certificate.not_before(), certificate.not_after());
    assert_eq!(at("2024-12-31T23:59:59Z"), Failure::Unfit(Unfit::NotYetValid { from }));
    assert_eq!(at("2035-01-02T00:00:00Z"), Failure::Unfit(Unfit::Expired { since }));
    let usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let encryption = authority.issue(
        KeyType::EcP256,
        &Profile {
            usages,
            ..Profile::default()
        },
    );
    assert!(matches!(
        check(&sealed(&encryption)).unwrap_err(),
        Failure::Unfit(Unfit::KeyUsage(_))
    ));
}

#[test]
fn a_seal_from_the_future_is_refused_but_a_clock_may_be_off_a_little() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    let at = |time: &str| {
        verify(
            document.as_bytes(),
            &VerifyOptions::new(&[], Some(time.parse().unwrap())),
        )
        .map(drop)
        .map_err(|error| error.failure().clone())
    };
    assert_eq!(at("2026-05-15T12:43:13Z"), Ok(()));
    assert_eq!(at("2026-05-15T12:39:00Z"), Ok(()));
    assert_eq!(
        at("2026-05-15T12:30:00Z"),
        Err(Failure::FromTheFuture("2026-05-15T12:43:13Z".parse().unwrap()))
    );
}

#[test]
fn a_chain_leads_to_an_anchor_or_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let identity = authority.issue(KeyType::EcP384, &Profile::default());
    let document = sealed(&identity);
    let with_trust = |trust: &[Certificate]| {
        verify(document.as_bytes(), &VerifyOptions::new(trust, None))
            .map(|verified| verified.chain)
            .map_err(|error| error.failure().clone())
    };
    assert_eq!(with_trust(&[]), Ok(Chain::NotChecked));
    assert_eq!(
        with_trust(&[stranger.certificate.clone(), authority.certificate.clone()]),
        Ok(Chain::Trusted)
    );
    assert_eq!(
        with_trust(std::slice::from_ref(&identity.certificate)),
        Ok(Chain::Trusted),
        "the leaf itself is trusted"
    );
    // The stranger has the same name: only the key tells them apart.
    assert_eq!(stranger.certificate.subject(), authority.certificate.subject());
    assert_eq!(with_trust(&[stranger.certificate]), Err(Failure::Untrusted));
}

#[test]
fn a_chain_may_lead_over_the_certificates_of_key_info() {
    let root = Authority::new();
    let chained = |below: &Authority, trust: &[Certificate]| {
        let document = sealed(&below.issue(KeyType::EcP256, &Profile::default()));
        let more = format!(
            "<ds:X509Certificate>{}</ds:X509Certificate></ds:X509Data>",
            common::base64(&below.certificate)
        );
        let document = with(&document, "</ds:X509Data>", &more);
        verify(document.as_bytes(), &VerifyOptions::new(trust, None)).map_err(|error| error.failure().clone())
    };
    let trust = [root.certificate.clone()];
    let below = root.below("Deneme - Sürüm 1", |_| ());
    assert_eq!(chained(&below, &trust).unwrap().chain, Chain::Trusted);
    let without = sealed(&below.issue(KeyType::EcP256, &Profile::default()));
    let error = verify(without.as_bytes(), &VerifyOptions::new(&trust, None)).unwrap_err();
    assert_eq!(*error.failure(), Failure::Untrusted, "nothing is fetched");

    // A taxpayer with a certificate from the same authority cannot issue others.
    let taxpayer = root.below("Deneme Ticaret", |params| {
        params.is_ca = rcgen::IsCa::NoCa;
    });
    assert_eq!(chained(&taxpayer, &trust).unwrap_err(), Failure::Untrusted);
    let usage = root.below("Deneme Ticaret", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    assert_eq!(chained(&usage, &trust).unwrap_err(), Failure::Untrusted);
    let expired = root.below("Deneme - Sürüm 1", |params| {
        params.not_after = rcgen::date_time_ymd(2026, 5, 1);
    });
    assert_eq!(chained(&expired, &trust).unwrap_err(), Failure::Untrusted);
    // One that may issue to taxpayers but to no further authority.
    let last = root.below("Deneme - Sürüm 1", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    });
    assert_eq!(chained(&last, &trust).unwrap().chain, Chain::Trusted);
    let beyond = last.below("Deneme - Sürüm 2", |_| ());
    let document = sealed(&beyond.issue(KeyType::EcP256, &Profile::default()));
    let both: String = [&last, &beyond]
        .map(|authority| {
            format!(
                "<ds:X509Certificate>{}</ds:X509Certificate>",
                common::base64(&authority.certificate)
            )
        })
        .concat();
    let document = with(&document, "</ds:X509Data>", &format!("{both}</ds:X509Data>"));
    let error = verify(document.as_bytes(), &VerifyOptions::new(&trust, None)).unwrap_err();
    assert_eq!(*error.failure(), Failure::Untrusted);
    // The right key under another name is another authority.
    let document = sealed(&root.issue(KeyType::EcP256, &Profile::default()));
    let renamed = [root.renamed("Başka")];
    let error = verify(document.as_bytes(), &VerifyOptions::new(&renamed, None)).unwrap_err();
    assert_eq!(*error.failure(), Failure::Untrusted);
}

#[test]
fn a_failure_names_its_line() {
    let document = sealed(&Identity::new(KeyType::EcP256)).replace("<ds:KeyInfo>", "\n\n  <ds:KeyInfo>");
    let document = with(&document, "<ds:KeyValue>", "<ds:KeyValue>\n<x/>");
    let error = verify(document.as_bytes(), &VerifyOptions::default()).unwrap_err();
    let position = error.position().unwrap();
    assert_eq!(*error.failure(), Failure::KeyInfo("KeyValue"));
    assert_eq!((position.line, position.column), (3, 15), "{error}");
    assert!(error.to_string().starts_with("line 3, column 15 "), "{error}");
}
