//! Certificates and revocations of an appliance's own CA: made by openssl, but where it matters to the second when they end.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};

use crate::Output;

/// From when until when a certificate holds, in whole seconds.
pub type Validity = Range<SystemTime>;

/// Extended key usage of a mali mühür (seen in Kamu SM's certificates).
const MALI_MUHUR: [u64; 11] = [2, 16, 792, 1, 2, 1, 1, 5, 7, 50, 1];

/// Another sealing certificate, in PEM, for the key that an appliance's taxpayer has.
///
/// # Panics
/// Where the appliance has no such taxpayer.
#[must_use]
pub fn successor(dir: &Path, taxpayer: &str, validity: &Validity) -> String {
    let list = fs::read_to_string(dir.join("taxpayers.json")).expect("dev writes taxpayers.json");
    let list: Vec<serde_json::Value> = serde_json::from_str(&list).expect("a list");
    let mut of = list.iter().filter(|of| of["vkn"] == taxpayer);
    let certificate = of
        .next()
        .and_then(|of| of["certificate"].as_str())
        .expect("one of its taxpayers");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["x509", "-noout", "-pubkey", "-in"])
        .arg(dir.join(certificate));
    let key = SubjectPublicKeyInfo::from_pem(&Output::of(&mut openssl).text).expect("openssl shows the public key");
    seal_certificate(dir, taxpayer, &key, validity)
}

/// A new taxpayer's key and sealing certificate, as a PKCS#12 in the appliance's folder; and the file with its password.
///
/// # Panics
/// Where openssl makes none.
#[must_use]
pub fn new_seal(dir: &Path, taxpayer: &str) -> (PathBuf, PathBuf) {
    let now = SystemTime::now();
    new_seal_for(
        dir,
        taxpayer,
        &(now - Duration::from_secs(60)..now + Duration::from_secs(86_400)),
    )
}

/// As [`new_seal`], for so long.
///
/// # Panics
/// Where openssl makes none.
#[must_use]
pub fn new_seal_for(dir: &Path, taxpayer: &str, validity: &Validity) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let text = seal_certificate(dir, taxpayer, &key, validity) + &key.serialize_pem();
    let (pem, p12) = (dir.join(format!("{taxpayer}.pem")), dir.join(format!("{taxpayer}.p12")));
    let password = dir.join(format!("{taxpayer}.password"));
    for (file, text) in [(&pem, &*text), (&password, "deneme")] {
        fs::write(file, text).expect("the appliance's folder can be written");
    }
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs12", "-export", "-passout", "pass:deneme", "-in"])
        .arg(pem);
    let output = Output::of(openssl.arg("-out").arg(&p12));
    assert!(output.status.success(), "openssl: {}", output.text);
    (p12, password)
}

fn seal_certificate(dir: &Path, taxpayer: &str, key: &impl PublicKeyData, validity: &Validity) -> String {
    let mut params = CertificateParams::default();
    let names = &mut params.distinguished_name;
    names.push(DnType::CommonName, "Halef A.Ş.");
    names.push(
        DnType::CustomDnType(vec![2, 5, 4, 5]),
        DnValue::Utf8String(taxpayer.to_owned()),
    );
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(MALI_MUHUR.to_vec())];
    // CertificatePolicies with the one policy 2.16.792.1.2.1.1.5.7.4.1 (mali mühür), DER.
    let policy = [
        0x30, 0x0f, 0x30, 0x0d, 0x06, 0x0b, 0x60, 0x86, 0x18, 0x01, 0x02, 0x01, 0x01, 0x05, 0x07, 0x04, 0x01,
    ];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 32], policy.to_vec())];
    signed(dir, params, key, validity)
}

/// A CA that no appliance has heard of, as `ca.crt` and `ca.key` in this folder.
///
/// # Panics
/// Where the folder cannot be written.
pub fn authority(dir: &Path) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Elsewhere");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    for (name, text) in [("ca.crt", certificate), ("ca.key", key.serialize_pem())] {
        fs::write(dir.join(name), text).expect("the folder can be written");
    }
}

/// As [`certify`], for so long.
///
/// # Panics
/// Where the appliance has no CA.
#[must_use = "the paths of certificate and key"]
pub fn certify_for(dir: &Path, folder: &Path, name: &str, validity: &Validity) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = format!("urn:muhurdar:client:{name}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI is ASCII"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    fs::write(&paths.0, signed(dir, params, &key, validity)).expect("the folder can be written");
    fs::write(&paths.1, key.serialize_pem()).expect("the folder can be written");
    paths
}

