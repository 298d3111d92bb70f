//! `SealService`: messages to requests, outcomes to messages.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use muhurdar_proto::seal::v1::{self as wire, seal_service_server::SealService};
use muhurdar_xades::{DocumentType, KeyType};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    Peer, oversize,
    status::{item_status, status},
};
use crate::{
    admission::{Access, Caller},
    config::{Call, Limits},
    pipeline::{self, DigestRequest, Pipeline, Sealed, SignedDigest},
    refusal::Refusal,
    seals::Seal,
};

/// The most seals on one page of `ListSeals`, and the default.
const MAX_PAGE: usize = 1000;

/// The sealing service.
#[derive(Debug)]
pub(super) struct Sealing {
    pipeline: Arc<Pipeline>,
    access: Arc<Access>,
    batch_items: usize,
    stream_in_flight: usize,
    document_limit: u64,
}

impl Sealing {
    pub(super) fn new(pipeline: Arc<Pipeline>, access: Arc<Access>, limits: &Limits) -> Self {
        Self {
            pipeline,
            access,
            batch_items: limits.batch_items,
            stream_in_flight: limits.stream_in_flight,
            document_limit: limits.document.as_u64(),
        }
    }

    #[allow(clippy::result_large_err, reason = "Status is what a gRPC handler answers")]
    fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Caller>, Status> {
        let peer = request.extensions().get::<Arc<Peer>>();
        let names = peer.and_then(|p| p.names.as_deref());
        self.access.caller(names).map_err(|refusal| status(&refusal))
    }
}

#[tonic::async_trait]
impl SealService for Sealing {
    async fn seal(&self, request: Request<wire::SealRequest>) -> Result<Response<wire::SealResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(request.metadata());
        let outcome = seal(&self.pipeline, &caller, request.into_inner(), deadline).await;
        outcome
            .map(|sealed| Response::new(response(sealed)))
            .map_err(|refusal| status(&refusal))
    }

    type SealStreamStream = ReceiverStream<Result<wire::SealStreamResponse, Status>>;

    async fn seal_stream(
        &self,
        request: Request<Streaming<wire::SealStreamRequest>>,
    ) -> Result<Response<Self::SealStreamStream>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::Seal).map_err(|refusal| status(&refusal))?;
        let deadline = deadline(request.metadata());
        let (answers, out) = mpsc::channel(self.stream_in_flight);
        let stream = Stream {
            pipeline: Arc::clone(&self.pipeline),
            caller,
            deadline,
            answers,
            document_limit: self.document_limit,
        };
        tokio::spawn(stream.run(request.into_inner(), self.stream_in_flight));
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn seal_batch(
        &self,
        request: Request<wire::SealBatchRequest>,
    ) -> Result<Response<wire::SealBatchResponse>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::Seal).map_err(|refusal| status(&refusal))?;
        let deadline = deadline(request.metadata());
        let items = request.into_inner().items;
        if items.len() > self.batch_items {
            let problem = format!("has {} items; at most {} are taken", items.len(), self.batch_items);
            return Err(status(&Refusal::Request {
                field: "items",
                problem,
            }));
        }
        let work = items.into_iter().map(|item| {
            let (pipeline, caller) = (Arc::clone(&self.pipeline), Arc::clone(&caller));
            tokio::spawn(async move { seal(&pipeline, &caller, item, deadline).await })
        });
        let work: Vec<_> = work.collect();
        let mut results = Vec::with_capacity(work.len());
        for item in work {
            let outcome = match item.await.unwrap_or(Err(Refusal::Internal)) {
                Ok(sealed) => wire::seal_batch_result::Outcome::Response(response(sealed)),
                Err(refusal) => wire::seal_batch_result::Outcome::Error(item_status(&refusal)),
            };
            results.push(wire::SealBatchResult { outcome: Some(outcome) });
        }
        Ok(Response::new(wire::SealBatchResponse { results }))
    }

    async fn seal_digest(
        &self,
        request: Request<wire::SealDigestRequest>,
    ) -> Result<Response<wire::SealDigestResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(request.metadata());
        let outcome = seal_digest(&self.pipeline, &caller, request.into_inner(), deadline).await;
        let signed = outcome.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(wire::SealDigestResponse {
            signature_value: signed.value.into(),
            certificate_serial_number: signed.receipt.used.certificate.serial_decimal().to_owned(),
            receipt: Some(wire_receipt(signed.receipt)),
        }))
    }

    async fn list_seals(
        &self,
        request: Request<wire::ListSealsRequest>,
    ) -> Result<Response<wire::ListSealsResponse>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::List).map_err(|refusal| status(&refusal))?;
        let request = request.into_inner();
        let size = match request.page_size as usize {
            0 => MAX_PAGE,
            n => n.min(MAX_PAGE),
        };
        let seals = self.pipeline.seals.load();
        let mut visible = seals
            .after(&request.page_token)
            .filter(|s| caller.may_use(&s.taxpayer))
            .peekable();
        let page: Vec<_> = visible.by_ref().take(size).map(|seal| seal_info(seal)).collect();
        let more = visible.peek().is_some();
        let next_page_token = page
            .last()
            .filter(|_| more)
            .map(|s| s.taxpayer.clone())
            .unwrap_or_default();
        Ok(Response::new(wire::ListSealsResponse {
            seals: page,
            next_page_token,
        }))
    }

    async fn get_seal(
        &self,
        request: Request<wire::GetSealRequest>,
    ) -> Result<Response<wire::GetSealResponse>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::List).map_err(|refusal| status(&refusal))?;
        let taxpayer = request.into_inner().taxpayer;
        let seals = self.pipeline.seals.load();
        let seal = seals.get(&taxpayer).filter(|s| caller.may_use(&s.taxpayer));
        let seal = seal.ok_or_else(|| status(&Refusal::SealUnknown(taxpayer)))?;
        Ok(Response::new(wire::GetSealResponse {
            seal: Some(seal_info(seal)),
        }))
    }
}

