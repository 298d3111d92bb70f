//! The test authority of a throw-away appliance: one CA for the server, the clients and the taxpayers.
//!
//! Taxpayers' certificates have the profile of a mali mühür certificate: subject `serialNumber` = VKN, KeyUsage critical
//! digitalSignature and nothing else, the extended key usage and policy that Kamu SM gives them, three years.

use std::{fs, net::IpAddr, path::Path};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};

use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKeyChain};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use crate::cli::Failure;
pub(super) use crate::cli::output::{write, write_secret};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// id-at-serialNumber (RFC 5280, appendix A.1).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];
/// Extended key usage of a mali mühür (seen in Kamu SM's certificates).
const MALI_MUHUR_EKU: [u64; 11] = [2, 16, 792, 1, 2, 1, 1, 5, 7, 50, 1];
/// id-ce-certificatePolicies (RFC 5280, section 4.2.1.4).
const CERTIFICATE_POLICIES: [u64; 4] = [2, 5, 29, 32];
/// `CertificatePolicies` with the one policy 2.16.792.1.2.1.1.5.7.4.1 (mali mühür), DER.
const MALI_MUHUR_POLICY: [u8; 17] = [
    0x30, 0x0f, 0x30, 0x0d, 0x06, 0x0b, 0x60, 0x86, 0x18, 0x01, 0x02, 0x01, 0x01, 0x05, 0x07, 0x04, 0x01,
];

/// The password of the PKCS#12 files: it keeps nothing secret, since keys lie beside them, but no tool reads one without.
pub(super) const P12_PASSWORD: &str = "muhurdar";

/// A client's key and certificate, and the authority that it trusts, as Java and .NET read them.
pub(super) fn p12(authority: &Path, certificate: &Path, key: &Path, to: &Path) -> Result<(), Failure> {
    let der = |path: &Path| {
        let certificate = CertificateDer::from_pem_file(path).map_err(|e| unread(path, &e))?;
        p12_keystore::Certificate::from_der(&certificate).map_err(defect)
    };
    let (leaf, root) = (der(certificate)?, der(authority)?);
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unread(key, &e))?;
    let secret = p12_keystore::PrivateKey::from_der(secret.secret_der()).map_err(defect)?;
    let name = certificate
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or("client");
    let mut store = KeyStore::new();
    let chain = PrivateKeyChain::new(name, secret, [leaf]);
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(chain));
    store.add_entry("ca", KeyStoreEntry::Certificate(root));
    let bytes = store.writer(P12_PASSWORD).write().map_err(defect)?;
    write_secret(to, &bytes)
}

fn unread(path: &Path, error: &pem::Error) -> Failure {
    Failure::usage(format_args!("{}: {error}", path.display()))
}

/// What a taxpayer's certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The seal (`SIGN0`).
    Seal,
    /// Encryption, with an RSA key (`ENCR0`).
    KeyEncipherment,
    /// Encryption, with an EC key (`ENCR0`).
    KeyAgreement,
}

