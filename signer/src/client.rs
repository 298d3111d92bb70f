//! The other end of the wire: a gRPC channel with a client certificate, as `muhurdar seal` uses it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::credentials::{self, CredentialError};

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
                Ok::<_, io::Error>(TokioIo::new(tls.connect(name, stream).await?))
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
            .map_err(|error| ClientError::Connect {
                endpoint: self.endpoint.clone(),
                problem: root_cause(&error),
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

/// The innermost source: "transport error" alone helps nobody.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
