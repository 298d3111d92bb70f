//! The acceptor: TCP in, verified TLS connections out.
//!
//! It is our own because tonic's has no handshake time-out, no connection cap and no way to change certificates. A
//! handshake runs in its own task, so that a peer that stalls in it holds up nobody; a peer without a certificate comes
//! through and is answered UNAUTHENTICATED by the service, as the contract has it; a certificate that does not verify
//! ends in a TLS alert.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::identity::Peer;
use crate::config::{Server, Tls};

/// What is wrong with the TLS files. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be read, or holds nothing of the kind.
    #[error("{path}: {problem}")]
    Pem {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The pieces do not fit together.
    #[error("TLS: {0}")]
    Config(String),
}

/// Builds the server's TLS configuration: TLS 1.3 (1.2 where allowed), client certificates checked in every handshake.
///
/// # Errors
/// Where a file is missing, holds no certificate or key, or the key does not fit the certificate.
pub(super) fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.client_ca)? {
        roots.add(certificate).map_err(|e| pem_error(&tls.client_ca, &e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|e| TlsError::Config(e.to_string()))?;
    let versions: &[&rustls::SupportedProtocolVersion] = if tls.allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| pem_error(&tls.key, &e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| TlsError::Config(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate)?, key)
        .map_err(|e| TlsError::Config(format!("{} and {}: {e}", tls.certificate.display(), tls.key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a client certificate that nobody has looked at since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| pem_error(path, &e))?
        .collect();
    let found = found.map_err(|e| pem_error(path, &e))?;
    if found.is_empty() {
        return Err(pem_error(path, &"holds no certificate"));
    }
    Ok(found)
}

fn pem_error(path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

/// A connection whose handshake is done. Holds its place under the connection cap.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts until the receiver of the connections is gone.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    server: Server,
    out: mpsc::Sender<io::Result<Connection>>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(server.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = out.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that ended before it began: neither is a reason to stop.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%address, limit = server.max_connections, "connection refused: max_connections reached");
            continue;
        };
        let (acceptor, out, limit) = (acceptor.clone(), out.clone(), server.handshake_timeout);
        tokio::spawn(async move {
            match timeout(limit, handshake(acceptor, stream, address, place)).await {
                Ok(Ok(connection)) => drop(out.send(Ok(connection)).await),
                Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::info!(%address, ?limit, "TLS handshake timed out"),
            }
        });
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let peer = Arc::new(Peer::new(address, stream.get_ref().1.peer_certificates()));
    Ok(Connection {
        stream,
        peer,
        _place: place,
    })
}