/// One open `SealStream`.
struct Stream {
    pipeline: Arc<Pipeline>,
    caller: Arc<Caller>,
    deadline: Option<Instant>,
    answers: mpsc::Sender<Result<wire::SealStreamResponse, Status>>,
    document_limit: u64,
}

impl Stream {
    /// Reads until the caller is done or the service drains; every item that was read is answered.
    async fn run(self, mut items: Streaming<wire::SealStreamRequest>, in_flight: usize) {
        let places = Arc::new(Semaphore::new(in_flight));
        let ended = loop {
            // A place first: a stream whose answers are not read is not read either.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break None;
            };
            let item = tokio::select! {
                biased;
                () = self.pipeline.gate.closing() => break Some(status(&Refusal::Draining)),
                () = self.answers.closed() => break None,
                item = items.message() => item,
            };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => break None,
                Err(broken) => break Some(oversize::translate(broken, self.document_limit)),
            };
            let (pipeline, caller) = (Arc::clone(&self.pipeline), Arc::clone(&self.caller));
            let (deadline, answers) = (self.deadline, self.answers.clone());
            tokio::spawn(async move {
                let (answer, admitted) = answer(&pipeline, &caller, item, deadline).await;
                drop(answers.send(Ok(answer)).await);
                drop((admitted, place));
            });
        };
        let places_of_all = u32::try_from(in_flight).unwrap_or(u32::MAX);
        drop(places.acquire_many(places_of_all).await);
        if let Some(status) = ended {
            drop(self.answers.send(Err(status)).await);
        }
    }
}

