//! `SealService`: each call to the pipeline, and its outcome to the wire.

use std::{sync::Arc, time::Instant};

use muhurdar_proto::seal::v1::{self as wire, seal_service_server::SealService};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Live, Peer,
    contained::contained,
    large::LargeCall,
    leaving::Answers,
    messages::{deadline, read, read_digest, read_document_type, seal_info, split, wire_receipt},
    oversize,
    status::{item_status, status},
};
use crate::{
    admission::{Admitted, Caller, Departure, Held},
    config::Call,
    idempotency::{Claim, Fingerprint, Found, Key},
    pipeline::{Pipeline, SignedDigest},
    refusal::Refusal,
    trace::{Method, Origin},
};

/// The most seals on one page of `ListSeals`, and the default.
const MAX_PAGE: usize = 1000;

/// The sealing service.
#[derive(Debug)]
pub(super) struct Sealing {
    pipeline: Arc<Pipeline>,
    live: Arc<Live>,
    document_limit: u64,
}

impl Sealing {
    pub(super) fn new(pipeline: Arc<Pipeline>, live: Arc<Live>, document_limit: u64) -> Self {
        Self {
            pipeline,
            live,
            document_limit,
        }
    }

    #[allow(clippy::result_large_err, reason = "Status is what a gRPC handler answers")]
    fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Caller>, Status> {
        let peer = peer(request);
        self.live.caller(peer.as_deref()).map_err(|refusal| status(&refusal))
    }
}

fn peer<T>(request: &Request<T>) -> Option<Arc<Peer>> {
    request.extensions().get::<Arc<Peer>>().cloned()
}

#[tonic::async_trait]
impl SealService for Sealing {
    async fn seal(&self, request: Request<wire::SealRequest>) -> Result<Response<wire::SealResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(request.metadata());
        let origin = self.pipeline.recorder.origin(Method::Seal, request.metadata());
        let outcome = seal(&self.pipeline, &caller, &origin, request.into_inner(), deadline).await;
        outcome
            .map(|answered| Response::new(answered.response))
            .map_err(|refusal| status(&refusal))
    }

    type SealStreamStream = Answers<Result<wire::SealStreamResponse, Status>, Option<Waits>>;

    async fn seal_stream(
        &self,
        request: Request<Streaming<wire::SealStreamRequest>>,
    ) -> Result<Response<Self::SealStreamStream>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::Seal).map_err(|refusal| status(&refusal))?;
        let deadline = deadline(request.metadata());
        let in_flight = self.live.settings().stream_in_flight;
        let (answers, out) = mpsc::channel(in_flight);
        let stream = Stream {
            origin: Arc::new(self.pipeline.recorder.origin(Method::SealStream, request.metadata())),
            pipeline: Arc::clone(&self.pipeline),
            live: Arc::clone(&self.live),
            peer: peer(&request),
            deadline,
            departure: self.pipeline.gate.unread().of(&caller),
            answers,
            document_limit: self.document_limit,
        };
        tokio::spawn(stream.run(request.into_inner(), in_flight));
        Ok(Response::new(Answers(out)))
    }

    async fn seal_batch(
        &self,
        request: Request<wire::SealBatchRequest>,
    ) -> Result<Response<wire::SealBatchResponse>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::Seal).map_err(|refusal| status(&refusal))?;
        let deadline = deadline(request.metadata());
        let origin = Arc::new(self.pipeline.recorder.origin(Method::SealBatch, request.metadata()));
        let items = request.into_inner().items;
        let most = self.live.settings().batch_items;
        if items.len() > most {
            let problem = format!("has {} items; at most {most} are taken", items.len());
            return Err(status(&Refusal::Request {
                field: "items",
                problem,
            }));
        }
        let work = items.into_iter().map(|item| {
            let (pipeline, caller, origin) = (Arc::clone(&self.pipeline), Arc::clone(&caller), Arc::clone(&origin));
            tokio::spawn(async move { seal(&pipeline, &caller, &origin, item, deadline).await })
        });
        let work: Vec<_> = work.collect();
        let mut results = Vec::with_capacity(work.len());
        for item in work {
            let outcome = match item.await.unwrap_or(Err(Refusal::Internal)) {
                Ok(answered) => wire::seal_batch_result::Outcome::Response(answered.response),
                Err(refusal) => wire::seal_batch_result::Outcome::Error(item_status(&refusal)),
            };
            results.push(wire::SealBatchResult { outcome: Some(outcome) });
        }
        Ok(Response::new(wire::SealBatchResponse { results }))
    }

    type SealLargeStream = ReceiverStream<Result<wire::SealLargeResponse, Status>>;

    async fn seal_large(
        &self,
        request: Request<Streaming<wire::SealLargeRequest>>,
    ) -> Result<Response<Self::SealLargeStream>, Status> {
        let caller = self.caller(&request)?;
        caller.may(Call::Seal).map_err(|refusal| status(&refusal))?;
        let (deadline, peer) = (deadline(request.metadata()), peer(&request));
        let (answers, out) = mpsc::channel(2);
        let call = LargeCall {
            origin: self.pipeline.recorder.origin(Method::SealLarge, request.metadata()),
            pipeline: Arc::clone(&self.pipeline),
            live: Arc::clone(&self.live),
            peer,
            caller,
            deadline,
            answers,
        };
        tokio::spawn(call.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(out)))
    }

    async fn seal_digest(
        &self,
        request: Request<wire::SealDigestRequest>,
    ) -> Result<Response<wire::SealDigestResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(request.metadata());
        let origin = self.pipeline.recorder.origin(Method::SealDigest, request.metadata());
        let outcome = seal_digest(&self.pipeline, &caller, &origin, request.into_inner(), deadline).await;
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
        let (seals, now) = (self.pipeline.seals.load(), jiff::Timestamp::now());
        let mut visible = seals
            .after(&request.page_token, now)
            .filter(|s| caller.may_use(&s.taxpayer))
            .peekable();
        let page: Vec<_> = visible.by_ref().take(size).map(|seal| seal_info(seal, now)).collect();
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
        // To one who may not use it, it does not matter whether there is one.
        if !caller.may_use(&taxpayer) {
            return Err(status(&Refusal::SealUnknown(taxpayer)));
        }
        let (seals, now) = (self.pipeline.seals.load(), jiff::Timestamp::now());
        let seal = seals.at(&taxpayer, now);
        let seal = seal.ok_or_else(|| status(&self.pipeline.no_seal(&taxpayer)))?;
        Ok(Response::new(wire::GetSealResponse {
            seal: Some(seal_info(seal, now)),
        }))
    }
}

