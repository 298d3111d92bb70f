//! Seals built at places of every kind, digested by xmllint and judged by xmlsec1: no canonicalizer of ours takes part.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Authority, Identity, Profile};
use muhurdar_xades::build::{Draft, Ids, Place};
use muhurdar_xades::policy::{CanonicalizationMethod, ReferenceOrder};
use muhurdar_xades::{DigestAlgorithm, KeyType, Policy};

const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const XADES: &str = "http://uri.etsi.org/01903/v1.3.2#";

/// A document in two halves, and what is in scope between them.
struct Around {
    name: &'static str,
    before: String,
    after: &'static str,
    namespaces: Vec<(&'static str, &'static str)>,
    xml_attributes: Vec<(&'static str, &'static str)>,
}

fn places() -> Vec<Around> {
    vec![
        Around {
            name: "the root declares ds and xades",
            before: format!(
                "<?xml version=\"1.0\"?>\n<Invoice xmlns=\"urn:i\" xmlns:xades=\"{XADES}\" xmlns:ds=\"{DS}\"><e:x xmlns:e=\"urn:e\">"
            ),
            after: "</e:x><a>Ş</a></Invoice>",
            namespaces: vec![("", "urn:i"), ("xades", XADES), ("ds", DS), ("e", "urn:e")],
            xml_attributes: vec![],
        },
        Around {
            name: "nothing is declared",
            before: "<Invoice>".to_owned(),
            after: "<a/></Invoice>",
            namespaces: vec![],
            xml_attributes: vec![],
        },
        Around {
            name: "other prefixes, ds taken, xml attributes, an undeclared default",
            before: format!(
                "<z:I xmlns:z=\"urn:z?b='2'\" xmlns:ds=\"urn:taken\" xmlns:sig=\"{DS}\" xmlns=\"urn:i\" \
                 xml:lang=\"tr\" xml:space=\"preserve\"><z:x xmlns=\"\" xml:lang=\"a&amp;b\">\r\n"
            ),
            after: "\n</z:x></z:I>",
            namespaces: vec![("z", "urn:z?b='2'"), ("ds", "urn:taken"), ("sig", DS), ("", "")],
            xml_attributes: vec![("lang", "a&b"), ("space", "preserve")],
        },
    ]
}

impl Around {
    /// `None` where a tool is missing.
    fn seal(&self, identity: &Identity, policy: &Policy) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body.xml");
        std::fs::write(&file, format!("{}{}", self.before, self.after)).unwrap();
        let canonical = common::tool("xmllint")?.arg("--c14n").arg(&file).output().unwrap();
        assert!(canonical.status.success());
        let algorithm = policy.signature_algorithm(&identity.certificate);
        let body_digest = algorithm.digest().digest(&canonical.stdout);
        let place = Place::new(self.namespaces.iter().copied(), self.xml_attributes.iter().copied());
        let draft = Draft {
            place: &place,
            ids: &Ids::new("Signature_ABC2026000000001"),
            body_digest: body_digest.as_ref(),
            certificate: &identity.certificate,
            policy,
            signing_time: "2026-05-15T12:43:13Z".parse().unwrap(),
            claimed_role: policy.claimed_role.as_deref(),
        };
        let unsigned = draft.build();
        assert_eq!(unsigned.algorithm(), algorithm);
        assert_eq!(
            unsigned.digest().as_ref(),
            algorithm.digest().digest(unsigned.signed_info()).as_ref()
        );
        let value = identity.sign(algorithm, unsigned.signed_info());
        Some(format!("{}{}{}", self.before, unsigned.assemble(&value), self.after))
    }
}

fn judge(sealed: &str) -> Option<Result<(), String>> {
    let file = tempfile::Builder::new().suffix(".xml").tempfile().unwrap();
    std::fs::write(file.path(), sealed).unwrap();
    common::xmlsec1(file.path())
}

fn assert_verifies(around: &Around, identity: &Identity, policy: &Policy) {
    let Some(sealed) = around.seal(identity, policy) else {
        return;
    };
    let key = identity.certificate.key_type();
    if let Some(Err(why)) = judge(&sealed) {
        panic!("{}, {key}, {policy:?}:\n{why}\n{sealed}", around.name);
    }
}

#[test]
fn a_seal_verifies_at_every_kind_of_place_with_every_kind_of_key() {
    let authority = Authority::new();
    for key in [
        KeyType::Rsa2048,
        KeyType::Rsa3072,
        KeyType::EcP256,
        KeyType::EcP384,
        KeyType::EcP521,
    ] {
        let identity = authority.issue(key, &Profile::default());
        for around in places() {
            assert_verifies(&around, &identity, &Policy::default());
        }
    }
}