/// The answer to one item of a stream, with the item's share of the limits.
async fn answer(
    pipeline: &Pipeline,
    caller: &Caller,
    item: wire::SealStreamRequest,
    deadline: Option<Instant>,
) -> (wire::SealStreamResponse, Option<crate::admission::Admitted>) {
    let outcome = match item.request {
        Some(request) => seal(pipeline, caller, request, deadline).await,
        None => Err(Refusal::Request {
            field: "request",
            problem: "is missing".to_owned(),
        }),
    };
    let (outcome, admitted) = match outcome {
        Ok(sealed) => {
            let (response, admitted) = split(sealed);
            (wire::seal_stream_response::Outcome::Response(response), Some(admitted))
        }
        Err(refusal) => (wire::seal_stream_response::Outcome::Error(item_status(&refusal)), None),
    };
    (
        wire::SealStreamResponse {
            id: item.id,
            outcome: Some(outcome),
        },
        admitted,
    )
}

/// Seals one request. A panic in it is its own and nobody else's.
async fn seal(
    pipeline: &Pipeline,
    caller: &Caller,
    request: wire::SealRequest,
    deadline: Option<Instant>,
) -> Result<Sealed, Refusal> {
    contained(async {
        let request = read(request, deadline)?;
        pipeline.seal(caller, request).await
    })
    .await
}

async fn seal_digest(
    pipeline: &Pipeline,
    caller: &Caller,
    request: wire::SealDigestRequest,
    deadline: Option<Instant>,
) -> Result<SignedDigest, Refusal> {
    contained(async {
        let document_type = read_document_type(request.document_type)?;
        let request = DigestRequest {
            taxpayer: request.taxpayer,
            digest: request.digest.to_vec(),
            document_type,
            document_id: Some(request.document_id).filter(|id| !id.is_empty()),
            deadline,
        };
        pipeline.seal_digest(caller, request).await
    })
    .await
}

async fn contained<T>(work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request panicked; it was answered INTERNAL");
        Err(Refusal::Internal)
    })
}

fn unknown_value(field: &'static str) -> Refusal {
    Refusal::Request {
        field,
        problem: "is a value that this version does not know".to_owned(),
    }
}

fn read_document_type(asked: i32) -> Result<Option<DocumentType>, Refusal> {
    wire::DocumentType::try_from(asked)
        .map(document_type)
        .map_err(|_| unknown_value("document_type"))
}

fn read(request: wire::SealRequest, deadline: Option<Instant>) -> Result<pipeline::Request, Refusal> {
    let expect = read_document_type(request.document_type)?;
    let answer = wire::Answer::try_from(request.answer).map_err(|_| unknown_value("answer"))?;
    wire::Priority::try_from(request.priority).map_err(|_| unknown_value("priority"))?;
    Ok(pipeline::Request {
        taxpayer: request.taxpayer,
        document: request.document,
        expect,
        whole: answer != wire::Answer::SignatureOnly,
        deadline,
    })
}

fn response(sealed: Sealed) -> wire::SealResponse {
    split(sealed).0
}

fn split(sealed: Sealed) -> (wire::SealResponse, crate::admission::Admitted) {
    let Sealed {
        document,
        seal,
        signing_time,
        sha256,
        receipt,
        admitted,
    } = sealed;
    let result = match document {
        Some(document) => wire::seal_response::Result::SealedDocument(document.into()),
        None => wire::seal_response::Result::Seal(wire::DetachedSeal {
            offset: seal.range().start as u64,
            length: seal.range().len() as u64,
            replacement: Bytes::copy_from_slice(seal.replacement()),
        }),
    };
    let response = wire::SealResponse {
        result: Some(result),
        signature_value: Bytes::copy_from_slice(seal.signature_value()),
        signing_time,
        sealed_document_sha256: Bytes::copy_from_slice(&sha256),
        certificate_serial_number: receipt.used.certificate.serial_decimal().to_owned(),
        receipt: Some(wire_receipt(receipt)),
    };
    (response, admitted)
}

