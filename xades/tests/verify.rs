//! The verifier: what others sealed verifies, what was tampered with does not, and says why.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Authority, Identity, Profile};
use muhurdar_xades::build::{Draft, Ids, Place};
use muhurdar_xades::c14n::{self, Method, Subset};
use muhurdar_xades::certificate::Unfit;
use muhurdar_xades::policy::{CanonicalizationMethod, ReferenceOrder};
use muhurdar_xades::verify::{Chain, Failure};
use muhurdar_xades::{
    Certificate, DocumentType, KeyType, Limits, Policy, RefusalKind, SignatureAlgorithm, Verified, VerifyOptions,
    verify,
};
use rcgen::KeyUsagePurpose;

const EXT: &str = "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2";
const INVOICE: &str = "urn:oasis:names:specification:ubl:schema:xsd:Invoice-2";

fn check(document: &str) -> Result<Verified, Failure> {
    verify(document.as_bytes(), &VerifyOptions::default()).map_err(|error| error.failure().clone())
}

/// An invoice in two halves, around its seal.
fn invoice() -> (String, &'static str) {
    let before = format!(
        "<Invoice xmlns=\"{INVOICE}\" xmlns:ext=\"{EXT}\"><ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent>"
    );
    let after = "</ext:ExtensionContent></ext:UBLExtension></ext:UBLExtensions><a Id=\"x\">Ş</a><b/></Invoice>";
    (before, after)
}

fn sealed_at(identity: &Identity, policy: &Policy, signing_time: &str) -> String {
    let (before, after) = invoice();
    let algorithm = policy.signature_algorithm(&identity.certificate);
    let body = format!("{before}{after}");
    let canonical = c14n::canonicalize(
        body.as_bytes(),
        &Method::INCLUSIVE,
        Subset::Document,
        &Limits::default(),
        Vec::new(),
    );
    let body_digest = algorithm.digest().digest(&canonical.unwrap());
    let draft = Draft {
        place: &Place::new([("", INVOICE), ("ext", EXT)], []),
        ids: &Ids::new("Signature_1"),
        body_digest: body_digest.as_ref(),
        certificate: &identity.certificate,
        policy,
        signing_time: signing_time.parse().unwrap(),
        claimed_role: policy.claimed_role.as_deref(),
    };
    let unsigned = draft.build();
    let value = identity.sign(algorithm, unsigned.signed_info());
    format!("{before}{}{after}", unsigned.assemble(&value))
}

fn sealed(identity: &Identity) -> String {
    sealed_at(identity, &Policy::default(), "2026-05-15T12:43:13Z")
}

/// Replaces one occurrence, and only one there may be.
fn with(document: &str, from: &str, to: &str) -> String {
    assert_eq!(document.matches(from).count(), 1, "{from} in {document}");
    document.replace(from, to)
}

/// The `ds:Signature` element.
fn signature(document: &str) -> &str {
    let start = document.find("<ds:Signature ").unwrap();
    let end = document.rfind("</ds:Signature>").unwrap() + "</ds:Signature>".len();
    &document[start..end]
}

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
fn no_byte_of_a_sealed_document_can_be_changed() {
    for key in [KeyType::EcP256, KeyType::Rsa2048] {
        let document = sealed(&Identity::new(key));
        // The one thing in a seal that nothing signs, by XML Signature's own design.
        let start = document.find("<ds:SignatureValue ").unwrap() + 19;
        let unsigned = start..start + "Id=\"Signature_1-SignatureValue\"".len();
        let document = document.into_bytes();
        verify(&document, &VerifyOptions::default()).unwrap();
        for at in (0..document.len()).filter(|at| !unsigned.contains(at)) {
            let mut changed = document.clone();
            changed[at] ^= 1;
            if let Ok(verified) = verify(&changed, &VerifyOptions::default()) {
                let around = String::from_utf8_lossy(&changed[at.saturating_sub(40)..(at + 40).min(changed.len())]);
                panic!("byte {at} was changed and nobody saw it: …{around}… {verified:?}");
            }
        }
    }
}

