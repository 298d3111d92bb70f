//! Seals made by xmlsec1 itself: none of the project's code is between the verifier and its proof.

use std::{path::Path, process::Command, sync::Arc};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{SealPatch, SealResponse, SealResult};
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::generator::{Document, Generator, Kind, TaxpayerMix, Workload};

const TEMPLATE: &str = r##"<ds:Signature Id="Signature"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"/><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"/><ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue/></ds:Reference></ds:SignedInfo><ds:SignatureValue/><ds:KeyInfo><ds:X509Data><ds:X509Certificate/></ds:X509Data></ds:KeyInfo></ds:Signature>"##;

struct Sealer {
    folder: tempfile::TempDir,
    certificate: Arc<[u8]>,
}

impl Sealer {
    /// None, with a word about it, where xmlsec1 is missing.
    fn new(test: &str) -> Option<(Self, Xmlsec1)> {
        let Some(xmlsec1) = Xmlsec1::find() else {
            eprintln!("SKIPPED {test}: xmlsec1 is not installed (apt-get install xmlsec1)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["test".into()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        let der = rustls_pki_types::CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap();
        Some((
            Self {
                folder,
                certificate: Arc::from(der.as_ref()),
            },
            xmlsec1,
        ))
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.folder.path()).join(name).display().to_string()
    }

    fn taxpayer(&self) -> Taxpayer {
        Taxpayer {
            number: "1234567890".into(),
            certificate: Some(self.certificate.clone()),
        }
    }

    fn documents(&self, count: usize) -> Vec<Document> {
        let workload = Workload {
            kinds: Kind::ALL.to_vec(),
            sizes: "6k,20k".parse().unwrap(),
            taxpayers: TaxpayerMix::new(vec![self.taxpayer()], 0.0).unwrap(),
            seed: 11,
            issue_date: jiff::civil::date(2026, 11, 21),
            given: None,
        };
        let mut generator = Generator::new(workload, 0, 1);
        (0..count).map(|_| generator.document()).collect()
    }

    fn seal(&self, document: &Document) -> Vec<u8> {
        let text = String::from_utf8(document.to_vec()).unwrap();
        let place = "<ext:ExtensionContent>";
        let (input, output) = (self.path("in.xml"), self.path("out.xml"));
        fs::write(&input, text.replacen(place, &format!("{place}{TEMPLATE}"), 1)).unwrap();
        let done = Command::new("xmlsec1")
            .args([
                "--sign",
                "--privkey-pem",
                &format!("{},{}", self.path("key.pem"), self.path("cert.pem")),
            ])
            .args(["--output", &output, &input])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        // xmlsec1 writes the whole document anew; only its signature is wanted, in a document that is otherwise as it was.
        let signed = fs::read_to_string(output).unwrap();
        let (from, to) = (
            signed.find("<ds:Signature ").unwrap(),
            signed.find("</ds:Signature>").unwrap() + 15,
        );
        text.replacen(place, &format!("{place}{}", &signed[from..to]), 1)
            .into_bytes()
    }
}

fn sample(document: &Document, sealed: Vec<u8>) -> Sample {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sealed);
    let answer = SealResponse {
        answer: Some(seal_response::Answer::SealedDocument(sealed.into())),
        result: Some(SealResult {
            sealed_document_sha256: Bytes::copy_from_slice(sha256.as_ref()),
            ..SealResult::default()
        }),
    };
    Sample {
        document: document.clone(),
        answer: Ok(answer),
    }
}

fn verify(xmlsec1: &Xmlsec1, samples: &[Sample], sealer: &Sealer) -> Verified {
    xmlsec1.verify(samples, &[sealer.taxpayer()], |_| {}).unwrap()
}