fn wire_receipt(receipt: pipeline::Receipt) -> wire::Receipt {
    wire::Receipt {
        id: receipt.id.to_string(),
        taxpayer: receipt.used.taxpayer.to_string(),
        client: receipt.client.to_string(),
        document_type: receipt.document_type.map_or(0, |t| wire_document_type(t).into()),
        document_id: receipt.document_id.unwrap_or_default(),
        certificate_sha256: Bytes::copy_from_slice(&receipt.used.certificate.sha256()),
        signature_algorithm: receipt.algorithm.to_owned(),
        token: receipt.token.to_string(),
        sealed_at: Some(receipt.sealed_at.into()),
    }
}

fn seal_info(seal: &Seal) -> wire::SealInfo {
    let certificate = &seal.certificate;
    let unusable = seal
        .usable(jiff::Timestamp::now())
        .err()
        .map(|refusal| refusal.to_string());
    let timestamp = |at: jiff::Timestamp| Some(std::time::SystemTime::from(at).into());
    wire::SealInfo {
        taxpayer: seal.taxpayer.to_string(),
        title: certificate.title().to_owned(),
        key_type: key_type(certificate.key_type()).into(),
        certificate: Bytes::copy_from_slice(certificate.der()),
        certificate_serial_number: certificate.serial_decimal().to_owned(),
        not_before: timestamp(certificate.not_before()),
        not_after: timestamp(certificate.not_after()),
        usable: unusable.is_none(),
        unusable: unusable.unwrap_or_default(),
    }
}

fn key_type(key: KeyType) -> wire::KeyType {
    match key {
        KeyType::Rsa2048 => wire::KeyType::Rsa2048,
        KeyType::Rsa3072 => wire::KeyType::Rsa3072,
        KeyType::Rsa4096 => wire::KeyType::Rsa4096,
        KeyType::EcP256 => wire::KeyType::EcP256,
        KeyType::EcP384 => wire::KeyType::EcP384,
        KeyType::EcP521 => wire::KeyType::EcP521,
        _ => wire::KeyType::Unspecified,
    }
}

const DOCUMENT_TYPES: [(wire::DocumentType, DocumentType); 9] = [
    (wire::DocumentType::Invoice, DocumentType::Invoice),
    (wire::DocumentType::CreditNote, DocumentType::CreditNote),
    (wire::DocumentType::DespatchAdvice, DocumentType::DespatchAdvice),
    (wire::DocumentType::ReceiptAdvice, DocumentType::ReceiptAdvice),
    (
        wire::DocumentType::ApplicationResponse,
        DocumentType::ApplicationResponse,
    ),
    (wire::DocumentType::EarsivReport, DocumentType::EArsivReport),
    (wire::DocumentType::EdefterLedger, DocumentType::EDefterLedger),
    (wire::DocumentType::EdefterBerat, DocumentType::EDefterBerat),
    (wire::DocumentType::UserAccount, DocumentType::UserAccount),
];

fn document_type(asked: wire::DocumentType) -> Option<DocumentType> {
    DOCUMENT_TYPES.iter().find(|(w, _)| *w == asked).map(|(_, d)| *d)
}

fn wire_document_type(found: DocumentType) -> wire::DocumentType {
    DOCUMENT_TYPES
        .iter()
        .find(|(_, d)| *d == found)
        .map_or(wire::DocumentType::Unspecified, |(w, _)| *w)
}

/// The caller's deadline, from the `grpc-timeout` header (gRPC over HTTP/2, "Timeout").
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        deadline(&metadata).map(|d| d.saturating_duration_since(Instant::now()))
    }

    #[test]
    fn a_grpc_timeout_is_read_in_each_of_its_units() {
        let near = |text, expected: f64| {
            let seconds = timeout(text).unwrap().as_secs_f64();
            assert!((expected - 0.5..=expected).contains(&seconds), "{text}: {seconds}");
        };
        near("2H", 7200.0);
        near("3M", 180.0);
        near("4S", 4.0);
        near("5000m", 5.0);
        near("6000000u", 6.0);
        near("99999999n", 0.1);
    }

    #[test]
    fn a_malformed_grpc_timeout_is_none() {
        for text in ["", "S", "12", "-1S", "123456789S", "1x"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
