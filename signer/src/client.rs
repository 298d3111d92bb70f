//! The other end of the wire: a gRPC channel with a client certificate, as `muhurdar seal` uses it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::credentials::{self, CredentialError};

/// How long a server may be silent after the handshake before it is spoken to all the same: a proxy before it may wait for the first word
/// itself, and an alert that comes later still ends the connection, only without its reason.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// `client.toml`: where the service is, and how to show oneself. Relative paths are taken from the file's own folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfigFile {
    /// `https://HOST:PORT`
    pub endpoint: String,
    /// The authority that the server's certificate chains to (PEM or DER).
    pub ca: PathBuf,
    /// The client's certificate, with its intermediates (PEM or DER).
    pub cert: PathBuf,
    /// Its private key (PEM or DER), not encrypted.
    pub key: PathBuf,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A file or the endpoint is wrong.
    #[error("{what}: {problem}")]
    Config {
        /// The file or value.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers, or not with the expected certificate.
    #[error("{endpoint}: {problem}")]
    Connect {
        /// Where.
        endpoint: String,
        /// What happened.
        problem: String,
    },
    /// The service does not take the client's certificate.
    #[error("{endpoint} refuses the certificate {}: {alert}", certificate.display())]
    Refused {
        /// Where.
        endpoint: String,
        /// The certificate.
        certificate: PathBuf,
        /// What the service said.
        alert: rustls::Error,
    },
}

impl ClientConfigFile {
    /// Reads a `client.toml`.
    ///
    /// # Errors
    /// Where it cannot be read or does not parse.
    pub fn load(path: &Path) -> Result<Self, ClientError> {
        let text = std::fs::read_to_string(path).map_err(|e| config_error(path.display(), &e))?;
        let mut file: Self = toml::from_str(&text).map_err(|e| config_error(path.display(), &e))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for path in [&mut file.ca, &mut file.cert, &mut file.key] {
            *path = folder.join(&*path);
        }
        Ok(file)
    }

    /// Connects: TLS 1.3 with the client certificate, HTTP/2 with windows for large documents.
    ///
    /// # Errors
    /// Where a file is wrong, or the connection cannot be made.
    pub async fn connect(&self) -> Result<Channel, ClientError> {
        let uri: Uri = self.endpoint.parse().map_err(|e| config_error(&self.endpoint, &e))?;
        if uri.scheme_str() != Some("https") {
            return Err(config_error(&self.endpoint, &"must begin with https://"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|e| config_error(&self.endpoint, &e))?;
        let address = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443));
        let tls = TlsConnector::from(Arc::new(self.tls()?));
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let mut stream = tls.connect(name, stream).await?;
                first_word(&mut stream).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The connector speaks TLS itself; to the endpoint it is a plain connection.
        let plain = Endpoint::from_shared(self.endpoint.replacen("https://", "http://", 1))
            .map_err(|e| config_error(&self.endpoint, &e))?
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(16 << 20);
        plain
            .connect_with_connector(connector)
            .await
            .map_err(|error| match refusal(&error) {
                Some(alert) => ClientError::Refused {
                    endpoint: self.endpoint.clone(),
                    certificate: self.cert.clone(),
                    alert,
                },
                None => ClientError::Connect {
                    endpoint: self.endpoint.clone(),
                    problem: root_cause(&error),
                },
            })
    }

    fn tls(&self) -> Result<ClientConfig, ClientError> {
        let roots = credentials::authorities(&self.ca)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (chain, key) = credentials::identity(&self.cert, &self.key, &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| config_error("TLS", &e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| config_error(format_args!("{} and {}", self.cert.display(), self.key.display()), &e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl From<CredentialError> for ClientError {
    fn from(error: CredentialError) -> Self {
        config_error(error.path.display(), &error.problem)
    }
}

fn config_error(what: impl std::fmt::Display, problem: &dyn std::fmt::Display) -> ClientError {
    ClientError::Config {
        what: what.to_string(),
        problem: problem.to_string(),
    }
}

/// Waits until the server says something, which in HTTP/2 it does by itself (RFC 9113, section 3.4): in TLS 1.3 a client is
/// done with the handshake before the server has looked at its certificate (RFC 8446, section 2), and learns by an alert in
/// place of that first word that it was refused.
async fn first_word(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
    match timeout(FIRST_WORD, stream.fill_buf()).await {
        Ok(Ok([])) => Err(io::Error::other("closed the connection without a word")),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// The TLS alert by which the other end has refused this one's certificate (RFC 8446, section 6.2).
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    use rustls::AlertDescription as Alert;
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    let error = causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref());
    let of_the_certificate = |alert: &Alert| {
        matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::CertificateRequired
        )
    };
    error
        .filter(|e| matches!(e, rustls::Error::AlertReceived(alert) if of_the_certificate(alert)))
        .cloned()
}

/// The innermost source: "transport error" alone helps nobody.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