#[test]
fn seals_of_every_kind_verify_and_the_one_with_a_flipped_bit_is_found() {
    let Some((sealer, xmlsec1)) = Sealer::new("seals_of_every_kind_verify_and_the_one_with_a_flipped_bit_is_found")
    else {
        return;
    };
    let mut samples: Vec<Sample> = sealer
        .documents(8)
        .iter()
        .map(|document| sample(document, sealer.seal(document)))
        .collect();
    let found = verify(&xmlsec1, &samples, &sealer);
    assert_eq!((found.good, found.wrong), (8, 0), "{:?}", found.examples);
    // One bit of one signature value, in base64: the neighbour of a letter.
    let document = sealer.documents(1).remove(0);
    let mut flipped = String::from_utf8(sealer.seal(&document)).unwrap();
    let at = flipped.find("<ds:SignatureValue>").unwrap() + 40;
    let other = if flipped.as_bytes()[at] == b'A' { "B" } else { "A" };
    flipped.replace_range(at..=at, other);
    samples.insert(3, sample(&document, flipped.into_bytes()));
    let found = verify(&xmlsec1, &samples, &sealer);
    assert_eq!((found.good, found.wrong), (8, 1));
    assert!(found.examples[0].contains("xmlsec1 finds"), "{:?}", found.examples);
}

#[test]
fn a_true_seal_on_the_wrong_answer_is_found() {
    let Some((sealer, xmlsec1)) = Sealer::new("a_true_seal_on_the_wrong_answer_is_found") else {
        return;
    };
    let documents = sealer.documents(2);
    let good = sealer.seal(&documents[0]);
    let expect = |sample: Sample, words: &str| {
        let found = verify(&xmlsec1, &[sample], &sealer);
        assert_eq!((found.good, found.wrong), (0, 1));
        assert!(found.examples[0].contains(words), "{:?}", found.examples);
    };
    expect(sample(&documents[1], good.clone()), "not the document that was sent");
    let mut wrong = sample(&documents[0], good.clone());
    wrong
        .answer
        .as_mut()
        .unwrap()
        .result
        .as_mut()
        .unwrap()
        .sealed_document_sha256 = Bytes::from_static(&[7; 32]);
    expect(wrong, "sealed_document_sha256");
    let mut wrong = sample(&documents[0], good.clone());
    wrong.answer.as_mut().unwrap().result.as_mut().unwrap().signature_value = Bytes::from_static(&[7; 256]);
    expect(wrong, "signature_value");
    let stranger = Taxpayer {
        number: "1234567890".into(),
        certificate: Some(Arc::from(&[1, 2, 3][..])),
    };
    let found = xmlsec1
        .verify(&[sample(&documents[0], good)], &[stranger], |_| {})
        .unwrap();
    assert!(
        found.examples[0].contains("certificate that is not 1234567890's"),
        "{:?}",
        found.examples
    );
}

#[test]
fn a_seal_that_came_alone_is_put_into_its_document_and_verified() {
    let Some((sealer, xmlsec1)) = Sealer::new("a_seal_that_came_alone_is_put_into_its_document_and_verified") else {
        return;
    };
    let document = sealer.documents(1).remove(0);
    let (input, sealed) = (document.to_vec(), sealer.seal(&document));
    let offset = input.iter().zip(&sealed).take_while(|(a, b)| a == b).count();
    let replacement = sealed[offset..offset + sealed.len() - input.len()].to_vec();
    let seal = SealPatch {
        offset: offset as u64,
        length: 0,
        replacement: replacement.into(),
    };
    let mut alone = sample(&document, sealed);
    alone.answer.as_mut().unwrap().answer = Some(seal_response::Answer::Patch(seal.clone()));
    let found = verify(&xmlsec1, &[alone], &sealer);
    assert_eq!((found.good, found.wrong), (1, 0), "{:?}", found.examples);
    let mut outside = sample(&document, Vec::new());
    outside.answer.as_mut().unwrap().answer = Some(seal_response::Answer::Patch(SealPatch {
        offset: u64::MAX,
        ..seal
    }));
    assert!(verify(&xmlsec1, &[outside], &sealer).examples[0].contains("outside the document"));
}

#[test]
fn shares_are_read_as_people_write_them() {
    for (text, expected) in [
        ("1%", Some(0.01)),
        ("all", Some(1.0)),
        ("0", Some(0.0)),
        ("0.5", Some(0.5)),
        ("2", None),
        ("x", None),
    ] {
        assert_eq!(share(text), expected, "{text}");
    }
}
