//! The wire: TLS connections in, gRPC answers out.
//!
//! Comes in: an address, certificates, the pipeline. Goes out: answers and statuses. Knows nothing of XML, digests or
//! tokens; it hands a request to the pipeline and an answer to the wire.

mod accept;
pub mod admin;
mod arriving;
mod connection;
mod contained;
mod identity;
mod large;
mod leaving;
mod live;
mod messages;
mod oversize;
mod service;
mod status;
mod tls;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use muhurdar_proto::{FILE_DESCRIPTOR_SET, seal::v1::seal_service_server::SealServiceServer};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server as Transport};
use tonic_health::{ServingStatus, server::HealthReporter};

use self::service::Sealing;
pub(crate) use self::tls::Facts;
pub use self::{
    identity::Peer,
    live::Live,
    tls::{TlsError, Trust},
};
use crate::{admission::MESSAGE_OVERHEAD, config::Config, pipeline::Pipeline};

/// Connections that may wait to be accepted; Linux lowers it to `net.core.somaxconn`, which has been 4096 since 5.4. Beyond it
/// the kernel drops connections in silence, and a client of ours tries again a second later at the soonest.
const BACKLOG: u32 = 4096;
/// HTTP/2 windows and frames that large documents pass in few steps: measured, see docs/performance.md.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const MAX_FRAME: u32 = 256 << 10;
/// Calls of one connection at a time.
const MAX_STREAMS: u32 = 1024;
/// Bytes of a call's headers, all together: a few of gRPC's own and a trace context.
const MAX_HEADERS: u32 = 16 << 10;

/// Whether the TLS files of a configuration work together.
///
/// # Errors
/// Says which does not, and why.
pub fn check_tls(tls: &crate::config::Tls) -> Result<(), TlsError> {
    Trust::read(tls).map(drop)
}

/// A gRPC server that listens but does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    unix: Option<UnixListener>,
    live: Arc<Live>,
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
    /// The Unix socket cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates do not work.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No handler for SIGHUP.
    #[error("signals: {0}")]
    Signals(std::io::Error),
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
        let trust = Trust::read(&config.server.tls)?;
        let address = config.server.listen;
        let listener = bind(address).map_err(|source| ServeError::Listen { address, source })?;
        let unix = match &config.server.unix_socket {
            None => None,
            Some(path) => Some(bind_unix(path).map_err(|source| ServeError::Socket {
                path: path.clone(),
                source,
            })?),
        };
        Ok(Self {
            listener,
            unix,
            live: Live::new(&config, trust),
            config,
            health: HealthReporter::new(),
        })
    }

    /// What of it may change while it runs.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
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
        let connections = accept::accept(self.listener, self.unix, &self.live);
        let limit = self.config.limits.document.as_u64() + MESSAGE_OVERHEAD as u64;
        let arriving = arriving::layer(&pipeline, &self.live);
        let counting = leaving::Counting {
            pipeline: Arc::clone(&pipeline),
            live: Arc::clone(&self.live),
        };
        let sealing = Sealing::new(pipeline, Arc::clone(&self.live), self.config.limits.document.as_u64());
        let sealing = SealServiceServer::new(sealing)
            .max_decoding_message_size(usize::try_from(limit).unwrap_or(usize::MAX))
            .max_encoding_message_size(usize::MAX);
        let health = tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(self.health),
        );
        let reflected = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let descriptors = "the descriptor sets were made by the compiler of this build";
        let reflection = reflected().build_v1().expect(descriptors);
        // Python's own client asks for nothing newer.
        let reflection_alpha = reflected().build_v1alpha().expect(descriptors);

        Transport::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_keepalive_interval(Some(self.config.server.keep_alive_interval))
            .http2_keepalive_timeout(Some(self.config.server.keep_alive_timeout))
            .timeout(self.config.limits.request_timeout + self.config.limits.arrival_timeout)
            .layer(counting)
            .layer(arriving)
            .layer(oversize::layer(self.config.limits.document.as_u64()))
            .add_service(InterceptedService::new(sealing, certified(&self.live)))
            .add_service(InterceptedService::new(health, certified(&self.live)))
            .add_service(InterceptedService::new(reflection, certified(&self.live)))
            .add_service(InterceptedService::new(reflection_alpha, certified(&self.live)))
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop)
            .await?;
        Ok(())
    }
}

/// Refuses a call without a client certificate, or with one that is trusted no more, before its body is read.
fn certified(live: &Arc<Live>) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let live = Arc::clone(live);
    move |request| match live.authenticate(request.extensions().get::<Arc<Peer>>().map(|peer| &**peer)) {
        Ok(()) => Ok(request),
        Err(refusal) => Err(status::status(&refusal)),
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart need not wait for what the kernel remembers of old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that a process before this one has left is no longer anybody's.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err()
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Who may connect is decided by the folder; who may seal, by who it is.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
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
