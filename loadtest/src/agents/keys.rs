//! The keys with which controller and agents know each other.
//!
//! One authority for one set of machines. It certifies an agent and a controller and is then forgotten, so that nobody can certify another.
//! The two are told apart by what their certificates are for (extended key usage): who has got hold of an agent's key cannot give orders.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name of every agent: machines have many, and who holds the key is an agent wherever it runs.
const AGENT_NAME: &str = "agent.muhurdar-loadtest.invalid";
const DAYS: i64 = 365;

/// What is wrong with a folder of keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    /// A file is there already.
    #[error("{} is there already; take another folder, or remove what is in it", .0.display())]
    Exists(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: {}; `muhurdar-loadtest agent-keys DIR` makes a set", .0.display(), .1)]
    Content(PathBuf, String),
    /// Making keys failed.
    #[error("cannot make keys: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes `ca.crt`, `agent.crt|.key` and `controller.crt|.key` in a folder. Agents need the first three, the controller the first and the last two.
///
/// # Errors
/// Where one of them is there already, or cannot be written.
pub fn make(folder: &Path) -> Result<(), KeyError> {
    fs::create_dir_all(folder).map_err(|error| KeyError::Io(folder.to_owned(), error))?;
    let validity = |params: &mut CertificateParams| {
        let now = jiff::Timestamp::now();
        let date = |at: jiff::Timestamp| {
            let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
            rcgen::date_time_ymd(
                i32::from(date.year()),
                date.month().unsigned_abs(),
                date.day().unsigned_abs(),
            )
        };
        // From yesterday on: clocks differ, and dates begin at midnight.
        params.not_before = date(now - jiff::SignedDuration::from_hours(24));
        params.not_after = date(now + jiff::SignedDuration::from_hours(24 * DAYS));
    };
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    validity(&mut authority);
    let authority_key = KeyPair::generate()?;
    write(folder, "ca.crt", &authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::from_params(&authority, &authority_key);
    for (name, names, purpose) in [
        (
            "agent",
            vec![AGENT_NAME.to_owned()],
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
        ("controller", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![purpose];
        validity(&mut params);
        write(folder, &format!("{name}.crt"), &params.signed_by(&key, &issuer)?.pem())?;
        write(folder, &format!("{name}.key"), &key.serialize_pem())?;
    }
    Ok(())
}

/// For its owner only, and never over what is there.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), KeyError> {
    let path = folder.join(name);
    // A temporary file is its owner's alone, and a name that it takes has the whole of it.
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut part| {
        io::Write::write_all(&mut part, text.as_bytes())?;
        part.persist_noclobber(&path).map_err(io::Error::from)
    });
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Exists(path)),
        Err(error) => Err(KeyError::Io(path, error)),
    }
}

fn authority(folder: &Path) -> Result<Arc<rustls::RootCertStore>, KeyError> {
    let path = folder.join("ca.crt");
    let mut roots = rustls::RootCertStore::empty();
    let problem = |error: String| KeyError::Content(path.clone(), error);
    let certificate = CertificateDer::from_pem_file(&path).map_err(|error| problem(error.to_string()))?;
    roots.add(certificate).map_err(|error| problem(error.to_string()))?;
    Ok(Arc::new(roots))
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(folder: &Path, name: &str) -> Result<Own, KeyError> {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let problem =
        |path: &Path, error: &rustls_pki_types::pem::Error| KeyError::Content(path.to_owned(), error.to_string());
    Ok((
        vec![CertificateDer::from_pem_file(&certificate).map_err(|error| problem(&certificate, &error))?],
        PrivateKeyDer::from_pem_file(&key).map_err(|error| problem(&key, &error))?,
    ))
}

/// TLS 1.3 for an agent: only a controller of the same authority is let in.
pub(super) fn acceptor(folder: &Path) -> Result<TlsAcceptor, KeyError> {
    let problem = |error: String| KeyError::Content(folder.to_owned(), error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(authority(folder)?, provider.clone())
        .build()
        .map_err(|error| problem(error.to_string()))?;
    let (certificate, key) = own(folder, "agent")?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| problem(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificate, key)
        .map_err(|error| problem(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// TLS 1.3 for a controller, and the name by which it knows an agent.
pub(super) fn connector(folder: &Path) -> Result<(TlsConnector, ServerName<'static>), KeyError> {
    let problem = |error: String| KeyError::Content(folder.to_owned(), error);
    let (certificate, key) = own(folder, "controller")?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| problem(error.to_string()))?
        .with_root_certificates(authority(folder)?)
        .with_client_auth_cert(certificate, key)
        .map_err(|error| problem(error.to_string()))?;
    let name = ServerName::try_from(AGENT_NAME).map_err(|error| problem(error.to_string()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
