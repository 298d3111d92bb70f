//! Certificates that Kamu SM issued, and some that nobody should have.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Authority, Profile};
use jiff::Timestamp;
use muhurdar_xades::certificate::Unfit;
use muhurdar_xades::{Certificate, DigestAlgorithm, KeyType, SignatureAlgorithm};
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use rcgen::KeyUsagePurpose;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Kamu SM's test seals with their file names. The password is the number after the last `_`.
fn kamu_sm() -> Vec<(String, Certificate)> {
    let Some(folder) = common::shared("kamusm-test-certs") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let password = name.rsplit('_').next().unwrap();
        let store =
            KeyStore::from_pkcs12(&std::fs::read(&path).unwrap(), password, Pkcs12ImportPolicy::Relaxed).unwrap();
        let (_, chain) = store.private_key_chain().unwrap();
        let leaf = Certificate::from_der(chain.certs()[0].as_der()).unwrap();
        all.push((name, leaf));
    }
    all
}

#[test]
fn kamu_sm_test_seals_are_read_as_openssl_reads_them() {
    for (name, certificate) in kamu_sm() {
        let (key_type, algorithm) = if name.contains("rsa2048") {
            (KeyType::Rsa2048, SignatureAlgorithm::RsaSha256)
        } else {
            (KeyType::EcP384, SignatureAlgorithm::EcdsaSha384)
        };
        assert_eq!(certificate.key_type(), key_type, "{name}");
        // Every one of them is signed with ecdsa-with-SHA384 by its authority: that must not matter.
        assert_eq!(certificate.signature_algorithm(), algorithm, "{name}");
        assert!(certificate.taxpayer().unwrap().starts_with("12345678"), "{name}");
        assert!(certificate.title().starts_with("Test Kurum"), "{name}");
        assert_eq!(
            certificate.issuer(),
            "CN=Mali Mühür Elektronik Sertifika Hizmet Sağlayıcısı - Sürüm 3,OU=BİLGEM,O=Türkiye Bilimsel ve Teknolojik \
             Araştırma Kurumu - TÜBİTAK,L=Gebze - Kocaeli,C=TR"
        );
        openssl_agrees(&certificate);
        certificate.fits_profile().unwrap();
    }
}

fn openssl_agrees(certificate: &Certificate) {
    let Some(mut openssl) = common::tool("openssl") else {
        return;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.der()).unwrap();
    let output = openssl
        .args(["x509", "-inform", "DER", "-noout", "-nameopt", "RFC2253,utf8,-esc_msb"])
        .args(["-subject", "-issuer", "-serial", "-fingerprint", "-sha256", "-in"])
        .arg(file.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap()
    };
    assert_eq!(
        certificate.subject(),
        field("subject").replace("serialNumber=", "SERIALNUMBER=")
    );
    assert_eq!(certificate.issuer(), field("issuer"));
    let hex: String = certificate.sha256().iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(hex, field("sha256 Fingerprint").replace(':', ""));
    let serial = u128::from_str_radix(field("serial"), 16).unwrap();
    assert_eq!(certificate.serial_decimal(), serial.to_string());
}

#[test]
fn a_seal_of_2025_is_fit_and_one_of_2023_has_expired() {
    let now = at("2026-11-21T00:00:00Z");
    for (name, certificate) in kamu_sm() {
        let fit = certificate.fit_for_sealing(now);
        if name.contains("ec384") && !name.contains("expired") {
            fit.unwrap_or_else(|unfit| panic!("{name}: {unfit}"));
        } else {
            let unfit = fit.unwrap_err();
            assert_eq!(
                unfit,
                Unfit::Expired {
                    since: certificate.not_after()
                },
                "{name}"
            );
            let date = certificate.not_after().to_string();
            assert!(
                unfit.to_string().contains(&date),
                "the date is in the sentence: {unfit}"
            );
        }
    }
}

#[test]
fn the_certificates_of_verifying_seals_were_fit_when_they_sealed() {
    let Some(folder) = common::shared("signed") else { return };
    for file in common::xml_files(&folder) {
        let text = std::fs::read_to_string(&file).unwrap();
        let base64 = text.split("X509Certificate>").nth(1).unwrap().trim_end_matches("</ds:");
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        let certificate = Certificate::from_pem(pem.as_bytes()).unwrap();
        certificate.fit_for_sealing(at("2013-06-19T08:00:00Z")).unwrap();
        assert_eq!(certificate.taxpayer(), Some("9999999999"));
        assert_eq!(certificate.serial_decimal(), "662936601706");
        openssl_agrees(&certificate);
    }
}

#[test]
fn an_encryption_certificate_never_seals() {
    let authority = Authority::new();
    for usages in [
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::KeyAgreement],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::DataEncipherment],
        vec![KeyUsagePurpose::ContentCommitment],
        vec![],
    ] {
        let identity = authority.issue(
            KeyType::EcP256,
            &Profile {
                usages: usages.clone(),
                ..Profile::default()
            },
        );
        let unfit = identity.certificate.fits_profile().unwrap_err();
        assert!(matches!(unfit, Unfit::KeyUsage(_)), "{usages:?}: {unfit}");
    }
}