/// The test CA.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the CA of a folder, or makes one there.
    pub(super) fn load_or_make(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        if certificate.exists() && key.exists() {
            let (pem, key_pem) = (read(certificate)?, read(key)?);
            let key =
                KeyPair::from_pem(&key_pem).map_err(|e| Failure::usage(format_args!("{}: {e}", key.display())))?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key);
            let issuer = issuer.map_err(|e| Failure::usage(format_args!("{}: {e}", certificate.display())))?;
            return Ok(Self { issuer });
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(defect)?;
        let mut params = params(&[
            (DnType::CommonName, "Mühürdar Deneme Sertifika Hizmet Sağlayıcısı"),
            (DnType::OrganizationName, "Mühürdar (yalnız deneme)"),
            (DnType::CountryName, "TR"),
        ]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, 3650)?;
        let own = params.self_signed(&pair).map_err(defect)?;
        write_secret(key, pair.serialize_pem().as_bytes())?;
        write(certificate, own.pem().as_bytes())?;
        Ok(Self {
            issuer: Issuer::new(params, pair),
        })
    }

    /// A taxpayer's certificate, DER, for a public key (SubjectPublicKeyInfo, DER) whose private key is on a token.
    pub(super) fn taxpayer(&self, vkn: &str, title: &str, purpose: Purpose, spki: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut params = params(&[
            (DnType::CommonName, title),
            (DnType::CustomDnType(SERIAL_NUMBER.to_vec()), vkn),
            (DnType::CountryName, "TR"),
        ]);
        params.key_usages = vec![match purpose {
            Purpose::Seal => KeyUsagePurpose::DigitalSignature,
            Purpose::KeyEncipherment => KeyUsagePurpose::KeyEncipherment,
            Purpose::KeyAgreement => KeyUsagePurpose::KeyAgreement,
        }];
        if purpose == Purpose::Seal {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(MALI_MUHUR_EKU.to_vec())];
        }
        let policy = CustomExtension::from_oid_content(&CERTIFICATE_POLICIES, MALI_MUHUR_POLICY.to_vec());
        params.custom_extensions = vec![policy];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        valid_for(&mut params, 3 * 365)?;
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(defect)?;
        Ok(params.signed_by(&key, &self.issuer).map_err(defect)?.der().to_vec())
    }

    /// A certificate and key for a TLS client, known by `urn:muhurdar:client:NAME`.
    pub(super) fn client(&self, name: &str, certificate: &Path, key: &Path) -> Result<(), Failure> {
        let mut params = params(&[(DnType::CommonName, name)]);
        let uri = format!("{}{name}", super::CLIENT_URI).try_into().map_err(defect)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.tls(params, certificate, key)
    }

    /// A certificate and key for the TLS server.
    pub(super) fn server(&self, addresses: &[IpAddr], certificate: &Path, key: &Path) -> Result<(), Failure> {
        let mut params = params(&[(DnType::CommonName, "muhurdar dev")]);
        let names = addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names = names
            .chain([SanType::DnsName("localhost".try_into().map_err(defect)?)])
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.tls(params, certificate, key)
    }

    fn tls(&self, mut params: CertificateParams, certificate: &Path, key: &Path) -> Result<(), Failure> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        valid_for(&mut params, 365)?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(defect)?;
        let own = params.signed_by(&pair, &self.issuer).map_err(defect)?;
        write_secret(key, pair.serialize_pem().as_bytes())?;
        write(certificate, own.pem().as_bytes())
    }
}

fn params(name: &[(DnType, &str)]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in name {
        params
            .distinguished_name
            .push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
    }
    params
}

/// From an hour ago, since clocks differ, for so many days.
fn valid_for(params: &mut CertificateParams, days: i32) -> Result<(), Failure> {
    let from = Timestamp::now() - SignedDuration::from_hours(1);
    let date = |at: Timestamp| {
        let civil = at.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let month = u8::try_from(civil.month()).map_err(defect)?;
        let day = u8::try_from(civil.day()).map_err(defect)?;
        let midnight = rcgen::date_time_ymd(i32::from(civil.year()), month, day);
        let seconds = at.as_second().rem_euclid(86_400).unsigned_abs();
        Ok::<_, Failure>(midnight + std::time::Duration::from_secs(seconds))
    };
    params.not_before = date(from)?;
    params.not_after = date(from + DAY * days)?;
    Ok(())
}

/// 63 random bits: positive, unique enough (RFC 5280, section 4.1.2.2), and as long as Kamu SM's own. libxml2 knows no
/// integer of more than 24 digits, so a longer one would make `ds:X509SerialNumber` invalid to it.
fn serial() -> Result<SerialNumber, Failure> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::unavailable("the system gives no random numbers"))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from(bytes.to_vec()))
}

/// rcgen refuses only what this program could not have meant.
fn defect(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        crate::cli::exit::SOFTWARE,
        format_args!("the test authority failed: {error}"),
    )
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|e| Failure::io(path.display(), &e))
}

/// Whether a certificate file is there and valid for `days` more.
pub(super) fn still_valid(path: &Path, days: i32) -> bool {
    let Ok(pem) = fs::read(path) else { return false };
    muhurdar_xades::Certificate::from_pem(&pem).is_ok_and(|c| c.not_after() > Timestamp::now() + DAY * days)
}

/// A certificate in PEM (RFC 7468).
pub(super) fn pem(der: &[u8]) -> String {
    x509_cert::der::pem::encode_string("CERTIFICATE", x509_cert::der::pem::LineEnding::LF, der)
        .unwrap_or_else(|_| unreachable!("the label is plain and the buffer is grown to fit"))
}