/// One open `SealStream`.
struct Stream {
    origin: Arc<Origin>,
    pipeline: Arc<Pipeline>,
    live: Arc<Live>,
    peer: Option<Arc<Peer>>,
    deadline: Option<Instant>,
    departure: Departure,
    answers: mpsc::Sender<(Result<wire::SealStreamResponse, Status>, Option<Waits>)>,
    document_limit: u64,
}

/// What an answer holds until the transport takes it.
#[derive(Debug)]
pub(super) struct Waits {
    _place: OwnedSemaphorePermit,
    _bytes: Held,
}

impl Stream {
    /// Reads until the caller is done or the service drains; every item that was read is answered.
    async fn run(self, mut items: Streaming<wire::SealStreamRequest>, in_flight: usize) {
        let places = Arc::new(Semaphore::new(in_flight));
        let ended = loop {
            // A place first, and room: a stream whose answers are not read is not read either.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break None;
            };
            let item = tokio::select! {
                biased;
                () = self.pipeline.gate.closing() => break Some(status(&Refusal::Draining)),
                () = self.answers.closed() => break None,
                item = self.next(&mut items) => item,
            };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => break None,
                Err(broken) => break Some(oversize::translate(broken, self.document_limit)),
            };
            // A stream may outlive what its caller was allowed when it began.
            let caller = self.live.caller(self.peer.as_deref());
            let (pipeline, origin) = (Arc::clone(&self.pipeline), Arc::clone(&self.origin));
            let (deadline, departure, answers) = (self.deadline, self.departure.clone(), self.answers.clone());
            tokio::spawn(async move {
                let answer = tokio::select! {
                    biased;
                    answer = answer(&pipeline, caller, &origin, item, deadline) => Some(answer),
                    // Nobody reads the answers any more: what waits leaves its turn to others.
                    () = answers.closed() => None,
                };
                if let Some((answer, admitted)) = answer {
                    let waits = Waits {
                        _place: place,
                        _bytes: departure.hold(answer.encoded_len()),
                    };
                    drop(answers.send((Ok(answer), Some(waits))).await);
                    drop(admitted);
                }
            });
        };
        let places_of_all = u32::try_from(in_flight).unwrap_or(u32::MAX);
        drop(places.acquire_many(places_of_all).await);
        if let Some(status) = ended {
            drop(self.answers.send((Err(status), None)).await);
        }
    }

    /// The next item, once there is room for its answer.
    async fn next(
        &self,
        items: &mut Streaming<wire::SealStreamRequest>,
    ) -> Result<Option<wire::SealStreamRequest>, Status> {
        self.pipeline.gate.unread().room(&self.departure).await;
        items.message().await
    }
}

