//! A relay between clients and the service that spoils seals on the way: no `muhurdar` lets a wrong one out, so one that is to be found by
//! those who look has to be made wrong after it left.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    self as wire, seal_response,
    seal_service_client::SealServiceClient,
    seal_service_server::{SealService, SealServiceServer},
    seal_stream_response,
};
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig},
};

/// Runs until it is dropped.
pub(crate) struct Relay {
    pub(crate) endpoint: String,
    _runtime: Runtime,
}

impl Relay {
    /// Before the service at `endpoint` of the appliance in `dir`. Of what the service answers, so many seals are spoiled, from the one
    /// numbered `first` on.
    pub(crate) fn before(endpoint: &str, dir: &Path, listen: SocketAddr, first: usize, many: usize) -> Self {
        let read = |name: &str| fs::read(dir.join(name)).unwrap();
        let ca = Certificate::from_pem(read("ca.crt"));
        let identity = Identity::from_pem(read("clients/branch-1.crt"), read("clients/branch-1.key"));
        let upstream = ClientTlsConfig::new().ca_certificate(ca.clone()).identity(identity);
        let own = ServerTlsConfig::new()
            .identity(Identity::from_pem(read("server.crt"), read("server.key")))
            .client_ca_root(ca);
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .unwrap()
            .tls_config(upstream)
            .unwrap()
            .connect_lazy();
        let spoiler = Spoiler {
            upstream: SealServiceClient::new(channel),
            seen: Arc::default(),
            spoiled: first..first + many,
        };
        let server = Server::builder().tls_config(own).unwrap();
        // Bound before anybody is told of it.
        let listener = std::net::TcpListener::bind(listen).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(
            { server }
                .add_service(SealServiceServer::new(spoiler))
                .serve_with_incoming(incoming),
        );
        drop(inside);
        Self {
            endpoint: format!("https://{listen}"),
            _runtime: runtime,
        }
    }
}

#[derive(Clone)]
struct Spoiler {
    upstream: SealServiceClient<Channel>,
    seen: Arc<AtomicUsize>,
    spoiled: std::ops::Range<usize>,
}

impl Spoiler {
    fn pass(&self, response: &mut wire::SealResponse) {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        if !self.spoiled.contains(&number) {
            return;
        }
        if let Some(seal_response::Answer::SealedDocument(document)) = &mut response.answer
            && let Some(result) = &mut response.result
        {
            (*document, result.signature_value) = spoil(document);
            // Whoever only compares the answer's parts with each other sees nothing.
            let digest = digest(&SHA256, document);
            result.sealed_document_sha256 = Bytes::copy_from_slice(digest.as_ref());
        }
    }
}

/// The document with one letter of its signature's value changed, and the value that this is.
fn spoil(document: &[u8]) -> (Bytes, Bytes) {
    let mut spoiled = document.to_vec();
    let find = |what: &[u8], from: usize| {
        let at = document[from..].windows(what.len()).position(|window| window == what);
        from + at.expect("a sealed document has a SignatureValue")
    };
    let begin = find(b">", find(b"<ds:SignatureValue", 0)) + 1;
    let end = find(b"<", begin);
    let letter = &mut spoiled[begin + 20];
    *letter = if *letter == b'A' { b'B' } else { b'A' };
    let text: Vec<u8> = spoiled[begin..end]
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let value = BASE64_STANDARD.decode(text).expect("xs:base64Binary");
    (spoiled.into(), value.into())
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SealService for Spoiler {
    type SealStreamStream = Answers<wire::SealStreamResponse>;
    type SealLargeStream = Answers<wire::SealLargeResponse>;

    async fn seal_stream(
        &self,
        request: Request<Streaming<wire::SealStreamRequest>>,
    ) -> Result<Response<Self::SealStreamStream>, Status> {
        let items = request.into_inner().map_while(Result::ok);
        let answers = self.upstream.clone().seal_stream(items).await?.into_inner();
        let spoiler = self.clone();
        let answers = answers.map(move |answer| {
            let mut answer = answer?;
            if let Some(seal_stream_response::Outcome::Response(response)) = &mut answer.outcome {
                spoiler.pass(response);
            }
            Ok(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn seal(&self, request: Request<wire::SealRequest>) -> Result<Response<wire::SealResponse>, Status> {
        let mut response = self.upstream.clone().seal(request.into_inner()).await?;
        self.pass(response.get_mut());
        Ok(response)
    }

    async fn list_seals(
        &self,
        request: Request<wire::ListSealsRequest>,
    ) -> Result<Response<wire::ListSealsResponse>, Status> {
        self.upstream.clone().list_seals(request.into_inner()).await
    }

    async fn get_seal(
        &self,
        request: Request<wire::GetSealRequest>,
    ) -> Result<Response<wire::GetSealResponse>, Status> {
        self.upstream.clone().get_seal(request.into_inner()).await
    }

    async fn seal_batch(
        &self,
        _: Request<wire::SealBatchRequest>,
    ) -> Result<Response<wire::SealBatchResponse>, Status> {
        Err(Status::unimplemented("the relay passes single documents"))
    }

    async fn get_server_info(
        &self,
        request: Request<wire::GetServerInfoRequest>,
    ) -> Result<Response<wire::GetServerInfoResponse>, Status> {
        self.upstream.clone().get_server_info(request.into_inner()).await
    }

    async fn sign_digest(
        &self,
        _: Request<wire::SignDigestRequest>,
    ) -> Result<Response<wire::SignDigestResponse>, Status> {
        Err(Status::unimplemented("the relay passes single documents"))
    }

    async fn seal_large(
        &self,
        _: Request<Streaming<wire::SealLargeRequest>>,
    ) -> Result<Response<Self::SealLargeStream>, Status> {
        Err(Status::unimplemented("the relay passes single documents"))
    }
}