#[test]
fn what_was_changed_is_named() {
    let document = sealed(&Identity::new(KeyType::Rsa2048));
    assert_eq!(
        check(&with(&document, ">Ş<", ">S<")).unwrap_err(),
        Failure::DocumentDigest
    );
    assert_eq!(
        check(&with(&document, "15:43:13", "15:43:14")).unwrap_err(),
        Failure::PropertiesDigest
    );
    assert_eq!(
        check(&with(&document, ">Supplier<", ">Buyer<")).unwrap_err(),
        Failure::PropertiesDigest
    );
    let rsa512 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512";
    let rsa256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
    assert_eq!(
        check(&with(&document, rsa256, rsa512)).unwrap_err(),
        Failure::SignatureValue
    );
    let (start, end) = (
        document.find("-SignatureValue\">").unwrap() + 17,
        document.find("</ds:SignatureValue>").unwrap(),
    );
    let other = format!("{}{}{}", &document[..start], "AAAA".repeat(86) + "", &document[end..]);
    assert_eq!(check(&other).unwrap_err(), Failure::SignatureValue);
    let empty = format!("{}{}", &document[..start], &document[end..]);
    assert_eq!(check(&empty).unwrap_err(), Failure::Value("ds:SignatureValue"));
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
fn a_second_signature_is_refused_wherever_it_hides() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    let copy = signature(&document).to_owned();
    let forms = [
        with(&document, "<b/>", &copy),
        with(&document, "<a Id=\"x\">", &format!("<a Id=\"x\">{copy}")),
        document.replace(&copy, &format!("{copy}{copy}")),
        with(
            &document,
            "</xades:QualifyingProperties>",
            &format!(
                "<xades:UnsignedProperties><xades:UnsignedSignatureProperties><xades:CertificateValues>{copy}</xades:\
                 CertificateValues></xades:UnsignedSignatureProperties></xades:UnsignedProperties></xades:\
                 QualifyingProperties>"
            ),
        ),
    ];
    for form in forms {
        assert_eq!(check(&form).unwrap_err(), Failure::SecondSignature, "{form}");
    }
}

#[test]
fn a_moved_seal_is_refused() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    let seal = signature(&document).to_owned();
    let without = document.replace(&seal, "");
    // The digest of the document is the same wherever the signature stands in it: only the place tells.
    for place in ["<b/>", "<ext:UBLExtensions>"] {
        let to = if place == "<b/>" {
            format!("<b/>{seal}")
        } else {
            format!("{place}{seal}")
        };
        let moved = with(&without, place, &to);
        assert!(matches!(check(&moved).unwrap_err(), Failure::Place(_)), "{moved}");
    }
}

#[test]
fn a_sealed_document_in_another_root_is_refused() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    assert_eq!(
        check(&format!("<Wrapper>{document}</Wrapper>")).unwrap_err(),
        Failure::DocumentType
    );
    let inner = format!("<Invoice xmlns=\"{INVOICE}\">{document}</Invoice>");
    assert!(matches!(check(&inner).unwrap_err(), Failure::Place(_)));
}

#[test]
fn an_id_of_the_seal_may_stand_nowhere_else() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    for id in [
        "Signature_1",
        "Signature_1-SignedProperties",
        "Signature_1-SignatureValue",
    ] {
        for attribute in ["Id", "ID", "id", "xml:id"] {
            let twice = with(&document, "<a Id=\"x\">", &format!("<a {attribute}=\"{id}\">"));
            assert_eq!(check(&twice).unwrap_err(), Failure::DuplicateId, "{attribute} {id}");
        }
    }
}

#[test]
fn only_the_two_references_of_a_seal_are_taken() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    let enveloped = "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>";
    let second = "<ds:Transform Algorithm=\"http://www.w3.org/TR/2001/REC-xml-c14n-20010315\"></ds:Transform>";
    let properties = "Type=\"http://uri.etsi.org/01903#SignedProperties\" ";
    let start = document.find("<ds:Reference URI=\"\">").unwrap();
    let reference = &document[start..document.find("</ds:Reference>").unwrap() + 15];
    for form in [
        with(&document, "<ds:Reference URI=\"\">", "<ds:Reference URI=\"#x\">"),
        with(&document, "<ds:Reference URI=\"\">", "<ds:Reference>"),
        with(
            &document,
            "<ds:Reference URI=\"\">",
            "<ds:Reference URI=\"\" Type=\"urn:t\">",
        ),
        with(&document, enveloped, ""),
        with(&document, enveloped, second),
        with(&document, enveloped, &format!("{enveloped}{second}")),
        with(
            &document,
            enveloped,
            "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xpath-19991116\"/>",
        ),
        with(&document, properties, ""),
        with(&document, "URI=\"#Signature_1-SignedProperties\"", "URI=\"#x\""),
        with(&document, reference, ""),
        with(&document, reference, &format!("{reference}{reference}")),
    ] {
        assert!(matches!(check(&form).unwrap_err(), Failure::References(_)), "{form}");
    }
}

