//! Seals of every kind, put on documents that nobody here wrote, before verifiers that nobody here wrote.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::judges::JUDGES;
use common::{Authority, Identity, Profile};
use muhurdar_xades::policy::{CanonicalizationMethod, ReferenceOrder, SealPlace};
use muhurdar_xades::{DigestAlgorithm, KeyType, Limits, Policy, Refusal, Sealing, VerifyOptions, prepare, verify};

fn seal(document: &[u8], identity: &Identity, policy: &Policy) -> Result<Vec<u8>, Refusal> {
    let sealing = Sealing {
        certificate: &identity.certificate,
        policy,
        limits: &Limits::default(),
        signing_time: "2026-05-15T12:43:13Z".parse().unwrap(),
        expect: None,
    };
    let mut prepared = prepare(document, &sealing)?;
    let algorithm = prepared.signature_algorithm();
    if prepared.wants_countersignature() {
        let value = identity.sign(algorithm, prepared.signed_info());
        prepared = prepared.countersign(&value).unwrap();
    }
    let value = identity.sign(algorithm, prepared.signed_info());
    Ok(prepared.finish(&value).unwrap().splice(document))
}

/// Every document of others that can be sealed, with its name.
fn documents() -> Vec<(String, Vec<u8>)> {
    let folders = ["ubl-tr/unsigned", "ubl-tr/variants", "earsiv"];
    let files = folders
        .into_iter()
        .filter_map(common::shared)
        .flat_map(|folder| common::xml_files(&folder));
    files
        .map(|file| {
            (
                file.file_stem().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&file).unwrap(),
            )
        })
        .collect()
}

fn write(folder: &Path, name: &str, document: &[u8]) -> PathBuf {
    let path = folder.join(format!("{name}.xml"));
    assert!(!path.exists(), "two documents called {name}");
    std::fs::write(&path, document).unwrap();
    path
}

fn assert_all_accept(files: &[PathBuf], identity: &Identity) {
    let key = identity.certificate.key_type();
    for file in files {
        let verified = verify(&std::fs::read(file).unwrap(), &VerifyOptions::default());
        let verified = verified.unwrap_or_else(|error| panic!("{key}: {}: {error}", file.display()));
        assert_eq!(verified.certificate, identity.certificate);
    }
    for judge in &JUDGES {
        let files = judge.able(files);
        let Some(verdicts) = judge.ask(&files, identity) else {
            continue;
        };
        for (file, verdict) in files.iter().zip(&verdicts) {
            if let Err(why) = verdict {
                let kept = std::env::temp_dir().join("muhurdar-refused.xml");
                std::fs::copy(file, &kept).unwrap();
                panic!(
                    "{} refuses {} ({key}): {why}\nkept as {}",
                    judge.name,
                    file.display(),
                    kept.display()
                );
            }
        }
        println!("{}: {} seals of {key} accepted", judge.name, files.len());
    }
}

#[test]
fn everybody_accepts_our_seals_on_every_official_document() {
    let authority = Authority::new();
    for key in [KeyType::Rsa2048, KeyType::EcP384] {
        let identity = authority.issue(key, &Profile::default());
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (name, document) in documents() {
            match seal(&document, &identity, &Policy::default()) {
                Ok(sealed) => files.push(write(folder.path(), &name, &sealed)),
                Err(refusal) => println!("{name} is not sealed: {refusal}"),
            }
        }
        assert_all_accept(&files, &identity);
    }
}

/// Which of the files are valid, by GİB's schema of this document: xmllint says so of each.
fn valid(root: &str, schemas: &Path, files: &[PathBuf]) -> Option<Vec<PathBuf>> {
    let mut xmllint = common::tool("xmllint")?;
    let schema = schemas.join(format!("maindoc/UBL-{root}-2.1.xsd"));
    let output = xmllint
        .args(["--noout", "--nonet", "--schema"])
        .arg(schema)
        .args(files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_valid = |file: &&PathBuf| said.lines().any(|line| line == format!("{} validates", file.display()));
    Some(files.iter().filter(is_valid).cloned().collect())
}

#[test]
fn a_document_that_was_valid_is_valid_with_its_seal() {
    let Some(schemas) = common::shared("ubl-tr/xsd") else {
        return;
    };
    let authority = Authority::new();
    for key in [KeyType::Rsa2048, KeyType::EcP384] {
        let identity = authority.issue(key, &Profile::default());
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut by_root: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (name, document) in documents() {
            let sealed = seal(&document, &identity, &Policy::default()).unwrap();
            let verified = verify(&sealed, &VerifyOptions::default()).unwrap();
            if verified.document_type.is_ubl() {
                let file = write(before.path(), &name, &document);
                by_root
                    .entry(verified.document_type.name().to_owned())
                    .or_default()
                    .push(file);
                write(after.path(), &name, &sealed);
            }
        }
        for (root, files) in by_root {
            let Some(were) = valid(&root, &schemas, &files) else {
                return;
            };
            let sealed: Vec<_> = were
                .iter()
                .map(|file| after.path().join(file.file_name().unwrap()))
                .collect();
            assert_eq!(valid(&root, &schemas, &sealed).unwrap(), sealed, "{root}");
            println!(
                "{root}: {} of {} are valid, and stay so under a seal of {key}",
                were.len(),
                files.len()
            );
        }
    }
}

/// An invoice of our own, small.
const INVOICE: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<Invoice xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Invoice-2\"\n",
    "  xmlns:cbc=\"urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2\"\n",
    "  xmlns:ext=\"urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2\">\n",
    "  <ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n",
    "  <cbc:ID>ABC2026000000001</cbc:ID><cbc:Note>Şişli &amp; Çağlayan</cbc:Note>\n",
    "</Invoice>\n"
);

