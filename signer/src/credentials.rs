//! Certificates, keys and revocation lists in files: the one way in for all of them, whichever tool wrote the file.
//!
//! A path comes in; out goes what TLS or a seal needs, or one sentence with the path that says what the file is and what to
//! do about it. What a file may look like is `xades::pem`'s matter. A certificate that cannot be used here (a key of another
//! kind, an odd name) is passed over and named; it never spoils its neighbours. A file that is not what it should be is refused.

use std::path::{Path, PathBuf};

use muhurdar_xades::{
    Certificate,
    certificate::{Bundle, Details},
    pem::{self, KeyForm},
};
use rustls::{RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// A file that is not what it should be. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CredentialError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// The certificates in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    /// Those that seals can be made with.
    pub certificates: Vec<Certificate>,
    /// A sentence for each of the others.
    pub passed_over: Vec<String>,
}

/// Reads every `.crt`, `.cer`, `.pem` and `.der` of a folder, in whatever letter case, by name.
///
/// # Errors
/// Where the folder or one of the files cannot be read, or a file holds no certificate.
pub fn folder(folder: &Path) -> Result<Folder, CredentialError> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut paths: Vec<_> = entries
        .map_err(|e| error(folder, &e))?
        .iter()
        .map(std::fs::DirEntry::path)
        .collect();
    paths.sort();
    let known = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|e| ["crt", "cer", "pem", "der"].iter().any(|k| e.eq_ignore_ascii_case(k)))
    };
    let mut found = Folder::default();
    for path in paths.iter().filter(known) {
        let bundle = bundle(path)?;
        found.passed_over.extend(passed_over(path, &bundle));
        found.certificates.extend(bundle.certificates);
    }
    Ok(found)
}

/// The certificates of a file that seals are made, or checked with.
///
/// # Errors
/// Where the file cannot be read, or holds no certificate at all.
pub fn bundle(path: &Path) -> Result<Bundle, CredentialError> {
    Certificate::all_of(&read(path)?).map_err(|e| error(path, &e))
}

/// A sentence for each certificate of a file that cannot be used.
pub fn passed_over(path: &Path, bundle: &Bundle) -> Vec<String> {
    let sentence = |(subject, why): &(String, _)| {
        let subject = if subject.is_empty() { "" } else { &format!(" {subject}") };
        format!("{}: the certificate{subject} is passed over: {why}", path.display())
    };
    bundle.passed_over.iter().map(sentence).collect()
}

/// The authorities in a file, for checking who is at the other end. One that TLS cannot use is passed over with a warning.
///
/// # Errors
/// Where the file cannot be read, or holds none that can be used.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, CredentialError> {
    let mut roots = RootCertStore::empty();
    let mut last = None;
    for certificate in certificates(path)? {
        if let Err(why) = roots.add(certificate) {
            tracing::warn!(file = %path.display(), %why, "an authority's certificate cannot be used; it is passed over");
            last = Some(why);
        }
    }
    match last {
        Some(why) if roots.is_empty() => Err(error(
            path,
            &format_args!("no certificate in it is an authority's: {why}"),
        )),
        _ => Ok(roots),
    }
}

