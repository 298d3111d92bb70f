//! `SealService`: each call to the pipeline, and its outcome to the wire.

use std::{sync::Arc, time::Instant};

use muhurdar_proto::seal::v1::{self as wire, seal_service_server::SealService};
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Live, Peer,
    contained::contained,
    large::LargeCall,
    leaving::Answers,
    messages::{read, read_digest, read_document_type, read_priority, seal_info, split, wire_receipt},
    opening::Deadline,
    status::{item_status, status},
    stream::{Stream, Waits},
};
use crate::{
    admission::{Admitted, Caller, Errand, Visit},
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

fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().and_then(|deadline| deadline.0)
}

#[tonic::async_trait]
impl SealService for Sealing {
    async fn seal(&self, request: Request<wire::SealRequest>) -> Result<Response<wire::SealResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(&request);
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
        let deadline = deadline(&request);
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
        let deadline = deadline(&request);
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
        // A small message may ask for much work and many answers.
        let share = self.pipeline.gate.arrivals().batch(&caller, items.len());
        let _share = share.map_err(|refusal| {
            self.pipeline.metrics.refused(&refusal, None);
            status(&refusal)
        })?;
        let mut results = vec![wire::SealBatchResult::default(); items.len()];
        // With their caller they end, since they end with the set that they are in.
        let mut work = JoinSet::new();
        for (number, item) in items.into_iter().enumerate() {
            let (pipeline, caller, origin) = (Arc::clone(&self.pipeline), Arc::clone(&caller), Arc::clone(&origin));
            work.spawn(async move { (number, seal(&pipeline, &caller, &origin, item, deadline).await) });
        }
        // One that is sealed waits for the others: until all are handed to the wire, each has its share of the limits.
        let mut shares = Vec::with_capacity(results.len());
        while let Some(item) = work.join_next().await {
            // A panic in it was contained.
            let (number, outcome) = item.map_err(|_| status(&Refusal::Internal))?;
            results[number].outcome = Some(match outcome {
                Ok(answered) => {
                    shares.extend(answered.admitted);
                    wire::seal_batch_result::Outcome::Response(answered.response)
                }
                Err(refusal) => wire::seal_batch_result::Outcome::Error(item_status(&refusal)),
            });
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
        let (deadline, peer) = (deadline(&request), peer(&request));
        let (answers, out) = mpsc::channel(2);
        let call = LargeCall {
            origin: self.pipeline.recorder.origin(Method::SealLarge, request.metadata()),
            pipeline: Arc::clone(&self.pipeline),
            live: Arc::clone(&self.live),
            peer,
            caller,
            deadline,
            patience: self.live.settings().arrival_timeout,
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
        let deadline = deadline(&request);
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
        let now = jiff::Timestamp::now();
        let seal = self.pipeline.look_up(&caller, &request.into_inner().taxpayer, now);
        let seal = seal.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(wire::GetSealResponse {
            seal: Some(seal_info(&seal, now)),
        }))
    }
}

/// An answer, and the share of the limits that it holds until it is handed to the wire; one that was given before holds none.
pub(super) struct Answered {
    pub(super) response: wire::SealResponse,
    pub(super) admitted: Option<Admitted>,
}

/// Seals one request, or finds what was answered to it before. A panic in it is its own and nobody else's.
pub(super) async fn seal(
    pipeline: &Pipeline,
    caller: &Caller,
    origin: &Origin,
    request: wire::SealRequest,
    deadline: Option<Instant>,
) -> Result<Answered, Refusal> {
    let journey = pipeline.recorder.begin(origin);
    contained(journey, async {
        if request.idempotency_key.is_empty() {
            return seal_anew(pipeline, caller, request, deadline, None).await;
        }
        let expected = read_document_type(request.document_type).ok().flatten();
        let earlier = earlier(pipeline, caller, &request, deadline).await;
        match earlier.inspect_err(|refusal| pipeline.metrics.refused(refusal, expected))? {
            Earlier::Answer(response, visit) => {
                pipeline.metrics.answered_again();
                Ok(Answered {
                    response: *response,
                    admitted: Some(visit.without_a_turn()),
                })
            }
            Earlier::None(claim, visit) => {
                let answered = seal_anew(pipeline, caller, request, deadline, Some(visit)).await?;
                claim.keep(answered.response.encode_to_vec().into()).await;
                Ok(answered)
            }
        }
    })
    .await
}

/// What was answered to a key before, and the share of the limits of who asks for it.
enum Earlier {
    Answer(Box<wire::SealResponse>, Visit),
    None(Claim, Visit),
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
    // Whether it waits for another with its key, or is answered at once, it asks for a document like any other: its own share
    // first.
    let errand = Errand {
        priority: read_priority(request.priority)?,
        bytes: request.document.len(),
        deadline,
    };
    let visit = pipeline.door.enter(caller, errand)?;
    let fingerprint = fingerprint(pipeline, request).await?;
    let found = pipeline.answers.find(key, fingerprint, visit.deadline());
    let answer = match found.await? {
        Found::Answer(answer) => answer,
        Found::Claim(claim) => return Ok(Earlier::None(claim, visit)),
    };
    let response = wire::SealResponse::decode(answer).map_err(|_| Refusal::Internal)?;
    let sealed = response.receipt.as_ref().map_or(0, |receipt| receipt.document_type);
    caller.may_have_sealed(read_document_type(sealed)?.ok_or(Refusal::Internal)?)?;
    Ok(Earlier::Answer(Box::new(response), visit))
}

async fn seal_anew(
    pipeline: &Pipeline,
    caller: &Caller,
    request: wire::SealRequest,
    deadline: Option<Instant>,
    visit: Option<Visit>,
) -> Result<Answered, Refusal> {
    // On the heap: it is ten kilobytes, and whoever awaits, spawns or keeps it would copy them each time.
    let sealed = Box::pin(pipeline.seal(caller, read(request, deadline)?, visit)).await?;
    let (response, admitted) = split(sealed);
    Ok(Answered {
        response,
        admitted: Some(admitted),
    })
}

/// Of what decides about the answer; how urgent it is does not. That of a large document is work for the digest threads.
async fn fingerprint(pipeline: &Pipeline, request: &wire::SealRequest) -> Result<Fingerprint, Refusal> {
    let (taxpayer, document) = (request.taxpayer.clone(), request.document.clone());
    let (document_type, answer) = (request.document_type.to_be_bytes(), request.answer.to_be_bytes());
    let work = move || Fingerprint::of(&[taxpayer.as_bytes(), &document, &document_type, &answer]);
    let outcome = pipeline.compute.run(request.document.len(), work).await;
    outcome.map_err(|_| Refusal::Internal)
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