/// Every key and every way to write a seal.
fn kinds() -> Vec<(KeyType, Vec<Policy>)> {
    let mut of_rsa = Vec::new();
    for canonicalization in CanonicalizationMethod::ALL {
        for (reference_order, key_info, zone, rsa_digest) in [
            (
                ReferenceOrder::DocumentFirst,
                "KeyValue,X509SubjectName,X509Certificate",
                "+03:00",
                DigestAlgorithm::Sha256,
            ),
            (
                ReferenceOrder::PropertiesFirst,
                "X509Certificate",
                "Z",
                DigestAlgorithm::Sha384,
            ),
            (
                ReferenceOrder::DocumentFirst,
                "X509SubjectName,X509Certificate,KeyValue",
                "Z",
                DigestAlgorithm::Sha512,
            ),
        ] {
            of_rsa.push(Policy {
                canonicalization,
                reference_order,
                key_info: key_info.parse().unwrap(),
                zone: zone.parse().unwrap(),
                rsa_digest,
                claimed_role: (rsa_digest != DigestAlgorithm::Sha384).then(|| "Tedarikçi".to_owned()),
                signature_id: format!("Seal-{{id}}.{}", of_rsa.len()),
                place: SealPlace::default(),
            });
        }
    }
    let of_ec: Vec<_> = of_rsa.iter().step_by(2).cloned().collect();
    // One of each digest.
    let of_longer_rsa = of_rsa[..3].to_vec();
    vec![
        (KeyType::Rsa2048, of_rsa),
        (KeyType::Rsa3072, of_longer_rsa.clone()),
        (KeyType::Rsa4096, of_longer_rsa),
        (KeyType::EcP256, of_ec.clone()),
        (KeyType::EcP384, of_ec.clone()),
        (KeyType::EcP521, of_ec),
    ]
}

#[test]
fn everybody_accepts_every_kind_of_seal() {
    let authority = Authority::new();
    for (key, policies) in kinds() {
        let identity = authority.issue(key, &Profile::default());
        let folder = tempfile::tempdir().unwrap();
        let seals = policies.iter().enumerate().map(|(i, policy)| {
            let sealed = seal(INVOICE.as_bytes(), &identity, policy).unwrap();
            write(folder.path(), &format!("policy-{i}"), &sealed)
        });
        let files: Vec<_> = seals.collect();
        assert_all_accept(&files, &identity);
    }
}

/// A document of our own of every family in the law, with its name.
fn families() -> Vec<(String, Vec<u8>)> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let names = [
        "invoice",
        "invoice-without-extensions",
        "credit-note",
        "despatch-advice",
        "receipt-advice",
        "application-response",
        "report",
        "ledger",
        "berat",
        "user-account",
    ];
    let read = |name: &str| {
        (
            name.to_owned(),
            std::fs::read(seeds.join(format!("{name}.xml"))).unwrap(),
        )
    };
    names.map(read).into()
}

/// A sealed document with one byte changed, in each of the parts that a seal protects. To another letter or digit, so that
/// it stays base64, a number, a time.
fn tampered(sealed: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let find = |from: usize, what: &str| {
        let at = sealed[from..]
            .windows(what.len())
            .position(|window| window == what.as_bytes());
        from + at.unwrap_or_else(|| panic!("no {what} in {}", String::from_utf8_lossy(sealed))) + what.len()
    };
    let seal = find(0, "<ds:Signature ");
    let end = find(seal, "</ds:Signature>");
    // The first letter or digit of a text outside the seal.
    let is_body = |at: &usize| sealed[at - 1] == b'>' && sealed[*at].is_ascii_alphanumeric();
    let body = (end + 1..sealed.len()).chain(1..seal).find(is_body).unwrap();
    let value = find(find(seal, "<ds:SignatureValue "), ">");
    let changed = |at: usize| {
        let mut bytes = sealed.to_vec();
        bytes[at] = if bytes[at] == b'4' { b'5' } else { b'4' };
        bytes
    };
    vec![
        ("body", changed(body)),
        ("time", changed(find(seal, "<xades:SigningTime>2026-05-15T15:43:1"))),
        ("serial", changed(find(seal, "<ds:X509SerialNumber>"))),
        (
            "signed-info",
            changed(find(find(seal, "<ds:SignedInfo>"), "<ds:DigestValue>")),
        ),
        ("value", changed(value)),
    ]
}