#[test]
fn an_algorithm_of_the_past_is_refused_by_name() {
    let document = sealed(&Identity::new(KeyType::Rsa2048));
    let sha1 = "http://www.w3.org/2000/09/xmldsig#sha1";
    for (what, form) in [
        (
            "SignatureMethod",
            with(
                &document,
                "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
                "http://www.w3.org/2000/09/xmldsig#rsa-sha1",
            ),
        ),
        (
            "CanonicalizationMethod",
            with(&document, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "urn:c14n"),
        ),
        (
            "DigestMethod",
            document.replacen("http://www.w3.org/2001/04/xmlenc#sha256", sha1, 1),
        ),
        (
            "DigestMethod",
            document.replace("http://www.w3.org/2001/04/xmlenc#sha256", sha1),
        ),
    ] {
        assert_eq!(check(&form).unwrap_err(), Failure::Algorithm(what));
    }
}

#[test]
fn an_algorithm_of_another_key_is_refused() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    for algorithm in [SignatureAlgorithm::EcdsaSha384, SignatureAlgorithm::RsaSha256] {
        let form = with(&document, SignatureAlgorithm::EcdsaSha256.uri(), algorithm.uri());
        assert_eq!(
            check(&form).unwrap_err(),
            Failure::AlgorithmForKey {
                algorithm,
                key: KeyType::EcP256
            }
        );
    }
}

#[test]
fn key_info_and_signing_certificate_must_agree() {
    let authority = Authority::new();
    let [ours, theirs] = [(), ()].map(|()| authority.issue(KeyType::EcP256, &Profile::default()));
    let (document, other) = (sealed(&ours), sealed(&theirs));
    let part = |document: &str, name: &str| {
        let start = document.find(&format!("<ds:{name}>")).unwrap();
        let end = document.find(&format!("</ds:{name}>")).unwrap();
        document[start..end].to_owned()
    };
    let swap = |name: &str| with(&document, &part(&document, name), &part(&other, name));
    assert_eq!(
        check(&swap("X509Certificate")).unwrap_err(),
        Failure::SigningCertificate("the digest")
    );
    assert_eq!(
        check(&swap("KeyInfo")).unwrap_err(),
        Failure::SigningCertificate("the digest")
    );
    assert_eq!(check(&swap("KeyValue")).unwrap_err(), Failure::KeyInfo("KeyValue"));
    assert_eq!(
        check(&swap("X509SerialNumber")).unwrap_err(),
        Failure::SigningCertificate("the serial number")
    );
    let subject = with(&document, ",SERIALNUMBER=1234567801<", ",SERIALNUMBER=1234567802<");
    assert_eq!(check(&subject).unwrap_err(), Failure::KeyInfo("X509SubjectName"));
    let issuer = with(&document, "Sürüm 0,", "Sürüm 1,");
    assert_eq!(check(&issuer).unwrap_err(), Failure::SigningCertificate("the issuer"));
    // Another certificate beside the right one is a chain's, or nothing: it never becomes the signer.
    let more = format!(
        "{}</ds:X509Certificate>{}",
        part(&other, "X509Certificate"),
        part(&document, "X509Certificate")
    );
    let both = with(&document, &part(&document, "X509Certificate"), &more);
    assert_eq!(check(&both).unwrap().certificate, ours.certificate);
}