/// What one shows of oneself: a certificate with those above it, and its private key. The certificate stands first, wherever
/// in its file it stood.
///
/// # Errors
/// Where a file cannot be read, holds nothing of the kind, or the two do not belong together.
pub(crate) fn identity(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CredentialError> {
    let chain = certificates(certificate)?;
    let private = private_key(key)?;
    let signing = provider.key_provider.load_private_key(private.clone_key());
    let signing = signing.map_err(|e| error(key, &format_args!("TLS cannot use this private key: {e}")))?;
    let Some(public) = signing.public_key() else {
        return Ok((chain, private));
    };
    let chain = leaf_first(chain, &public).ok_or_else(|| {
        let problem = format!("no certificate in it belongs to the private key in {}", key.display());
        error(certificate, &problem)
    })?;
    Ok((chain, private))
}

/// The revocation lists of a file.
///
/// # Errors
/// Where the file cannot be read, or holds none.
pub(crate) fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialError> {
    let lists = pem::revocation_lists(&read(path)?).map_err(|e| error(path, &e))?;
    Ok(lists.into_iter().map(CertificateRevocationListDer::from).collect())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let found = pem::certificates(&read(path)?).map_err(|e| error(path, &e))?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialError> {
    let (form, der) = pem::private_key(&read(path)?).map_err(|e| error(path, &e))?;
    Ok(match form {
        KeyForm::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
        KeyForm::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
        KeyForm::Sec1 => PrivateKeyDer::Sec1(der.into()),
        other => {
            return Err(error(
                path,
                &format_args!("a private key of the form {other:?}, which TLS cannot use"),
            ));
        }
    })
}

/// The certificate of this key first, the one that ends last where several are, each issuer behind what it issued
/// (RFC 8446 section 4.4.2), and the others behind them; `None` where none is of this key.
fn leaf_first(chain: Vec<CertificateDer<'static>>, public: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut rest: Vec<_> = chain
        .into_iter()
        .map(|certificate| (Details::from_der(&certificate).ok(), certificate))
        .collect();
    let own = |details: &Option<Details>| details.as_ref().is_some_and(|details| details.spki_der() == public);
    let end = |details: &Option<Details>| details.as_ref().map(Details::not_after);
    let own = rest.iter().enumerate().filter(|(_, (details, _))| own(details));
    let (leaf, _) = own.max_by_key(|(at, (details, _))| (end(details), std::cmp::Reverse(*at)))?;
    let mut ordered = vec![rest.remove(leaf)];
    loop {
        let below = ordered.last().and_then(|(details, _)| details.as_ref());
        let issues = |details: &Option<Details>| {
            let issuer = details.as_ref();
            below
                .zip(issuer)
                .is_some_and(|(below, issuer)| below.names_as_issuer(issuer))
        };
        let Some(above) = rest.iter().position(|(details, _)| issues(details)) else {
            break;
        };
        ordered.push(rest.remove(above));
    }
    ordered.extend(rest);
    Some(ordered.into_iter().map(|(_, certificate)| certificate).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|e| error(path, &e))
}

fn error(path: &Path, problem: &dyn std::fmt::Display) -> CredentialError {
    CredentialError {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// A folder with files in it.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// A root, an authority below it, and what that has issued for `key`: root, authority, leaf in PEM.
    fn chain(own: &KeyPair) -> [String; 3] {
        let (root_key, middle_key) = (key(), key());
        let authority = |name| {
            let mut params = params(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let root = authority("root");
        let middle = authority("middle");
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let middle_pem = middle
            .signed_by(&middle_key, &Issuer::from_params(&root, &root_key))
            .unwrap()
            .pem();
        let leaf = params("leaf")
            .signed_by(own, &Issuer::from_params(&middle, &middle_key))
            .unwrap();
        [root_pem, middle_pem, leaf.pem()]
    }

    fn provider() -> CryptoProvider {
        rustls::crypto::aws_lc_rs::default_provider()
    }

    #[test]
    fn the_certificate_of_the_key_stands_first_wherever_in_the_file_it_stood() {
        let own = key();
        let [root, middle, leaf] = chain(&own);
        let files = Files::new();
        let key_file = files.put("a.key", own.serialize_pem());
        let der = |pem: &str| pem::certificates(pem.as_bytes()).unwrap().remove(0);
        let wanted = [der(&leaf), der(&middle), der(&root)];
        for (name, file) in [
            ("leaf first", [&*leaf, &*middle, &*root].concat().into_bytes()),
            ("root first", [&*root, &*middle, &*leaf].concat().into_bytes()),
            ("any order", [&*middle, &*leaf, &*root].concat().into_bytes()),
            (
                "a byte order mark",
                ["\u{feff}", &*root, &*leaf, &*middle].concat().into_bytes(),
            ),
            ("DER", [der(&root), der(&leaf), der(&middle)].concat()),
            (
                "bag attributes in Latin-1",
                [
                    b"friendlyName: \xdcnl\xfc\n",
                    root.as_bytes(),
                    leaf.as_bytes(),
                    middle.as_bytes(),
                ]
                .concat(),
            ),
        ] {
            let (found, _) = identity(&files.put("a.crt", file), &key_file, &provider()).unwrap();
            assert!(found.iter().map(|c| &**c).eq(wanted.iter().map(|c| &**c)), "{name}");
        }
        let der_key = files.put("b.key", own.serialize_der());
        identity(&files.put("a.crt", leaf), &der_key, &provider()).unwrap();
    }

    #[test]
    fn what_does_not_go_together_is_said_with_the_files_name() {
        let own = key();
        let [_, middle, leaf] = chain(&own);
        let files = Files::new();
        let (certificate, key_file) = (files.put("a.crt", leaf), files.put("a.key", own.serialize_pem()));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAMwAAQA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let said = |certificate: &Path, key: &Path| identity(certificate, key, &provider()).unwrap_err().to_string();
        for (text, words) in [
            (
                said(&certificate, &files.put("e.key", encrypted)),
                ["e.key: ", "an encrypted private key", "openssl pkey"],
            ),
            (
                said(&files.put("m.crt", middle), &key_file),
                ["m.crt: ", "belongs to the private key in", "a.key"],
            ),
            (
                said(&key_file, &key_file),
                ["a.key: ", "no certificate but a private key", ""],
            ),
            (
                said(&files.put("empty.crt", ""), &key_file),
                ["empty.crt: ", "is empty", ""],
            ),
            (
                said(Path::new("/nowhere/x.crt"), &key_file),
                ["/nowhere/x.crt: ", "No such file", ""],
            ),
        ] {
            for word in words {
                assert!(text.contains(word), "{text}");
            }
        }
    }

    #[test]
    fn one_foreign_certificate_in_a_folder_spoils_no_other() {
        let files = Files::new();
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let foreign = params("foreign").self_signed(&ed25519).unwrap();
        let ours = |name: &str| params(name).self_signed(&key()).unwrap();
        files.put("1.pem", [foreign.pem(), ours("one").pem()].concat());
        files.put("2.CER", ours("two").der());
        files.put("3.Crt", foreign.der());
        files.put("4.der", [&b"\xEF\xBB\xBF"[..], ours("three").pem().as_bytes()].concat());
        files.put("README.txt", "not a certificate");
        let found = folder(files.0.path()).unwrap();
        let titles: Vec<_> = found.certificates.iter().map(Certificate::title).collect();
        assert_eq!(titles, ["one", "two", "three"]);
        assert_eq!(found.passed_over.len(), 2);
        for (sentence, file) in found.passed_over.iter().zip(["1.pem", "3.Crt"]) {
            assert!(sentence.contains(file) && sentence.contains("CN=foreign"), "{sentence}");
            assert!(sentence.contains("a seal needs RSA"), "{sentence}");
        }
        let key_file = files.put("5.pem", key().serialize_pem());
        let refused = folder(files.0.path()).unwrap_err().to_string();
        assert!(
            refused.contains("5.pem") && refused.contains("no certificate but a private key"),
            "{refused}"
        );
        fs::remove_file(key_file).unwrap();
    }
}