#[test]
fn a_certificate_for_something_else_never_seals() {
    let authority = Authority::new();
    let issue = |profile: Profile| authority.issue(KeyType::EcP256, &profile).certificate.fits_profile();
    assert_eq!(issue(Profile::default()), Ok(()));
    let server = vec![1, 3, 6, 1, 5, 5, 7, 3, 1];
    assert_eq!(
        issue(Profile {
            extended: server,
            ..Profile::default()
        }),
        Err(Unfit::ExtendedKeyUsage)
    );
    assert_eq!(
        issue(Profile {
            extended: vec![],
            ..Profile::default()
        }),
        Err(Unfit::ExtendedKeyUsage)
    );
    assert_eq!(
        issue(Profile {
            taxpayer: "VKN".to_owned(),
            ..Profile::default()
        }),
        Err(Unfit::NoTaxpayer)
    );
    assert_eq!(authority.certificate.fits_profile(), Err(Unfit::Authority));
}

#[test]
fn the_first_and_the_last_instant_are_valid() {
    let certificate = Authority::new().issue(KeyType::EcP256, &Profile::default()).certificate;
    let (from, until) = (certificate.not_before(), certificate.not_after());
    let second = jiff::SignedDuration::from_secs(1);
    assert_eq!(certificate.fit_for_sealing(from), Ok(()));
    assert_eq!(certificate.fit_for_sealing(until), Ok(()));
    assert_eq!(
        certificate.fit_for_sealing(from - second),
        Err(Unfit::NotYetValid { from })
    );
    assert_eq!(
        certificate.fit_for_sealing(until + second),
        Err(Unfit::Expired { since: until })
    );
}

#[test]
fn a_title_may_be_longer_than_x520_allows() {
    let title = "Uzun Unvanlı Sanayi ve Ticaret Anonim Şirketi ".repeat(10);
    let certificate = Authority::new()
        .issue(
            KeyType::EcP256,
            &Profile {
                title: title.clone(),
                ..Profile::default()
            },
        )
        .certificate;
    assert_eq!(certificate.title(), title);
    assert!(
        certificate.subject().ends_with("Şirketi\\ ,SERIALNUMBER=1234567801"),
        "{}",
        certificate.subject()
    );
}

#[test]
fn a_signature_verifies_with_its_own_key_algorithm_and_bytes_only() {
    let authority = Authority::new();
    let keys = [KeyType::Rsa2048, KeyType::EcP256, KeyType::EcP384, KeyType::EcP521];
    let identities = keys.map(|key| authority.issue(key, &Profile::default()));
    for identity in &identities {
        let certificate = &identity.certificate;
        let algorithm = certificate.signature_algorithm();
        let value = identity.sign(algorithm, b"SignedInfo");
        let key = certificate.public_key();
        assert_eq!(value.len(), certificate.key_type().signature_len());
        key.verify(algorithm, b"SignedInfo", &value).unwrap();
        assert!(key.verify(algorithm, b"SignedInfo.", &value).is_err());
        assert!(key.verify(algorithm, b"SignedInfo", &value[1..]).is_err());
        for other in SignatureAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(key.verify(other, b"SignedInfo", &value).is_err(), "{other:?}");
        }
        for other in identities.iter().filter(|other| other.certificate != *certificate) {
            assert!(
                other
                    .certificate
                    .public_key()
                    .verify(algorithm, b"SignedInfo", &value)
                    .is_err()
            );
        }
        assert!(certificate.is_issued_by(&authority.certificate));
        assert!(!certificate.is_issued_by(certificate));
        assert_eq!(certificate.spki_der()[0], 0x30);
    }
    let rsa = &identities[0];
    for digest in DigestAlgorithm::ALL {
        let algorithm = SignatureAlgorithm::for_key_with(KeyType::Rsa2048, digest);
        rsa.certificate
            .public_key()
            .verify(algorithm, b"a", &rsa.sign(algorithm, b"a"))
            .unwrap();
    }
}

#[test]
fn cut_or_flipped_der_is_an_error_and_no_panic() {
    let der = Authority::new()
        .issue(KeyType::EcP384, &Profile::default())
        .certificate
        .der()
        .to_vec();
    for end in 0..der.len() {
        assert!(Certificate::from_der(&der[..end]).is_err(), "cut at {end}");
    }
    for at in 0..der.len() {
        let mut der = der.clone();
        der[at] ^= 0x41;
        if let Ok(certificate) = Certificate::from_der(&der) {
            let _ = (
                certificate.fits_profile(),
                certificate.subject(),
                format!("{certificate:?}"),
            );
        }
    }
}
