//! The wire: TLS connections in, gRPC answers out.
//!
//! Comes in: an address, certificates, the pipeline. Goes out: answers and statuses. Knows nothing of XML, digests or
//! tokens; it hands a request to the pipeline and an answer to the wire.

pub mod admin;
mod identity;
mod messages;
mod oversize;
mod service;
mod status;
mod tls;

use std::{future::Future, net::SocketAddr, sync::Arc};

use muhurdar_proto::{FILE_DESCRIPTOR_SET, seal::v1::seal_service_server::SealServiceServer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server as Transport};
use tonic_health::{ServingStatus, server::HealthReporter};

use self::service::Sealing;
pub use self::{identity::Peer, tls::TlsError};
use crate::{admission::Access, config::Config, pipeline::Pipeline, refusal::Refusal};

/// Bytes beside the document in a request message.
const MESSAGE_OVERHEAD: usize = 64 << 10;
/// HTTP/2 windows and frames that large documents pass in few steps: measured, see docs/performance.md.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const MAX_FRAME: u32 = 256 << 10;
/// Calls of one connection at a time.
const MAX_STREAMS: u32 = 1024;

/// Whether the TLS files of a configuration work together.
///
/// # Errors
/// Says which does not, and why.
pub fn check_tls(tls: &crate::config::Tls) -> Result<(), TlsError> {
    tls::server_config(tls).map(drop)
}

/// A gRPC server that listens but does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    config: Config,
    health: HealthReporter,
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates do not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The transport failed.
    #[error("gRPC transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Server {
    /// Binds the address and reads the certificates.
    ///
    /// # Errors
    /// Where either does not work.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let tls = tls::server_config(&config.server.tls)?;
        let address = config.server.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address, source })?;
        Ok(Self {
            listener,
            tls,
            config,
            health: HealthReporter::new(),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// A handle that tells health checks whether to send work here.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Serves until `stop` is ready, then answers what is under way and returns.
    ///
    /// # Errors
    /// Where the transport fails.
    pub async fn serve(self, pipeline: Arc<Pipeline>, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (out, connections) = mpsc::channel(64);
        tokio::spawn(tls::accept(self.listener, self.tls, self.config.server.clone(), out));

        let limit = self.config.limits.document.as_u64() + MESSAGE_OVERHEAD as u64;
        let sealing = Sealing::new(
            pipeline,
            Arc::new(Access::new(&self.config.clients)),
            &self.config.limits,
        );
        let sealing = SealServiceServer::new(sealing)
            .max_decoding_message_size(usize::try_from(limit).unwrap_or(usize::MAX))
            .max_encoding_message_size(usize::MAX);
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.health),
        );
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptor sets were made by the compiler of this build");

        Transport::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(60)))
            .layer(oversize::layer(self.config.limits.document.as_u64()))
            .add_service(InterceptedService::new(sealing, certified))
            .add_service(InterceptedService::new(health, certified))
            .add_service(InterceptedService::new(reflection, certified))
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop)
            .await?;
        Ok(())
    }
}

/// Refuses a call without a client certificate before its body is read.
#[allow(clippy::result_large_err, reason = "the signature of tonic's interceptor")]
fn certified(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Arc<Peer>>() {
        Some(peer) if peer.names.is_some() => Ok(request),
        _ => Err(status::status(&Refusal::Unauthenticated)),
    }
}

/// Tells `grpc.health.v1` whether the service can seal.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Sets the state of the server as a whole and of the sealing service.
    pub async fn set(&self, serving: bool) {
        let state = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.0.set_service_status("", state).await;
        self.0.set_service_status("muhurdar.seal.v1.SealService", state).await;
    }
}
