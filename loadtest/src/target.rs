//! The service under test: where it listens, how a branch proves who it is, whose seals may be asked for.
//!
//! What comes in: paths and addresses from the command line, or the folder that `muhurdar dev` lays out. What goes out: a
//! [`Target`] whose every file has been read, so that nothing can be missing once the load runs.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use muhurdar_xades::pem;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::generator::Taxpayer;

/// What is wrong with a target's files or address, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        problem: String,
    },
    /// The endpoint is not `https://host:port`.
    #[error("'{0}' is not an endpoint: write https://host:port")]
    Endpoint(String),
    /// The name does not resolve.
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, std::io::Error),
}

/// A client of the service: its certificate chain and private key.
#[derive(Clone)]
pub struct Identity {
    /// As the report names it.
    pub name: String,
    /// PEM.
    pub(crate) certificate: Arc<str>,
    /// PEM. Wiped when the last copy goes.
    pub(crate) key: Arc<Zeroizing<String>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads certificate and key from files in PEM or DER; it is named as the certificate's file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TargetError> {
        let name = certificate.file_stem();
        Ok(Self {
            name: name.map_or_else(|| "client".into(), |stem| stem.to_string_lossy().into_owned()),
            certificate: read_certificates(certificate)?.into(),
            key: Arc::new(read_key(key)?),
        })
    }
}

/// Where the service listens, and who vouches for it.
#[derive(Clone, Debug)]
pub struct Target {
    /// As it was written.
    pub endpoint: String,
    address: SocketAddr,
    server_name: ServerName<'static>,
    authority: http::uri::Authority,
    pub(crate) ca: Arc<str>,
    roots: Arc<rustls::RootCertStore>,
}

impl Target {
    /// Reads the CA file and resolves the endpoint.
    pub fn open(endpoint: &str, ca: &Path) -> Result<Self, TargetError> {
        Self::new(endpoint, &read_certificates(ca)?, ca)
    }

