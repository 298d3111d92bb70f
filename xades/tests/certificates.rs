//! Certificates that Kamu SM issued, and some that nobody should have.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::judges::JUDGES;
use common::odd::{self, COMMON_NAME, COUNTRY, SERIAL_NUMBER, tlv};
use common::{Authority, Identity, Profile};
use jiff::Timestamp;
use muhurdar_xades::certificate::{NO_EXPIRATION, NameProblem, Unfit};
use muhurdar_xades::pem::{self, FileError, KeyForm, Kind, Wanted};
use muhurdar_xades::{
    Certificate, DigestAlgorithm, KeyType, Limits, Policy, Sealing, SignatureAlgorithm, VerifyOptions, prepare, verify,
};
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
        certificate.subject().ends_with("Şirketi\\20,SERIALNUMBER=1234567801"),
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
            let _ = format!("{certificate:?}");
            if certificate.fits_profile().is_ok() {
                let (subject, issuer) = (certificate.subject(), certificate.issuer());
                assert!(certificate.subject_is(subject), "{subject:?} is read as it was written");
                assert!(certificate.issuer_is(issuer), "{issuer:?} is read as it was written");
            }
        }
    }
}

const UTF8: u8 = 0x0c;
const NUMERIC: u8 = 0x12;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()
}