#[test]
fn what_a_seal_must_have_is_missed_by_name() {
    let document = sealed(&Identity::new(KeyType::EcP256));
    let cut = |name: &str| {
        let start = document.find(&format!("<{name}")).unwrap();
        let end = document.find(&format!("</{name}>")).unwrap() + name.len() + 3;
        format!("{}{}", &document[..start], &document[end..])
    };
    for name in [
        "ds:SignedInfo",
        "ds:SignatureValue",
        "ds:KeyInfo",
        "ds:Object",
        "ds:CanonicalizationMethod",
        "ds:SignatureMethod",
        "xades:QualifyingProperties",
        "xades:SignedProperties",
        "xades:SigningTime",
        "xades:SigningCertificate",
        "xades:Cert",
        "xades:IssuerSerial",
    ] {
        // "SigningCertificate" begins with "Cert" nowhere, but "Cert" is found in "CertDigest": cut at the right one.
        let form = if name == "xades:Cert" {
            let start = document.find("<xades:Cert>").unwrap();
            let end = document.find("</xades:Cert>").unwrap() + 13;
            format!("{}{}", &document[..start], &document[end..])
        } else {
            cut(name)
        };
        match check(&form).unwrap_err() {
            Failure::Missing(missing) => assert_eq!(missing, name),
            other => panic!("{name}: {other}"),
        }
    }
    let doubled = with(&document, "</ds:Object>", "</ds:Object><ds:Object/>");
    assert_eq!(check(&doubled).unwrap_err(), Failure::Doubled("ds:Object"));
    let foreign = with(&document, "</ds:KeyInfo>", "</ds:KeyInfo><x/>");
    assert!(matches!(check(&foreign).unwrap_err(), Failure::Structure(_)));
    let target = with(&document, "Target=\"#Signature_1\"", "Target=\"#x\"");
    assert!(matches!(check(&target).unwrap_err(), Failure::Structure(_)));
    assert_eq!(
        check(&with(&document, "2026-05-15T15:43:13+03:00", "2026-05-15T15:43:13")).unwrap_err(),
        Failure::Value("xades:SigningTime"),
        "without a zone it is no instant"
    );
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
fn a_failure_names_its_line() {
    let document = sealed(&Identity::new(KeyType::EcP256)).replace("<ds:KeyInfo>", "\n\n  <ds:KeyInfo>");
    let document = with(&document, "<ds:KeyValue>", "<ds:KeyValue>\n<x/>");
    let error = verify(document.as_bytes(), &VerifyOptions::default()).unwrap_err();
    let position = error.position().unwrap();
    assert_eq!(*error.failure(), Failure::KeyInfo("KeyValue"));
    assert_eq!((position.line, position.column), (3, 15), "{error}");
    assert!(error.to_string().starts_with("line 3, column 15 "), "{error}");
}

#[test]
fn a_counter_signature_is_held_to_the_same() {
    let Some(folder) = common::shared("signed") else { return };
    let document = std::fs::read_to_string(folder.join("4_KULLANICI_ACMA.xml")).unwrap();
    let (seal, counter) = document.split_at(document.find("<xades:CounterSignature>").unwrap());
    let changed = |from: &str, to: &str| check(&format!("{seal}{}", with(counter, from, to))).unwrap_err();
    assert_eq!(changed("11:03:48.942", "11:03:48.943"), Failure::PropertiesDigest);
    assert!(matches!(
        changed("URI=\"#Signature_Value_", "URI=\"#Signature_"),
        Failure::References(_)
    ));
    let value = counter.find("csid1\">").unwrap() + 7;
    let broken = format!("{seal}{}AAAA{}", &counter[..value], &counter[value + 4..]);
    assert_eq!(check(&broken).unwrap_err(), Failure::SignatureValue);
    // One that belongs to another seal: right in itself, but over another value.
    let other = std::fs::read_to_string(folder.join("5_KULLANICI_SILME.xml")).unwrap();
    let other = &other[other.find("<xades:CounterSignature>").unwrap()..];
    let tail = counter.find("</xades:CounterSignature>").unwrap();
    let other = &other[..other.find("</xades:CounterSignature>").unwrap()];
    let id = "60abf11e-7c38-4f57-a8ac-c3b08dc82848";
    let foreign = other.replace("c0f7cb17-a89f-4ed4-8264-9d720d79d6d0", id);
    assert!(check(&format!("{seal}{foreign}{}", &counter[tail..])).is_err());
}