/// The answer to one item of a stream, with the item's share of the limits.
async fn answer(
    pipeline: &Pipeline,
    caller: Result<Arc<Caller>, Refusal>,
    origin: &Origin,
    item: wire::SealStreamRequest,
    deadline: Option<Instant>,
) -> (wire::SealStreamResponse, Option<Admitted>) {
    let outcome = match (caller, item.request) {
        (Ok(caller), Some(request)) => seal(pipeline, &caller, origin, request, deadline).await,
        (Err(refusal), _) => Err(refusal),
        (Ok(_), None) => Err(Refusal::Request {
            field: "request",
            problem: "is missing".to_owned(),
        }),
    };
    let (outcome, admitted) = match outcome {
        Ok(answered) => (
            wire::seal_stream_response::Outcome::Response(answered.response),
            answered.admitted,
        ),
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

/// An answer, and the share of the limits that it holds until it is handed to the wire; one that was given before holds none.
struct Answered {
    response: wire::SealResponse,
    admitted: Option<Admitted>,
}

/// Seals one request, or finds what was answered to it before. A panic in it is its own and nobody else's.
async fn seal(
    pipeline: &Pipeline,
    caller: &Caller,
    origin: &Origin,
    request: wire::SealRequest,
    deadline: Option<Instant>,
) -> Result<Answered, Refusal> {
    let journey = pipeline.recorder.begin(origin);
    contained(journey, async {
        if request.idempotency_key.is_empty() {
            return seal_anew(pipeline, caller, request, deadline).await;
        }
        let expected = read_document_type(request.document_type).ok().flatten();
        let earlier = earlier(pipeline, caller, &request, deadline).await;
        match earlier.inspect_err(|refusal| pipeline.metrics.refused(refusal, expected))? {
            Earlier::Answer(response) => {
                pipeline.metrics.answered_again();
                Ok(Answered {
                    response: *response,
                    admitted: None,
                })
            }
            Earlier::None(claim) => {
                let answered = seal_anew(pipeline, caller, request, deadline).await?;
                claim.keep(answered.response.encode_to_vec().into()).await;
                Ok(answered)
            }
        }
    })
    .await
}

/// What was answered to a key before.
enum Earlier {
    Answer(Box<wire::SealResponse>),
    None(Claim),
}

/// Looks for the answer to a request's key. Who may not have the document sealed any more is not given the seal of earlier
/// days either.
async fn earlier(
    pipeline: &Pipeline,
    caller: &Caller,
    request: &wire::SealRequest,
    deadline: Option<Instant>,
) -> Result<Earlier, Refusal> {
    pipeline.permits(caller, Call::Seal, &request.taxpayer)?;
    let key = Key::new(&caller.name, &request.idempotency_key)?;
    // While it waits for another with its key, it holds a document like any other.
    let place = pipeline.gate.admit(request.document.len(), deadline)?;
    let found = pipeline.answers.find(key, fingerprint(request), place.deadline);
    let answer = match found.await? {
        Found::Answer(answer) => answer,
        Found::Claim(claim) => return Ok(Earlier::None(claim)),
    };
    let response = wire::SealResponse::decode(answer).map_err(|_| Refusal::Internal)?;
    let sealed = response.receipt.as_ref().map_or(0, |receipt| receipt.document_type);
    caller.may_have_sealed(read_document_type(sealed)?.ok_or(Refusal::Internal)?)?;
    Ok(Earlier::Answer(Box::new(response)))
}

async fn seal_anew(
    pipeline: &Pipeline,
    caller: &Caller,
    request: wire::SealRequest,
    deadline: Option<Instant>,
) -> Result<Answered, Refusal> {
    // On the heap: it is ten kilobytes, and whoever awaits, spawns or keeps it would copy them each time.
    let sealed = Box::pin(pipeline.seal(caller, read(request, deadline)?)).await?;
    let (response, admitted) = split(sealed);
    Ok(Answered {
        response,
        admitted: Some(admitted),
    })
}

/// Of what decides about the answer; how urgent it is does not.
fn fingerprint(request: &wire::SealRequest) -> Fingerprint {
    Fingerprint::of(&[
        request.taxpayer.as_bytes(),
        &request.document,
        &request.document_type.to_be_bytes(),
        &request.answer.to_be_bytes(),
    ])
}

async fn seal_digest(
    pipeline: &Pipeline,
    caller: &Caller,
    origin: &Origin,
    request: wire::SealDigestRequest,
    deadline: Option<Instant>,
) -> Result<SignedDigest, Refusal> {
    let journey = pipeline.recorder.begin(origin);
    contained(journey, async {
        let request = read_digest(request, deadline)?;
        pipeline.seal_digest(caller, request).await
    })
    .await
}