/// The tag of a common name's string and its bytes, and what of it is for people; none where it has no text.
type OddName = (u8, Vec<u8>, Option<&'static str>);

/// Names that are odd, and can be written all the same.
fn odd_names() -> Vec<OddName> {
    let utf8 = |text: &'static str| (UTF8, text.as_bytes().to_vec(), Some(text));
    vec![
        (PRINTABLE, b"Deneme".to_vec(), Some("Deneme")),
        utf8("Örnek Ğüşiöç A.Ş."),
        (BMP, utf16("Çağrı"), Some("Çağrı")),
        (BMP, utf16("Muhur \u{1f58b}"), Some("Muhur \u{1f58b}")),
        (BMP, vec![0xd8, 0, 0, 0x41], None),
        (BMP, vec![0, 0x41, 0], None),
        (UNIVERSAL, utf32("Çağrı \u{1f58b}"), Some("Çağrı \u{1f58b}")),
        (UNIVERSAL, vec![0, 0, 0xd8, 0], None),
        (TELETEX, b"M\xfch\xfcr".to_vec(), Some("Mühür")),
        (IA5, b"a@b.tr".to_vec(), Some("a@b.tr")),
        (IA5, b"M\xfch\xfcr".to_vec(), None),
        (NUMERIC, b"12 34".to_vec(), Some("12 34")),
        utf8(" önde"),
        utf8("arkada "),
        utf8("arkada  "),
        utf8(" "),
        utf8("\\ "),
        utf8("ters \\"),
        utf8("#diyez"),
        utf8("#0403414243"),
        utf8("a, b + c"),
        utf8("\"tırnak\" 'tek'"),
        utf8("a;b<c>d=e&f"),
        utf8("]]>"),
        utf8("<![CDATA["),
        utf8("\u{200f}sağdan"),
        utf8("\\20"),
        (
            UTF8,
            b"sat\nr\tsekme\rson".to_vec(),
            Some("sat\u{fffd}r\u{fffd}sekme\u{fffd}son"),
        ),
        (UTF8, "C1\u{85}\u{9b}".into(), Some("C1\u{fffd}\u{fffd}")),
        (UTF8, Vec::new(), Some("")),
        (UTF8, vec![0xff, 0xfe], None),
        (0x04, b"octets".to_vec(), None),
        (0x30, vec![], None),
    ]
}

fn seal(document: &[u8], identity: &Identity) -> Vec<u8> {
    let sealing = Sealing {
        certificate: &identity.certificate,
        policy: &Policy::default(),
        limits: &Limits::default(),
        signing_time: at("2026-05-15T12:43:13Z"),
        expect: None,
    };
    let prepared = prepare(document, &sealing).unwrap();
    let value = identity.sign(prepared.signature_algorithm(), prepared.signed_info());
    prepared.finish(&value).unwrap().splice(document)
}

const INVOICE: &str = "<Invoice xmlns='urn:oasis:names:specification:ubl:schema:xsd:Invoice-2' xmlns:cbc='urn:oasis:names:\
                       specification:ubl:schema:xsd:CommonBasicComponents-2'><cbc:ID>1</cbc:ID></Invoice>";

#[test]
fn a_seal_of_a_certificate_with_an_odd_name_verifies_everywhere() {
    let first = Identity::new(KeyType::EcP256);
    let number = [(SERIAL_NUMBER, PRINTABLE, b"1234567801".to_vec())];
    let country = [(COUNTRY, PRINTABLE, b"TR".to_vec())];
    // 2.25.… with an arc of 128 bits, which no table has.
    let foreign = [&[0x69, 0x83][..], &[0xff; 17], &[0x7f]].concat();
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (row, (tag, bytes, shown)) in odd_names().into_iter().enumerate() {
        let odd = [(COMMON_NAME, tag, bytes.clone())];
        let multiple = [(&foreign[..], tag, bytes), country[0].clone()];
        // First in the text of the subject, and last in that of the issuer.
        let identity = first.renamed(&odd::name(&[&multiple, &number, &odd]), &odd::name(&[&odd]));
        let certificate = &identity.certificate;
        let case = format!("{row}: {}", certificate.subject());
        assert_eq!(certificate.taxpayer(), Some("1234567801"), "{case}");
        let title = shown.unwrap_or_default().replace('\u{200f}', "\u{fffd}");
        assert_eq!(certificate.title(), title, "{case}");
        certificate
            .fits_profile()
            .unwrap_or_else(|unfit| panic!("{case}: {unfit}"));
        assert!(certificate.subject().chars().all(|c| !c.is_control()), "{case}");
        let sealed = seal(INVOICE.as_bytes(), &identity);
        let verified = verify(&sealed, &VerifyOptions::default()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(verified.certificate, *certificate);
        let file = folder.path().join(format!("{row}.xml"));
        std::fs::write(&file, &sealed).unwrap();
        files.push((case, certificate.clone(), file));
    }
    for judge in JUDGES
        .iter()
        .filter(|judge| matches!(judge.name, "xmlsec1" | "javax.xml.crypto"))
    {
        // xmlsec1 asks OpenSSL, to which a string that is broken is no certificate at all.
        let able = |certificate: &Certificate| judge.name != "xmlsec1" || openssl_reads(certificate);
        let able: Vec<_> = files.iter().filter(|(_, certificate, _)| able(certificate)).collect();
        assert!(
            able.is_empty() || able.len() >= 24,
            "{} is asked about {}",
            judge.name,
            able.len()
        );
        let asked: Vec<_> = able.iter().map(|(.., file)| file.clone()).collect();
        for (verdict, (case, ..)) in judge.ask(&asked, &first).iter().flatten().zip(able) {
            assert_eq!(*verdict, Ok(()), "{}: {case}", judge.name);
        }
    }
}

fn openssl_reads(certificate: &Certificate) -> bool {
    let Some(mut openssl) = common::tool("openssl") else {
        return false;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.der()).unwrap();
    let read = openssl
        .args(["x509", "-inform", "DER", "-noout", "-in"])
        .arg(file.path());
    read.output().unwrap().status.success()
}

#[test]
fn a_name_that_xml_cannot_carry_makes_no_seal_and_says_why() {
    let first = Identity::new(KeyType::EcP256);
    let good = odd::name(&[&[(SERIAL_NUMBER, PRINTABLE, b"1234567801".to_vec())]]);
    for (tag, bytes, character) in [
        (UTF8, "\u{fffe}".into(), '\u{fffe}'),
        (UTF8, "A\u{ffff}".into(), '\u{ffff}'),
        (BMP, vec![0xff, 0xff], '\u{ffff}'),
        (UNIVERSAL, vec![0, 0, 0xff, 0xfe], '\u{fffe}'),
        (UTF8, b"A\0B".to_vec(), '\0'),
        (IA5, b"\x1b[31m".to_vec(), '\x1b'),
        (TELETEX, b"\x07".to_vec(), '\x07'),
    ] {
        let odd = [(COMMON_NAME, tag, bytes)];
        let named = odd::name(&[&odd, &[(SERIAL_NUMBER, PRINTABLE, b"1234567801".to_vec())]]);
        for (which, identity) in [
            ("subject", first.renamed(&named, &good)),
            ("issuer", first.renamed(&good, &odd::name(&[&odd]))),
        ] {
            let unfit = identity.certificate.fits_profile().unwrap_err();
            let problem = NameProblem::Character(character);
            assert_eq!(unfit, Unfit::Name { which, problem });
            let said = format!(
                "{unfit} {} {}",
                identity.certificate.title(),
                identity.certificate.subject()
            );
            assert!(said.contains(&format!("U+{:04X}", u32::from(character))), "{said}");
            assert!(!said.chars().any(|c| c.is_control() || c >= '\u{fffe}'), "{said:?}");
            // Even so nothing is written that is not XML.
            let sealed = seal(INVOICE.as_bytes(), &identity);
            prepare(
                &sealed,
                &Sealing {
                    certificate: &identity.certificate,
                    policy: &Policy::default(),
                    limits: &Limits::default(),
                    signing_time: at("2026-05-15T12:43:13Z"),
                    expect: None,
                },
            )
            .map_err(|refusal| assert_eq!(refusal.kind(), muhurdar_xades::RefusalKind::AlreadySealed, "{refusal}"))
            .unwrap_err();
        }
    }
    let nameless = first.renamed(&good, &odd::name(&[]));
    let unfit = nameless.certificate.fits_profile().unwrap_err();
    assert!(
        matches!(
            unfit,
            Unfit::Name {
                which: "issuer",
                problem: NameProblem::Unreadable
            }
        ),
        "{unfit}"
    );
}

#[test]
fn whoever_is_named_twice_is_nobody() {
    let first = Identity::new(KeyType::EcP256);
    let issuer = odd::name(&[&[(COUNTRY, PRINTABLE, b"TR".to_vec())]]);
    let taxpayer = |numbers: &[(u8, Vec<u8>)]| {
        let numbers: Vec<_> = numbers
            .iter()
            .map(|(tag, bytes)| [(SERIAL_NUMBER, *tag, bytes.clone())])
            .collect();
        let relative: Vec<_> = numbers.iter().map(|number| &number[..]).collect();
        first
            .renamed(&odd::name(&relative), &issuer)
            .certificate
            .taxpayer()
            .map(str::to_owned)
    };
    let number = |text: &str| (PRINTABLE, text.as_bytes().to_vec());
    assert_eq!(taxpayer(&[(BMP, utf16("1234567801"))]).as_deref(), Some("1234567801"));
    assert_eq!(
        taxpayer(&[(UNIVERSAL, utf32(" 12345678901 "))]).as_deref(),
        Some("12345678901")
    );
    assert_eq!(
        taxpayer(&[number("MERSIS"), number("1234567801")]).as_deref(),
        Some("1234567801")
    );
    assert_eq!(taxpayer(&[number("1234567801"), number("1234567802")]), None);
}

#[test]
fn a_serial_number_of_zero_is_quoted_and_read() {
    let first = Identity::new(KeyType::EcP256);
    let der = odd::altered(first.certificate.der(), &[(1, &[2, 1, 0])]);
    let zero = first.with_certificate(Certificate::from_der(&der).unwrap());
    assert_eq!(zero.certificate.serial_decimal(), "0");
    verify(&seal(INVOICE.as_bytes(), &zero), &VerifyOptions::default()).unwrap();
}

#[test]
fn a_certificate_without_an_end_ends_when_time_does() {
    let first = Identity::new(KeyType::EcP256);
    let validity = |until: &str| {
        let times = [tlv(0x17, b"250101000000Z"), tlv(0x18, until.as_bytes())].concat();
        let der = odd::altered(first.certificate.der(), &[(odd::VALIDITY, &tlv(0x30, &times))]);
        Certificate::from_der(&der).unwrap()
    };
    let endless = validity("99991231235959Z");
    assert_eq!(endless.not_after(), NO_EXPIRATION);
    endless.fit_for_sealing(at("2026-11-28T00:00:00Z")).unwrap();
    endless.fit_for_sealing(at("9000-01-01T00:00:00Z")).unwrap();
    assert_eq!(NO_EXPIRATION.to_string(), "9999-12-30T22:00:00Z");
    assert_eq!(validity("20501231235959Z").not_after(), at("2050-12-31T23:59:59Z"));
}

#[test]
fn a_foreign_certificate_does_not_spoil_its_neighbours() {
    let ours = Identity::new(KeyType::EcP256);
    let der = ours.certificate.der();
    // Ed25519, and a curve that nothing here knows (brainpoolP256r1).
    let ed25519 = tlv(0x30, &[tlv(0x30, &[6, 3, 0x2b, 0x65, 0x70]), tlv(3, &[0; 33])].concat());
    let curve = [
        [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1].as_slice(),
        &[6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7],
    ]
    .concat();
    let brainpool = tlv(
        0x30,
        &[tlv(0x30, &curve), tlv(3, &[[0, 4].as_slice(), &[1; 64]].concat())].concat(),
    );
    let modulus = [[0x02, 0x81, 0x81, 0].as_slice(), &[0xc1; 128]].concat();
    let key = tlv(0x30, &[modulus, vec![2, 3, 1, 0, 1]].concat());
    let rsa = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let short = tlv(0x30, &[tlv(0x30, &rsa), tlv(3, &[vec![0], key].concat())].concat());
    let mut file = Vec::new();
    for foreign in [ed25519, brainpool, short] {
        file.extend(odd::altered(der, &[(odd::PUBLIC_KEY, &foreign)]));
    }
    file.extend(der);
    let bundle = Certificate::all_of(&file).unwrap();
    assert_eq!(bundle.certificates, std::slice::from_ref(&ours.certificate));
    assert_eq!(bundle.passed_over.len(), 3);
    for (subject, why) in &bundle.passed_over {
        assert_eq!(subject, ours.certificate.subject());
        assert!(why.to_string().contains("key"), "{why}");
    }
}

/// A PEM block as tools write it.
fn block(label: &str, der: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| [line, b"\n"].concat())
        .collect();
    let (begin, end) = (format!("-----BEGIN {label}-----\n"), format!("-----END {label}-----\n"));
    [begin.as_bytes(), &lines.concat(), end.as_bytes()].concat()
}

#[test]
fn a_file_is_read_whichever_tool_wrote_it() {
    let authority = Authority::new();
    let leaf = authority.issue(KeyType::EcP256, &Profile::default()).certificate;
    let (ca, leaf) = (authority.certificate.der().to_vec(), leaf.der().to_vec());
    let both = [block("CERTIFICATE", &ca), block("CERTIFICATE", &leaf)].concat();
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(both.iter().map(|byte| u16::from(*byte)));
        units.flat_map(order).collect()
    };
    let bag = b"Bag Attributes\n    friendlyName: \xdcnl\xfc \xdeirket\n    localKeyID: 01 \nsubject=CN = \xdc\n";
    for (written_by, file) in [
        ("openssl x509", both.clone()),
        ("openssl pkcs12", [bag, &both[..], bag, b"\n"].concat()),
        ("Notepad", [b"\xEF\xBB\xBF", &both[..]].concat()),
        ("a Windows shell", utf16(u16::to_le_bytes)),
        ("UTF-16, most significant byte first", utf16(u16::to_be_bytes)),
        (
            "CR LF",
            String::from_utf8(both.clone())
                .unwrap()
                .replace('\n', "\r\n")
                .into_bytes(),
        ),
        (
            "CR",
            String::from_utf8(both.clone())
                .unwrap()
                .replace('\n', "\r")
                .into_bytes(),
        ),
        (
            "one line",
            String::from_utf8(both.clone())
                .unwrap()
                .replace("-\nM", "-M")
                .into_bytes(),
        ),
        (
            "YAML",
            String::from_utf8(both.clone())
                .unwrap()
                .replace('\n', "\n    ")
                .into_bytes(),
        ),
        ("DER", [ca.clone(), leaf.clone()].concat()),
        (
            "DER and a line's end",
            [ca.clone(), leaf.clone(), b"\r\n\0".to_vec()].concat(),
        ),
        ("openssl x509 -trustout", {
            let trusted = [&leaf[..], &tlv(0x30, &[0x0c, 1, 0x41])].concat();
            [block("X509 CERTIFICATE", &ca), block("TRUSTED CERTIFICATE", &trusted)].concat()
        }),
        (
            "openssl ecparam, req and x509",
            [block("EC PARAMETERS", &[6, 1, 0]), both.clone()].concat(),
        ),
    ] {
        assert_eq!(
            pem::certificates(&file),
            Ok(vec![ca.clone(), leaf.clone()]),
            "{written_by}"
        );
        assert_eq!(
            Certificate::all_of(&file).unwrap().certificates.len(),
            2,
            "{written_by}"
        );
    }
    let bare = block("X", &leaf);
    let bare: Vec<_> = bare
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"-"))
        .collect();
    assert_eq!(
        pem::certificates(&bare.join(&b"\r\n"[..])),
        Ok(vec![leaf]),
        "base64 alone"
    );
}

