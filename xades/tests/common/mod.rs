//! What the tests share: keys in software with certificates of the real profile, and other people's data.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod judges;
pub mod odd;
pub mod seals;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, RsaKeyPair};
use base64::Engine as _;
use muhurdar_xades::{Certificate, KeyType, SignatureAlgorithm};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RsaKeySize,
};

/// A file or folder of other people's data; `None`, and said so, where this clone has none.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(path);
    if full.exists() {
        return Some(full);
    }
    println!(
        "SKIPPED: {} is not here; this test reads other people's documents",
        full.display()
    );
    None
}

/// The XML files of a folder, by name.
pub fn xml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("xml"))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Which certificate a test wants.
pub struct Profile {
    pub taxpayer: String,
    pub title: String,
    pub usages: Vec<KeyUsagePurpose>,
    pub extended: Vec<u64>,
    pub from: (i32, u8, u8),
    pub until: (i32, u8, u8),
}

/// A mali mühür of 2025 to 2035.
impl Default for Profile {
    fn default() -> Self {
        Self {
            taxpayer: "1234567801".to_owned(),
            title: "Deneme Ticaret, \"Üç\" & Ortakları A.Ş.".to_owned(),
            usages: vec![KeyUsagePurpose::DigitalSignature],
            extended: vec![2, 16, 792, 1, 2, 1, 1, 5, 7, 50, 1],
            from: (2025, 1, 1),
            until: (2035, 1, 1),
        }
    }
}

/// A certificate authority for tests.
pub struct Authority {
    key: KeyPair,
    params: CertificateParams,
    pub certificate: Certificate,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let params = authority("Deneme Mali Mühür - Sürüm 0");
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Self {
            key,
            params,
            certificate,
        }
    }

    /// An authority below this one, its certificate changed as the test wants.
    pub fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = authority(name);
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = Certificate::from_der(params.signed_by(&key, &issuer).unwrap().der()).unwrap();
        Self {
            key,
            params,
            certificate,
        }
    }

    /// This authority's key under another name.
    pub fn renamed(&self, name: &str) -> Certificate {
        Certificate::from_der(authority(name).self_signed(&self.key).unwrap().der()).unwrap()
    }

    pub fn issue(&self, key_type: KeyType, profile: &Profile) -> Identity {
        // Short, as Kamu SM's are: libxml2's xs:integer ends at 24 digits, and a schema check of a longer one fails.
        static SERIAL: AtomicU64 = AtomicU64::new(0x009A_5A19_C46A);
        let key = generate(key_type);
        let mut params = CertificateParams::default();
        params.serial_number = Some(SERIAL.fetch_add(1, Ordering::Relaxed).into());
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 5]), profile.taxpayer.clone());
        params
            .distinguished_name
            .push(DnType::CommonName, profile.title.clone());
        params.key_usages.clone_from(&profile.usages);
        params.extended_key_usages = match &profile.extended[..] {
            [] => Vec::new(),
            oid => vec![ExtendedKeyUsagePurpose::Other(oid.to_vec())],
        };
        params.not_before = rcgen::date_time_ymd(profile.from.0, profile.from.1, profile.from.2);
        params.not_after = rcgen::date_time_ymd(profile.until.0, profile.until.1, profile.until.2);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap();
        Identity {
            certificate: Certificate::from_der(der.der()).unwrap(),
            pkcs8: key.serialize_der(),
        }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "TR");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Deneme; Kök + Sağlayıcı");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

fn generate(key_type: KeyType) -> KeyPair {
    match key_type {
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyType::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::EcP521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        other => panic!("no test key of {other}"),
    }
    .unwrap()
}

/// A taxpayer's key, in software, and certificate.
pub struct Identity {
    pub certificate: Certificate,
    pkcs8: Vec<u8>,
}

impl Identity {
    /// The default profile, from an authority of its own.
    pub fn new(key_type: KeyType) -> Self {
        Authority::new().issue(key_type, &Profile::default())
    }

    pub fn pem(&self) -> String {
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            base64(&self.certificate)
        )
    }

    /// What a token answers for these bytes.
    pub fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let curve = match algorithm {
            SignatureAlgorithm::RsaSha256 => return self.sign_rsa(&signature::RSA_PKCS1_SHA256, message),
            SignatureAlgorithm::RsaSha384 => return self.sign_rsa(&signature::RSA_PKCS1_SHA384, message),
            SignatureAlgorithm::RsaSha512 => return self.sign_rsa(&signature::RSA_PKCS1_SHA512, message),
            SignatureAlgorithm::EcdsaSha256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            SignatureAlgorithm::EcdsaSha384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            SignatureAlgorithm::EcdsaSha512 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            other => panic!("no test signer of {other:?}"),
        };
        let key = EcdsaKeyPair::from_pkcs8(curve, &self.pkcs8).unwrap();
        key.sign(&rng, message).unwrap().as_ref().to_vec()
    }

    /// What a token answers for this digest: all that a hash-only caller sends. RSA with SHA-256 only.
    pub fn sign_digest(&self, algorithm: SignatureAlgorithm, digest: &[u8]) -> Vec<u8> {
        assert_eq!(algorithm, SignatureAlgorithm::RsaSha256);
        let digest = digest::Digest::import_less_safe(digest, &digest::SHA256).unwrap();
        let key = RsaKeyPair::from_pkcs8(&self.pkcs8).unwrap();
        let mut value = vec![0; key.public_modulus_len()];
        key.sign_digest(&signature::RSA_PKCS1_SHA256, &digest, &mut value)
            .unwrap();
        value
    }

    fn sign_rsa(&self, padding: &'static dyn signature::RsaEncoding, message: &[u8]) -> Vec<u8> {
        let key = RsaKeyPair::from_pkcs8(&self.pkcs8).unwrap();
        let mut value = vec![0; key.public_modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut value).unwrap();
        value
    }
}

/// A certificate as `ds:X509Certificate` has it.
pub fn base64(certificate: &Certificate) -> String {
    base64::engine::general_purpose::STANDARD.encode(certificate.der())
}

/// Runs a tool of the system; `None`, and said so, where it is not installed.
pub fn tool(name: &str) -> Option<std::process::Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if found {
        return Some(std::process::Command::new(name));
    }
    println!("SKIPPED: {name} is not installed");
    None
}

/// xmlsec1's word on a sealed file: `Ok`, or what it printed. As `shared/tools/verify-seals` asks it.
pub fn xmlsec1(file: &Path) -> Option<Result<(), String>> {
    let mut command = tool("xmlsec1")?;
    command.args(["--verify", "--insecure"]);
    for id in [
        "http://uri.etsi.org/01903/v1.3.2#:SignedProperties",
        "http://www.w3.org/2000/09/xmldsig#:Signature",
        "http://www.w3.org/2000/09/xmldsig#:SignatureValue",
    ] {
        command.args(["--id-attr:Id", id]);
    }
    let output = command.arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some(if output.status.success() && text.lines().any(|line| line == "OK") {
        Ok(())
    } else {
        Err(text)
    })
}
