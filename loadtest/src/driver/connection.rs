//! One HTTP/2 connection over mutual TLS, tuned for documents.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use crate::target::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens, or nobody answers.
    #[error("cannot connect to {0}: {1}")]
    Tcp(String, std::io::Error),
    /// The handshake failed: mostly a certificate that one side does not trust.
    #[error("TLS with {0} failed: {1}; do --ca, --cert and --key belong to this server?")]
    Tls(String, std::io::Error),
    /// The server does not speak HTTP/2.
    #[error("{0} does not speak HTTP/2: {1}")]
    Http(String, hyper::Error),
    /// Too slow.
    #[error("{0} did not complete the handshake within {1:?}")]
    Slow(String, Duration),
}

/// A connection that takes gRPC requests.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    requests: http2::SendRequest<Body>,
}

impl Connection {
    /// Connects, shakes hands, and hands back the task that drives the connection; it ends when the connection does.
    pub(crate) async fn open(
        target: &Target,
        tls: Arc<ClientConfig>,
    ) -> Result<(Self, JoinHandle<Result<(), hyper::Error>>), ConnectError> {
        let name = target.endpoint.clone();
        let handshake = async {
            let tcp = TcpStream::connect(target.address())
                .await
                .map_err(|e| ConnectError::Tcp(name.clone(), e))?;
            tcp.set_nodelay(true).map_err(|e| ConnectError::Tcp(name.clone(), e))?;
            let tls = TlsConnector::from(tls)
                .connect(target.server_name(), tcp)
                .await
                .map_err(|e| ConnectError::Tls(name.clone(), e))?;
            // Large frames save most: without them a 10 KB answer is one frame, a 260 KB answer sixteen.
            let (requests, connection) = http2::Builder::new(TokioExecutor::new())
                .max_frame_size(256 * 1024)
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(16 * 1024 * 1024)
                .max_send_buf_size(1024 * 1024)
                .handshake(TokioIo::new(tls))
                .await
                .map_err(|e| ConnectError::Http(name.clone(), e))?;
            Ok((Self { requests }, tokio::spawn(connection)))
        };
        timeout(CONNECT_TIMEOUT, handshake)
            .await
            .unwrap_or_else(|_| Err(ConnectError::Slow(target.endpoint.clone(), CONNECT_TIMEOUT)))
    }
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}
