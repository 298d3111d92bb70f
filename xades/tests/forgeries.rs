//! Forgeries: everything that a seal could be made to say, or be moved to, without its key.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::seals::{INVOICE, check, sealed, signature, with};
use common::{Authority, Identity, Profile};
use muhurdar_xades::verify::Failure;
use muhurdar_xades::{KeyType, SignatureAlgorithm, VerifyOptions, verify};

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
    let foreign = with(&document, "</ds:SignedInfo>", "<ds:Manifest/></ds:SignedInfo>");
    assert!(matches!(check(&foreign).unwrap_err(), Failure::Structure(_)));
    let foreign = with(&document, "</ds:KeyInfo>", "</ds:KeyInfo><x/>");
    assert!(matches!(check(&foreign).unwrap_err(), Failure::Structure(_)));
    let many = "<ds:X509Certificate>AAAA</ds:X509Certificate>".repeat(16) + "</ds:X509Data>";
    assert!(matches!(
        check(&with(&document, "</ds:X509Data>", &many)).unwrap_err(),
        Failure::Structure(_)
    ));
    let target = with(&document, "Target=\"#Signature_1\"", "Target=\"#x\"");
    assert!(matches!(check(&target).unwrap_err(), Failure::Structure(_)));
    assert_eq!(
        check(&with(&document, "2026-05-15T15:43:13+03:00", "2026-05-15T15:43:13")).unwrap_err(),
        Failure::Value("xades:SigningTime"),
        "without a zone it is no instant"
    );
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
    // One may stand there, and a few: but each costs, so that not any number may.
    let tail = counter.find("</xades:CounterSignature>").unwrap() + "</xades:CounterSignature>".len();
    let many = format!("{seal}{}{}", counter[..tail].repeat(5), &counter[tail..]);
    assert!(matches!(check(&many).unwrap_err(), Failure::Structure(_)));
    // One that belongs to another seal: right in itself, but over another value.
    let other = std::fs::read_to_string(folder.join("5_KULLANICI_SILME.xml")).unwrap();
    let other = &other[other.find("<xades:CounterSignature>").unwrap()..];
    let tail = counter.find("</xades:CounterSignature>").unwrap();
    let other = &other[..other.find("</xades:CounterSignature>").unwrap()];
    let id = "60abf11e-7c38-4f57-a8ac-c3b08dc82848";
    let foreign = other.replace("c0f7cb17-a89f-4ed4-8264-9d720d79d6d0", id);
    assert!(check(&format!("{seal}{foreign}{}", &counter[tail..])).is_err());
}