fn signed(dir: &Path, mut params: CertificateParams, key: &impl PublicKeyData, validity: &Validity) -> String {
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (validity.start.into(), validity.end.into());
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("dev makes a CA");
    let ca = KeyPair::from_pem(&read("ca.key")).expect("the CA's key");
    let ca = Issuer::from_ca_cert_pem(&read("ca.crt"), ca).expect("the CA's certificate");
    params.signed_by(key, &ca).expect("a certificate").pem()
}

/// A client certificate of an appliance's own CA, by openssl: certificate and key in `folder`.
///
/// # Panics
/// Where openssl makes none.
#[must_use = "the paths of certificate and key"]
pub fn certify(dir: &Path, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let san = format!("URI:urn:muhurdar:client:{name}");
    issue(dir, name, &[&san, "clientAuth"], &certificate, &key);
    (certificate, key)
}

/// Another certificate and key for an appliance's listener, in the place of those it has.
///
/// # Panics
/// Where openssl makes none.
pub fn renew_server(dir: &Path) {
    let (certificate, key) = (dir.join("renewed.crt"), dir.join("renewed.key"));
    issue(dir, "muhurdar", &["IP:127.0.0.1", "serverAuth"], &certificate, &key);
    for (from, to) in [(key, "server.key"), (certificate, "server.crt")] {
        fs::rename(from, dir.join(to)).expect("a file of the appliance's folder can be replaced");
    }
}

/// A certificate of an appliance's CA with this alternative name and use.
fn issue(dir: &Path, name: &str, [san, usage]: &[&str; 2], certificate: &Path, key: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args(["-days", "2", "-subj", &format!("/CN={name}")]);
    openssl.args([
        "-addext",
        &format!("extendedKeyUsage={usage}"),
        "-addext",
        &format!("subjectAltName={san}"),
    ]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl
        .arg("-CA")
        .arg(dir.join("ca.crt"))
        .arg("-CAkey")
        .arg(dir.join("ca.key"));
    let output = Output::of(openssl.arg("-keyout").arg(key).arg("-out").arg(certificate));
    assert!(output.status.success(), "openssl: {}", output.text);
}

/// A list of an appliance's CA that revokes these certificates, by openssl.
///
/// # Panics
/// Where openssl makes none.
pub fn revoke(dir: &Path, certificates: &[&Path], list: &Path) {
    revoke_for(dir, certificates, list, Duration::from_secs(30 * 86_400));
}

/// As [`revoke`], with the next list due after so long.
///
/// # Panics
/// Where openssl makes none.
pub fn revoke_for(dir: &Path, certificates: &[&Path], list: &Path, next: Duration) {
    let mut index = String::new();
    for certificate in certificates {
        let serial = Output::of(
            Command::new("openssl")
                .args(["x509", "-noout", "-serial", "-in"])
                .arg(certificate),
        );
        let (_, serial) = serial.text.trim().split_once('=').expect("openssl x509 says serial=");
        index += &format!("R\t350101000000Z\t260101000000Z\t{serial}\tunknown\t/CN=revoked\n");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (database, settings) = (folder.path().join("index.txt"), folder.path().join("ca.cnf"));
    fs::write(&database, index).expect("the database can be written");
    let number = folder.path().join("number");
    fs::write(&number, "01\n").expect("the number can be written");
    // Version 2, as RFC 5280 asks (section 5.1.2.1).
    let text = format!(
        "[ca]\ndefault_ca = x\n[x]\ndatabase = {}\ncrlnumber = {}\ndefault_md = sha384\ncrl_extensions = e\n\
         [e]\nauthorityKeyIdentifier = keyid\n",
        database.display(),
        number.display()
    );
    fs::write(&settings, text).expect("the settings can be written");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["ca", "-gencrl", "-crlsec", &next.as_secs().to_string(), "-config"])
        .arg(settings);
    openssl
        .arg("-cert")
        .arg(dir.join("ca.crt"))
        .arg("-keyfile")
        .arg(dir.join("ca.key"));
    let output = Output::of(openssl.arg("-out").arg(list));
    assert!(output.status.success(), "openssl: {}", output.text);
}
