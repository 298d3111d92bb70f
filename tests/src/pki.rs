//! Certificates and revocations of an appliance's own CA, made by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Output;

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
        .args(["ca", "-gencrl", "-crldays", "30", "-config"])
        .arg(settings);
    openssl
        .arg("-cert")
        .arg(dir.join("ca.crt"))
        .arg("-keyfile")
        .arg(dir.join("ca.key"));
    let output = Output::of(openssl.arg("-out").arg(list));
    assert!(output.status.success(), "openssl: {}", output.text);
}
