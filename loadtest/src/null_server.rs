//! A service that seals nothing: it answers every document with itself, over the same mutual TLS and gRPC as the real one.
//!
//! What the generator can send at most is measured against it, apart from any signer; and the harness's own tests make it
//! stall, refuse or break off on command. It runs on a thread of its own, on a loopback port that the system chooses, with keys
//! made for it alone.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use muhurdar_proto::seal::v1::{
    GetSealRequest, GetSealResponse, GetServerInfoRequest, GetServerInfoResponse, ListSealsRequest, ListSealsResponse,
    SealBatchRequest, SealBatchResponse, SealBatchResult, SealLargeRequest, SealLargeResponse, SealRequest,
    SealResponse, SealStreamRequest, SealStreamResponse, SignDigestRequest, SignDigestResponse, seal_batch_result,
    seal_response,
    seal_service_server::{SealService, SealServiceServer},
    seal_stream_response,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::target::{Identity, TargetError};

/// What the server does besides answering.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// No answer before this instant.
    stalled_until: Mutex<Option<Instant>>,
    /// Every n-th document is refused as OVERLOADED; 0: none.
    refuse_every: AtomicU64,
    seen: AtomicU64,
}

impl Behaviour {
    /// Holds every answer back for this long from now on.
    pub fn stall(&self, duration: Duration) {
        *self.stalled_until.lock().expect("nobody panics with this lock held") = Some(Instant::now() + duration);
    }

    /// Refuses every n-th document; 0 for none.
    pub fn refuse_every(&self, n: u64) {
        self.refuse_every.store(n, Ordering::Relaxed);
    }

    /// Documents that came.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    async fn pause(&self) {
        let until = *self.stalled_until.lock().expect("nobody panics with this lock held");
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn answer(&self, request: SealRequest) -> Result<SealResponse, Status> {
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let refuse = self.refuse_every.load(Ordering::Relaxed);
        if refuse > 0 && number.is_multiple_of(refuse) {
            let details = ErrorDetails::with_error_info("OVERLOADED", muhurdar_proto::ERROR_DOMAIN, []);
            return Err(Status::with_error_details(
                Code::ResourceExhausted,
                "told to refuse",
                details,
            ));
        }
        Ok(SealResponse {
            answer: Some(seal_response::Answer::SealedDocument(request.document)),
            result: None,
        })
    }
}

fn rpc_status(status: &Status) -> tonic_types::pb::Status {
    prost::Message::decode(status.details()).unwrap_or_default()
}

#[derive(Debug)]
struct Null(Arc<Behaviour>);

type Answers = Pin<Box<dyn Stream<Item = Result<SealStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SealService for Null {
    type SealStreamStream = Answers;

    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        self.0.pause().await;
        self.0.answer(request.into_inner()).map(Response::new)
    }

    async fn seal_stream(&self, request: Request<Streaming<SealStreamRequest>>) -> Result<Response<Answers>, Status> {
        let behaviour = self.0.clone();
        let answers = request.into_inner().then(move |item| {
            let behaviour = behaviour.clone();
            async move {
                let item = item?;
                behaviour.pause().await;
                let outcome = match behaviour.answer(item.request.unwrap_or_default()) {
                    Ok(response) => seal_stream_response::Outcome::Response(response),
                    Err(status) => seal_stream_response::Outcome::Error(rpc_status(&status)),
                };
                Ok(SealStreamResponse {
                    id: item.id,
                    outcome: Some(outcome),
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type SealLargeStream = Pin<Box<dyn Stream<Item = Result<SealLargeResponse, Status>> + Send>>;

    async fn seal_large(
        &self,
        _: Request<Streaming<SealLargeRequest>>,
    ) -> Result<Response<Self::SealLargeStream>, Status> {
        Err(Status::unimplemented("the null server answers single documents"))
    }

    async fn seal_batch(&self, request: Request<SealBatchRequest>) -> Result<Response<SealBatchResponse>, Status> {
        self.0.pause().await;
        let results = request.into_inner().items.into_iter().map(|item| {
            let outcome = match self.0.answer(item) {
                Ok(response) => seal_batch_result::Outcome::Response(response),
                Err(status) => seal_batch_result::Outcome::Error(rpc_status(&status)),
            };
            SealBatchResult { outcome: Some(outcome) }
        });
        Ok(Response::new(SealBatchResponse {
            results: results.collect(),
        }))
    }

    async fn sign_digest(&self, _: Request<SignDigestRequest>) -> Result<Response<SignDigestResponse>, Status> {
        Err(Status::unimplemented("the null server signs nothing"))
    }

    async fn list_seals(&self, _: Request<ListSealsRequest>) -> Result<Response<ListSealsResponse>, Status> {
        Ok(Response::new(ListSealsResponse::default()))
    }

    async fn get_seal(&self, _: Request<GetSealRequest>) -> Result<Response<GetSealResponse>, Status> {
        Err(Status::not_found("the null server has no seals"))
    }

    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(GetServerInfoResponse::default()))
    }
}

/// A running null server; dropping it ends it.
#[derive(Debug)]
pub struct NullServer {
    /// `https://127.0.0.1:port`.
    pub endpoint: String,
    /// What it does.
    pub behaviour: Arc<Behaviour>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NullServer {
    /// Starts one. Keys and certificates go into `folder`: `ca.crt`, `server.crt|.key`, `client.crt|.key`.
    pub fn start(folder: &Path) -> io::Result<Self> {
        make_keys(folder).map_err(io::Error::other)?;
        let acceptor = acceptor(folder).map_err(io::Error::other)?;
        let behaviour = Arc::new(Behaviour::default());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let served = behaviour.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("null-server".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, acceptor, served) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self {
            endpoint: endpoint(address),
            behaviour,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The client that the server lets in.
    ///
    /// # Errors
    /// Where its files are not there.
    pub fn client(folder: &Path) -> Result<Identity, TargetError> {
        Identity::read(&folder.join("client.crt"), &folder.join("client.key"))
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn endpoint(address: SocketAddr) -> String {
    format!("https://{address}")
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, behaviour: Arc<Behaviour>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let service = SealServiceServer::new(Null(behaviour))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(service.clone()));
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_frame_size(256 * 1024)
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(16 * 1024 * 1024)
                .max_concurrent_streams(10_000)
                .serve_connection(TokioIo::new(tls), service)
                .await;
        });
    }
}

fn make_keys(folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    fs::write(folder.join("ca.crt"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = Issuer::from_params(&authority, &authority_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()])?.signed_by(&key, &issuer)?;
        fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

fn acceptor(folder: &Path) -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(folder.join("server.crt"))?],
            PrivateKeyDer::from_pem_file(folder.join("server.key"))?,
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