#[test]
fn a_file_that_is_something_else_is_called_by_its_name() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let pkcs8 = key.serialize_der();
    let encrypted = tlv(0x30, &[tlv(0x30, &[6, 1, 0]), tlv(4, &[0; 9])].concat());
    let pkcs12 = tlv(0x30, &[vec![2, 1, 3], tlv(0x30, &[6, 1, 0])].concat());
    let pkcs7 = tlv(0x30, &[vec![6, 1, 0], tlv(0xa0, &[])].concat());
    let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE \
                KEY-----\n";
    let certificate = Identity::new(KeyType::EcP256).certificate.der().to_vec();
    let form = KeyForm::Pkcs8;
    assert_eq!(pem::private_key(&pkcs8), Ok((form, pkcs8.clone())));
    assert_eq!(
        pem::private_key(key.serialize_pem().as_bytes()),
        Ok((form, pkcs8.clone()))
    );
    assert_eq!(
        pem::write(form.label(), &pkcs8),
        key.serialize_pem().replace("\r\n", "\n")
    );
    let mixed = [block("CERTIFICATE", &certificate), block("PRIVATE KEY", &pkcs8)].concat();
    assert_eq!(pem::private_key(&mixed), Ok((form, pkcs8.clone())));
    assert_eq!(pem::certificates(&mixed), Ok(vec![certificate.clone()]));

    let said = |file: &[u8], wanted: Wanted, kind: Kind, words: &[&str]| {
        let error = match wanted {
            Wanted::PrivateKey => pem::private_key(file).map(drop),
            Wanted::RevocationList => pem::revocation_lists(file).map(drop),
            _ => pem::certificates(file).map(drop),
        };
        let error = error.unwrap_err();
        assert_eq!(error, FileError::Other { wanted, found: kind });
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
    };
    let encrypted_words = ["encrypted private key", "openssl pkey"];
    said(
        &encrypted,
        Wanted::PrivateKey,
        Kind::EncryptedPrivateKey,
        &encrypted_words,
    );
    said(
        &block("ENCRYPTED PRIVATE KEY", &encrypted),
        Wanted::PrivateKey,
        Kind::EncryptedPrivateKey,
        &encrypted_words,
    );
    said(old, Wanted::PrivateKey, Kind::EncryptedPrivateKey, &encrypted_words);
    let beside = [block("CERTIFICATE", &certificate), old.to_vec()].concat();
    said(&beside, Wanted::PrivateKey, Kind::EncryptedPrivateKey, &encrypted_words);
    said(&pkcs12, Wanted::PrivateKey, Kind::Pkcs12, &["PKCS#12", "-nocerts"]);
    said(&pkcs12, Wanted::Certificate, Kind::Pkcs12, &["-nokeys"]);
    said(
        &block("PKCS7", &pkcs7),
        Wanted::Certificate,
        Kind::Pkcs7,
        &["-print_certs"],
    );
    said(
        &block("CERTIFICATE", &pkcs7),
        Wanted::Certificate,
        Kind::Pkcs7,
        &["-print_certs"],
    );
    said(request.der(), Wanted::Certificate, Kind::Request, &["issued"]);
    said(
        request.pem().unwrap().as_bytes(),
        Wanted::Certificate,
        Kind::Request,
        &["a certificate request"],
    );
    said(&pkcs8, Wanted::Certificate, Kind::PrivateKey(form), &["a private key"]);
    said(
        &certificate,
        Wanted::RevocationList,
        Kind::Certificate,
        &["no certificate revocation list but a certificate"],
    );
    said(
        &block("OPENSSH PRIVATE KEY", b"x"),
        Wanted::PrivateKey,
        Kind::OpenSshKey,
        &["ssh-keygen"],
    );

    assert_eq!(pem::certificates(b" \n"), Err(FileError::Empty(Wanted::Certificate)));
    assert_eq!(
        pem::certificates(b"hello"),
        Err(FileError::Unknown(Wanted::Certificate))
    );
    let cut = block("CERTIFICATE", &certificate);
    for damaged in [
        &cut[..cut.len() - 30],
        &certificate[..100],
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
    ] {
        assert!(matches!(pem::certificates(damaged), Err(FileError::Damaged(_))));
    }
    let shown = format!("{:?}", pem::items(&pkcs8).unwrap());
    assert_eq!(shown, "[Item { kind: PrivateKey(Pkcs8), .. }]", "no key in Debug");
}
