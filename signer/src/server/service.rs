//! `SealService`: each call to the pipeline, and its outcome to the wire.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{self as wire, seal_service_server::SealService};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Live, Peer,
    again::{Earlier, Looked, earlier, expected, keep, splice},
    contained::contained,
    directory, info,
    large::LargeCall,
    leaving::Answers,
    messages::{Asked, read, read_digest, result, split},
    opening::Deadline,
    oversize::Oversized,
    status::{item_status, status},
    stream::{Stream, Waits},
};
use crate::{
    admission::{Admitted, Caller, Errand},
    config::Call,
    idempotency::Fingerprint,
    pipeline::{self, Pipeline, Sealed, SignedDigest},
    refusal::Refusal,
    trace::{Method, Origin},
};

/// The sealing service.
#[derive(Debug)]
pub(super) struct Sealing {
    pipeline: Arc<Pipeline>,
    live: Arc<Live>,
    message_limit: u64,
}

impl Sealing {
    pub(super) fn new(pipeline: Arc<Pipeline>, live: Arc<Live>, message_limit: u64) -> Self {
        Self {
            pipeline,
            live,
            message_limit,
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
            message_limit: self.message_limit,
            oversized: request.extensions().get::<Oversized>().cloned().unwrap_or_default(),
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

    async fn sign_digest(
        &self,
        request: Request<wire::SignDigestRequest>,
    ) -> Result<Response<wire::SignDigestResponse>, Status> {
        let caller = self.caller(&request)?;
        let deadline = deadline(&request);
        let origin = self.pipeline.recorder.origin(Method::SignDigest, request.metadata());
        let outcome = sign_digest(&self.pipeline, &caller, &origin, request.into_inner(), deadline).await;
        outcome.map(Response::new).map_err(|refusal| status(&refusal))
    }

    async fn list_seals(
        &self,
        request: Request<wire::ListSealsRequest>,
    ) -> Result<Response<wire::ListSealsResponse>, Status> {
        let caller = self.caller(&request)?;
        let page = directory::list(&self.pipeline, &caller, &request.into_inner());
        page.map(Response::new).map_err(|refusal| status(&refusal))
    }

    async fn get_seal(
        &self,
        request: Request<wire::GetSealRequest>,
    ) -> Result<Response<wire::GetSealResponse>, Status> {
        let caller = self.caller(&request)?;
        let seal = directory::get(&self.pipeline, &caller, request.into_inner());
        seal.map(Response::new).map_err(|refusal| status(&refusal))
    }

    async fn get_server_info(
        &self,
        request: Request<wire::GetServerInfoRequest>,
    ) -> Result<Response<wire::GetServerInfoResponse>, Status> {
        let caller = self.caller(&request)?;
        let ends = peer(&request).and_then(|peer| peer.ends());
        let settings = self.live.settings();
        Ok(Response::new(info::to(&settings.info, &caller, ends)))
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
        // Whoever may not is told so before anything else.
        let asked = caller.may(Call::Seal).and_then(|()| read(request, deadline));
        let asked = asked.inspect_err(|refusal| pipeline.metrics.refused(refusal, None))?;
        let Asked { request, key } = asked;
        let Some(key) = key else {
            // On the heap: it is ten kilobytes, and whoever awaits, spawns or keeps it would copy them each time.
            return Box::pin(pipeline.seal(caller, request, None)).await.map(answered);
        };
        let expect = request.expect;
        let earlier = Box::pin(seal_again(pipeline, caller, &key, &request)).await;
        match earlier.inspect_err(|refusal| pipeline.metrics.refused(refusal, expect))? {
            Earlier::Answer(response, visit) => {
                pipeline.metrics.answered_again();
                Ok(Answered {
                    response,
                    admitted: Some(visit.without_a_turn()),
                })
            }
            Earlier::None(claim, visit) => {
                let sealed = Box::pin(pipeline.seal(caller, request, Some(visit))).await?;
                let (mut response, document, admitted) = split(sealed);
                keep(claim, &mut response).await;
                Ok(Answered {
                    response: with(response, document),
                    admitted: Some(admitted),
                })
            }
        }
    })
    .await
}

fn answered(sealed: Sealed) -> Answered {
    let (response, document, admitted) = split(sealed);
    Answered {
        response: with(response, document),
        admitted: Some(admitted),
    }
}

/// The answer with the document, where that was asked for.
fn with(mut response: wire::SealResponse, document: Option<Bytes>) -> wire::SealResponse {
    if let Some(document) = document {
        response.answer = Some(wire::seal_response::Answer::SealedDocument(document));
    }
    response
}

/// What was answered to a request's key, whole where that is asked for.
async fn seal_again(
    pipeline: &Pipeline,
    caller: &Caller,
    key: &str,
    request: &pipeline::Request,
) -> Result<Earlier<wire::SealResponse>, Refusal> {
    let looked = Looked {
        caller,
        call: Call::Seal,
        taxpayer: &request.taxpayer,
        key,
        errand: Errand {
            priority: request.priority,
            bytes: request.document.len(),
            deadline: request.deadline,
        },
    };
    let earlier = earlier::<wire::SealResponse>(pipeline, looked, fingerprint(pipeline, request)).await?;
    let Earlier::Answer(response, visit) = earlier else {
        return Ok(earlier);
    };
    expected(response.result.as_ref().ok_or(Refusal::Internal)?, request.expect)?;
    let document = if request.whole {
        Some(splice(pipeline, request.document.clone(), &response).await?)
    } else {
        None
    };
    Ok(Earlier::Answer(with(response, document), visit))
}

/// Of what decides about the seal; how urgent it is, and what of it is wanted back, does not. That of a large document is work for the
/// digest threads.
async fn fingerprint(pipeline: &Pipeline, request: &pipeline::Request) -> Result<Fingerprint, Refusal> {
    let (taxpayer, document, certificate) = (request.taxpayer.clone(), request.document.clone(), request.certificate);
    let work = move || {
        let certificate = certificate.as_ref().map_or(&[][..], |id| id);
        Fingerprint::of(&[b"document", taxpayer.as_bytes(), &document, certificate])
    };
    let outcome = pipeline.compute.run(request.document.len(), work).await;
    outcome.map_err(|_| Refusal::Internal)
}

async fn sign_digest(
    pipeline: &Pipeline,
    caller: &Caller,
    origin: &Origin,
    request: wire::SignDigestRequest,
    deadline: Option<Instant>,
) -> Result<wire::SignDigestResponse, Refusal> {
    let journey = pipeline.recorder.begin(origin);
    contained(journey, async {
        let asked = caller.may(Call::Digest).and_then(|()| read_digest(request, deadline));
        let asked = asked.inspect_err(|refusal| pipeline.metrics.refused(refusal, None))?;
        let Asked { request, key } = asked;
        let Some(key) = key else {
            return pipeline.sign_digest(caller, request, None).await.map(signed);
        };
        let looked = Looked {
            caller,
            call: Call::Digest,
            taxpayer: &request.taxpayer,
            key: &key,
            errand: Errand {
                priority: request.priority,
                bytes: request.digest.len(),
                deadline: request.deadline,
            },
        };
        let parts = [
            b"digest",
            request.taxpayer.as_bytes(),
            &request.digest,
            &request.certificate,
        ];
        let fingerprint = std::future::ready(Ok(Fingerprint::of(&parts)));
        let earlier = earlier(pipeline, looked, fingerprint).await;
        match earlier.inspect_err(|refusal| pipeline.metrics.refused(refusal, request.document_type))? {
            Earlier::Answer(response, _) => {
                pipeline.metrics.answered_again();
                Ok(response)
            }
            Earlier::None(claim, visit) => {
                let mut response = pipeline.sign_digest(caller, request, Some(visit)).await.map(signed)?;
                keep(claim, &mut response).await;
                Ok(response)
            }
        }
    })
    .await
}

fn signed(signed: SignedDigest) -> wire::SignDigestResponse {
    wire::SignDigestResponse {
        result: Some(result(&signed.value, String::new(), &[], signed.receipt)),
    }
}