    /// Resolves the endpoint; `ca` is PEM, `from` is what to call it in an error.
    pub(crate) fn new(endpoint: &str, ca: &str, from: &Path) -> Result<Self, TargetError> {
        let malformed = || TargetError::Endpoint(endpoint.to_owned());
        let uri: http::Uri = endpoint.parse().map_err(|_| malformed())?;
        if uri.scheme_str() != Some("https") {
            return Err(malformed());
        }
        let authority = uri.authority().ok_or_else(malformed)?.clone();
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let address = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port))
            .map_err(|error| TargetError::Resolve(host.clone(), error))?
            .next()
            .ok_or_else(malformed)?;
        let server_name = ServerName::try_from(host).map_err(|_| malformed())?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(ca, from)? {
            roots
                .add(certificate)
                .map_err(|error| content(from, format!("not a CA certificate: {error}")))?;
        }
        Ok(Self {
            endpoint: endpoint.to_owned(),
            address,
            server_name,
            authority,
            ca: ca.into(),
            roots: Arc::new(roots),
        })
    }

    /// The socket address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name that the server's certificate must carry.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// `host:port` for gRPC's `:authority`.
    pub fn authority(&self) -> http::uri::Authority {
        self.authority.clone()
    }

    /// TLS for one identity: its certificate, HTTP/2 only.
    pub fn tls(&self, identity: &Identity) -> Result<Arc<ClientConfig>, TargetError> {
        let from = Path::new(&identity.name);
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
            .map_err(|error| content(from, format!("has no private key in PEM: {error}")))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the protocol versions that rustls was built with")
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(certificates(&identity.certificate, from)?, key)
            .map_err(|error| content(from, format!("has a key that does not fit its certificate: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// `client.toml` of `muhurdar dev`; paths are relative to the file.
#[derive(Debug, Deserialize)]
struct ClientToml {
    endpoint: String,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// What a client file says.
#[derive(Clone, Debug)]
pub struct ClientFile {
    /// `https://host:port`.
    pub endpoint: String,
    /// CA certificates, PEM.
    pub ca: PathBuf,
    /// The client that the file names.
    pub identity: Identity,
}

/// Reads a `client.toml`.
pub fn read_client_file(path: &Path) -> Result<ClientFile, TargetError> {
    let file: ClientToml = toml::from_str(&read(path)?).map_err(|error| content(path, error.to_string()))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    Ok(ClientFile {
        endpoint: file.endpoint,
        ca: beside.join(file.ca),
        identity: Identity::read(&beside.join(file.cert), &beside.join(file.key))?,
    })
}

#[derive(Debug, Deserialize)]
struct TaxpayerEntry {
    vkn: String,
    certificate: Option<PathBuf>,
    key_type: Option<String>,
}

/// Reads a `taxpayers.json`: an array of objects with `vkn`, and perhaps `certificate` (a path, relative to the file) and
/// `key_type`. Only those whose key type starts with `key_type` are kept, where it is given.
pub fn read_taxpayers(path: &Path, key_type: Option<&str>) -> Result<Vec<Taxpayer>, TargetError> {
    let entries: Vec<TaxpayerEntry> =
        serde_json::from_str(&read(path)?).map_err(|error| content(path, error.to_string()))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    entries
        .into_iter()
        .filter(|entry| match (key_type, &entry.key_type) {
            (Some(wanted), Some(has)) => spelled(has).starts_with(&spelled(wanted)),
            _ => true,
        })
        .map(|entry| {
            let certificate = match entry.certificate {
                Some(file) => {
                    let file = beside.join(file);
                    let all =
                        pem::certificates(&read_bytes(&file)?).map_err(|error| content(&file, error.to_string()))?;
                    all.into_iter().next().map(Arc::from)
                }
                None => None,
            };
            taxpayer(&entry.vkn, certificate).ok_or_else(|| content(path, not_a_number(&entry.vkn)))
        })
        .collect()
}

/// `KEY_TYPE_RSA_2048`, `RSA-2048` and `rsa2048` are one.
fn spelled(key_type: &str) -> String {
    key_type
        .to_ascii_lowercase()
        .replace("key_type_", "")
        .replace(['-', '_', ' '], "")
}

/// A taxpayer by VKN or TCKN; None where it is neither.
pub fn taxpayer(number: &str, certificate: Option<Arc<[u8]>>) -> Option<Taxpayer> {
    (matches!(number.len(), 10 | 11) && number.bytes().all(|b| b.is_ascii_digit())).then(|| Taxpayer {
        number: number.into(),
        certificate,
    })
}

/// What to say of a number that is neither VKN nor TCKN.
pub fn not_a_number(number: &str) -> String {
    format!("'{number}' is neither a VKN (10 digits) nor a TCKN (11 digits)")
}

fn read(path: &Path) -> Result<String, TargetError> {
    std::fs::read_to_string(path).map_err(|cause| TargetError::Read {
        path: path.to_owned(),
        cause,
    })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, TargetError> {
    std::fs::read(path).map_err(|cause| TargetError::Read {
        path: path.to_owned(),
        cause,
    })
}

/// The certificates of a file, whichever tool wrote it, as plain PEM: what agents are sent.
fn read_certificates(path: &Path) -> Result<String, TargetError> {
    let all = pem::certificates(&read_bytes(path)?).map_err(|error| content(path, error.to_string()))?;
    Ok(all.iter().map(|der| pem::write("CERTIFICATE", der)).collect())
}

/// The private key of a file, likewise.
fn read_key(path: &Path) -> Result<Zeroizing<String>, TargetError> {
    let file = Zeroizing::new(read_bytes(path)?);
    let (form, der) = pem::private_key(&file).map_err(|error| content(path, error.to_string()))?;
    Ok(Zeroizing::new(pem::write(form.label(), &Zeroizing::new(der))))
}

/// All certificates in a PEM text, at least one; `from` is what to call it in an error.
fn certificates(text: &str, from: &Path) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    let all = pem::certificates(text.as_bytes()).map_err(|error| content(from, error.to_string()))?;
    Ok(all.into_iter().map(CertificateDer::from).collect())
}

fn content(path: &Path, problem: String) -> TargetError {
    TargetError::Content {
        path: path.to_owned(),
        problem,
    }
}
