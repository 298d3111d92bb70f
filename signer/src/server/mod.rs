//! The wire: TLS connections in, gRPC answers out.
//!
//! Comes in: an address, certificates, the pipeline. Goes out: answers and statuses. Knows nothing of XML, digests or
//! tokens; it hands a request to the pipeline and an answer to the wire.

mod accept;
pub mod admin;
mod again;
mod arriving;
mod connection;
mod contained;
mod descriptors;
mod directory;
mod ending;
mod expanding;
mod handshake;
mod http2;
mod identity;
mod info;
mod large;
mod leaving;
mod line;
mod live;
mod messages;
mod methods;
mod opening;
mod oversize;
mod reflection;
mod service;
mod status;
mod stream;
mod tls;
mod turkish;
mod wording;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use muhurdar_proto::{FILE_DESCRIPTOR_SET, seal::v1::seal_service_server::SealServiceServer};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::{Routes, interceptor::InterceptedService},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Layer as _;

use self::service::Sealing;
pub(crate) use self::{handshake::Kind as NoHandshake, tls::Facts};
pub use self::{
    identity::Peer,
    live::Live,
    tls::{TlsError, Trust},
};
use crate::{admission::MESSAGE_OVERHEAD, config::Config, pipeline::Pipeline, refusal::Refusal, telemetry::Metrics};

/// Connections that may wait to be accepted; Linux lowers it to `net.core.somaxconn`, which has been 4096 since 5.4. Beyond it
/// the kernel drops connections in silence, and a client of ours tries again a second later at the soonest.
const BACKLOG: u32 = 4096;
/// Bytes of a call's headers, all together: a few of gRPC's own and a trace context.
const MAX_HEADERS: u32 = 16 << 10;

/// What is to be said of a configuration's listeners where nothing is wrong with them.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    [admin::warning(config), descriptors::warning(config)]
        .into_iter()
        .flatten()
}

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
    /// Hardly any connection would find a file descriptor.
    #[error(
        "the process may have {limit} open files, and needs {least} to serve at all; raise LimitNOFILE= of the unit, or ulimit -n"
    )]
    Descriptors {
        /// How many it may have.
        limit: u64,
        /// How many it needs.
        least: u64,
    },
}

impl Server {
    /// Binds the address and reads the certificates.
    ///
    /// # Errors
    /// Where either does not work.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let trust = Trust::read(&config.server.tls)?;
        let most = descriptors::connections(&config)?;
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
            live: Live::new(&config, trust, most),
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

    /// Serves until `end`, then says so to every peer, and returns when each has read what it has asked for. Dropped before,
    /// it cuts them off.
    pub async fn serve(self, pipeline: Arc<Pipeline>, end: CancellationToken) {
        let connections = accept::accept(self.listener, self.unix, &self.live, &pipeline.metrics);
        let limit = self.config.limits.document.as_u64() + MESSAGE_OVERHEAD as u64;
        let arriving = arriving::layer(&pipeline, &self.live, limit);
        let counting = leaving::Counting {
            pipeline: Arc::clone(&pipeline),
            live: Arc::clone(&self.live),
        };
        let opening = opening::Opening {
            pipeline: Arc::clone(&pipeline),
            live: Arc::clone(&self.live),
        };
        let expanding = expanding::Expanding {
            pipeline: Arc::clone(&pipeline),
            live: Arc::clone(&self.live),
            largest: limit,
        };
        let metrics = Arc::clone(&pipeline.metrics);
        let sealing = Sealing::new(pipeline, Arc::clone(&self.live), limit);
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

        let routes = Routes::new(InterceptedService::new(
            sealing,
            intercept(counted(certified(&self.live), metrics)),
        ))
        .add_service(InterceptedService::new(health, intercept(certified(&self.live))))
        .add_service(InterceptedService::new(reflection, intercept(certified(&self.live))))
        .add_service(InterceptedService::new(
            reflection_alpha,
            intercept(certified(&self.live)),
        ))
        .prepare();
        let service = wording::layer(limit).layer(reflection::Honest.layer(routes));
        let service = opening.layer(counting.layer(arriving.layer(expanding.layer(service))));
        http2::serve(http2::builder(&self.config.server), connections, service, end).await;
    }
}

/// Refuses a call without a client certificate, or with one that is trusted no more, before its body is read.
fn certified(live: &Arc<Live>) -> impl Fn(&Request<()>) -> Result<(), Refusal> + Clone + use<> {
    let live = Arc::clone(live);
    move |request| live.authenticate(request.extensions().get::<Arc<Peer>>().map(|peer| &**peer))
}

/// The same for calls of what a probe does not ask for: who was refused is counted, and told to the auditor.
fn counted(
    certified: impl Fn(&Request<()>) -> Result<(), Refusal> + Clone,
    metrics: Arc<Metrics>,
) -> impl Fn(&Request<()>) -> Result<(), Refusal> + Clone {
    move |request| {
        certified(request).inspect_err(|refusal| {
            metrics.refused(refusal, None);
            let peer = request.extensions().get::<Arc<Peer>>().map(|peer| &*peer.place);
            tracing::warn!(target: "muhurdar::audit", peer, why = "no client certificate that holds now", "denied");
        })
    }
}

/// As tonic asks.
fn intercept(
    certified: impl Fn(&Request<()>) -> Result<(), Refusal> + Clone,
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| match certified(&request) {
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