#[test]
fn a_seal_verifies_under_every_policy() {
    let identity = Identity::new(KeyType::Rsa2048);
    for canonicalization in CanonicalizationMethod::ALL {
        for (reference_order, key_info, claimed_role, zone, rsa_digest) in [
            (
                ReferenceOrder::DocumentFirst,
                "X509Certificate",
                None,
                "Z",
                DigestAlgorithm::Sha384,
            ),
            (
                ReferenceOrder::PropertiesFirst,
                "X509SubjectName, X509Certificate, KeyValue",
                Some("Tedarikçi <&>"),
                "Europe/Istanbul",
                DigestAlgorithm::Sha512,
            ),
        ] {
            let policy = Policy {
                canonicalization,
                reference_order,
                key_info: key_info.parse().unwrap(),
                claimed_role: claimed_role.map(str::to_owned),
                zone: zone.parse().unwrap(),
                rsa_digest,
                ..Policy::default()
            };
            for around in places() {
                assert_verifies(&around, &identity, &policy);
            }
        }
    }
}

#[test]
fn a_changed_byte_is_seen_by_xmlsec1() {
    let identity = Identity::new(KeyType::EcP384);
    let Some(sealed) = places()[0].seal(&identity, &Policy::default()) else {
        return;
    };
    for (what, from, to) in [
        ("body", "<a>Ş</a>", "<a>S</a>"),
        ("properties", "15:43:13", "15:43:14"),
        ("role", ">Supplier<", ">Supplied<"),
        ("SignedInfo", "DigestValue>", "DigestValue >"),
    ] {
        let changed = match what {
            // White space within a tag is not content: change a digest instead.
            "SignedInfo" => {
                let at = sealed.find(from).unwrap() + from.len();
                let other = if &sealed[at..=at] == "A" { "B" } else { "A" };
                format!("{}{other}{}", &sealed[..at], &sealed[at + 1..])
            }
            _ => sealed.replacen(from, to, 1),
        };
        assert_ne!(changed, sealed, "{what}");
        if let Some(judged) = judge(&changed) {
            assert!(judged.is_err(), "{what} was changed and nobody saw it");
        }
    }
}

#[test]
fn nothing_is_declared_twice_and_the_element_is_small() {
    let identity = Identity::new(KeyType::Rsa2048);
    let [declared, bare, _] = &places()[..] else {
        unreachable!()
    };
    let Some(sealed) = declared.seal(&identity, &Policy::default()) else {
        return;
    };
    assert_eq!(sealed.matches("xmlns:").count(), 3, "{sealed}");
    let sealed = bare.seal(&identity, &Policy::default()).unwrap();
    assert_eq!(sealed.matches("xmlns:").count(), 2);
    assert!(sealed.contains(&format!(
        "<ds:Signature xmlns:ds=\"{DS}\" xmlns:xades=\"{XADES}\" Id=\"Signature_ABC"
    )));
}

#[test]
fn a_counter_signature_verifies_over_the_value() {
    let identity = Identity::new(KeyType::Rsa2048);
    let around = &places()[0];
    let policy = Policy::default();
    let place = Place::new(around.namespaces.iter().copied(), []);
    let ids = Ids::new("Signature_1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body.xml");
    std::fs::write(&file, format!("{}{}", around.before, around.after)).unwrap();
    let Some(mut xmllint) = common::tool("xmllint") else {
        return;
    };
    let canonical = xmllint.arg("--c14n").arg(&file).output().unwrap().stdout;
    let body_digest = DigestAlgorithm::Sha256.digest(&canonical);
    let draft = Draft {
        place: &place,
        ids: &ids,
        body_digest: body_digest.as_ref(),
        certificate: &identity.certificate,
        policy: &policy,
        signing_time: "2026-05-15T12:43:13Z".parse().unwrap(),
        claimed_role: Some("Supplier"),
    };
    let unsigned = draft.build();
    let algorithm = unsigned.algorithm();
    let value = identity.sign(algorithm, unsigned.signed_info());
    let counter = draft.build_counter(&value);
    let counter_value = identity.sign(algorithm, counter.signed_info());
    let counter = counter.assemble(&counter_value);
    let sealed = format!(
        "{}{}{}",
        around.before,
        unsigned.assemble_countersigned(&value, &counter),
        around.after
    );
    if let Some(Err(why)) = judge(&sealed) {
        panic!("{why}\n{sealed}");
    }
    // The counter-signature is the second Signature: --node-id points xmlsec1 there.
    let file = folder.path().join("sealed.xml");
    std::fs::write(&file, &sealed).unwrap();
    let Some(mut xmlsec1) = common::tool("xmlsec1") else {
        return;
    };
    let output = xmlsec1
        .args(["--verify", "--insecure", "--node-id", "Signature_1-CounterSignature"])
        .args(["--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties"])
        .args(["--id-attr:Id", "http://www.w3.org/2000/09/xmldsig#:Signature"])
        .args(["--id-attr:Id", "http://www.w3.org/2000/09/xmldsig#:SignatureValue"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{sealed}",
        String::from_utf8_lossy(&output.stderr)
    );
}