fn assert_all_refuse(files: &[PathBuf], identity: &Identity) {
    let key = identity.certificate.key_type();
    for file in files {
        let verdict = verify(&std::fs::read(file).unwrap(), &VerifyOptions::default());
        assert!(verdict.is_err(), "{}", file.display());
    }
    for judge in &JUDGES {
        let Some(verdicts) = judge.ask(files, identity) else {
            continue;
        };
        for (file, verdict) in files.iter().zip(verdicts) {
            assert!(verdict.is_err(), "{} accepts {} ({key})", judge.name, file.display());
        }
        println!("{}: {} changed seals of {key} refused", judge.name, files.len());
    }
}

/// Of both keys that are in use, on every family: accepted as it is, refused with a byte changed anywhere.
#[test]
fn everybody_accepts_every_family_and_refuses_a_changed_byte_of_it() {
    let authority = Authority::new();
    for key in [KeyType::Rsa2048, KeyType::EcP384] {
        let identity = authority.issue(key, &Profile::default());
        let folder = tempfile::tempdir().unwrap();
        let (mut sealed, mut changed) = (Vec::new(), Vec::new());
        for (name, document) in families() {
            let bytes = seal(&document, &identity, &Policy::default()).unwrap();
            for (part, bytes) in tampered(&bytes) {
                changed.push(write(folder.path(), &format!("{name}-{part}"), &bytes));
            }
            sealed.push(write(folder.path(), &name, &bytes));
        }
        assert_all_accept(&sealed, &identity);
        assert_all_refuse(&changed, &identity);
    }
}

#[test]
fn a_seal_may_have_an_extension_of_its_own_though_another_is_free() {
    let identity = Identity::new(KeyType::Rsa2048);
    let policy = Policy {
        place: SealPlace::OwnExtension,
        ..Policy::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, document) in families() {
        let sealed = seal(&document, &identity, &policy).unwrap();
        let text = String::from_utf8(sealed.clone()).unwrap();
        if name == "invoice" {
            assert!(text.contains("<ext:ExtensionContent><!-- seal --></ext:ExtensionContent>"));
            assert!(text.contains("<ext:UBLExtension><ext:ExtensionContent><ds:Signature "));
            assert!(text.contains("</ds:Signature></ext:ExtensionContent></ext:UBLExtension></ext:UBLExtensions>"));
        }
        files.push(write(folder.path(), &name, &sealed));
    }
    assert_all_accept(&files, &identity);
}

#[test]
fn everybody_refuses_a_changed_byte() {
    let authority = Authority::new();
    for key in [KeyType::Rsa3072, KeyType::Rsa4096, KeyType::EcP256, KeyType::EcP521] {
        let identity = authority.issue(key, &Profile::default());
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        let digests = if key.is_rsa() {
            &DigestAlgorithm::ALL[..]
        } else {
            &[DigestAlgorithm::Sha256]
        };
        for rsa_digest in digests.iter().copied() {
            let policy = Policy {
                rsa_digest,
                ..Policy::default()
            };
            let sealed = seal(INVOICE.as_bytes(), &identity, &policy).unwrap();
            for (part, bytes) in tampered(&sealed) {
                files.push(write(folder.path(), &format!("{part}-{rsa_digest:?}"), &bytes));
            }
        }
        assert_all_refuse(&files, &identity);
    }
}

#[test]
fn a_branch_with_only_the_certificate_splices_what_the_service_would_have() {
    // Hash-only: the branch prepares with the certificate, the digest goes out and the value comes back, and the branch
    // splices. RSA's PKCS#1 v1.5 is deterministic, so both ways must give the same bytes.
    let identity = Identity::new(KeyType::Rsa2048);
    let policy = Policy::default();
    let mut all = documents();
    all.push(("own".to_owned(), INVOICE.as_bytes().to_vec()));
    for (name, document) in all {
        let Ok(of_service) = seal(&document, &identity, &policy) else {
            continue;
        };
        let sealing = Sealing {
            certificate: &muhurdar_xades::Certificate::from_der(identity.certificate.der()).unwrap(),
            policy: &policy,
            limits: &Limits::default(),
            signing_time: "2026-05-15T12:43:13Z".parse().unwrap(),
            expect: None,
        };
        let mut prepared = prepare(&document, &sealing).unwrap();
        if prepared.wants_countersignature() {
            let value = identity.sign_digest(prepared.signature_algorithm(), prepared.digest());
            prepared = prepared.countersign(&value).unwrap();
        }
        let value = identity.sign_digest(prepared.signature_algorithm(), prepared.digest());
        let sealed = prepared.finish(&value).unwrap();
        assert_eq!(sealed.splice(&document), of_service, "{name}");
        let range = sealed.range();
        let spliced = [&document[..range.start], sealed.replacement(), &document[range.end..]].concat();
        assert_eq!(spliced, of_service, "{name}: the caller's own splice");
        assert_eq!(
            DigestAlgorithm::Sha256.digest(&of_service).as_ref(),
            sealed.sealed_sha256(&document),
            "{name}: the digest that an e-Arşiv report quotes"
        );
    }
}
