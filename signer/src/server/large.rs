//! `SealLarge`: chunks in, chunks out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};
use wire::{seal_large_request::Part as Ask, seal_large_response::Part, seal_response::Answer};

use super::{
    Live, Peer,
    again::{again, expected, keep},
    messages::{Asked, patch, read_large, result},
    opening::passed,
    status::status,
    wording,
};
use crate::{
    admission::Caller,
    idempotency::{Fingerprint, Found, Key},
    pipeline::{Incoming, Outgoing, Pipeline, Whole},
    refusal::Refusal,
    trace::{self, Origin},
};

/// One open `SealLarge`.
pub(super) struct LargeCall {
    pub(super) origin: Origin,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) live: Arc<Live>,
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) caller: Arc<Caller>,
    pub(super) deadline: Option<Instant>,
    /// How long its header may take to come.
    pub(super) patience: Duration,
    pub(super) answers: mpsc::Sender<Result<wire::SealLargeResponse, Status>>,
}

/// Why a call ends early.
enum Ended {
    Refused(Refusal),
    /// The transport says it better.
    Broken(Status),
    /// Nobody is there any more.
    Gone,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl LargeCall {
    /// Answers, or refuses. A caller who goes away ends it.
    pub(super) async fn run(self, requests: Streaming<wire::SealLargeRequest>) {
        let journey = self.pipeline.recorder.begin(&self.origin);
        journey.follow(self.run_to_its_end(requests)).await;
    }

    async fn run_to_its_end(&self, requests: Streaming<wire::SealLargeRequest>) {
        let answers = &self.answers;
        let ended = tokio::select! {
            biased;
            ended = self.answer(requests) => ended,
            () = answers.closed() => Err(Ended::Gone),
            () = passed(self.deadline) => Err(Refusal::Deadline("passed before the document was handed out").into()),
        };
        match &ended {
            Ok(()) => trace::ended("sealed"),
            Err(Ended::Refused(refusal)) => trace::ended(refusal.reason()),
            Err(Ended::Broken(_) | Ended::Gone) => {}
        }
        match ended {
            Ok(()) | Err(Ended::Gone) => {}
            Err(Ended::Refused(refusal)) => {
                self.pipeline.metrics.refused(&refusal, None);
                drop(answers.send(Err(status(&refusal))).await);
            }
            Err(Ended::Broken(broken)) => drop(answers.send(Err(broken)).await),
        }
    }

    async fn answer(&self, mut requests: Streaming<wire::SealLargeRequest>) -> Result<(), Ended> {
        let header = tokio::select! {
            biased;
            header = timeout(self.patience, next(&mut requests)) => header,
            () = self.pipeline.gate.closing() => return Err(Refusal::Draining.into()),
        };
        let header = header.map_err(|_| Refusal::Deadline("passed before the header came (limits.arrival_timeout)"))?;
        let Some(Ask::Header(header)) = header? else {
            return Err(malformed("header", "must come first").into());
        };
        let (Asked { request, key }, wanted_whole) = read_large(header, self.deadline)?;
        let (expect, taxpayer, certificate) = (request.expect, request.taxpayer.clone(), request.certificate);
        // What is none is told before the document comes.
        let key = key.map(|key| Key::new(&self.caller.name, &key)).transpose()?;
        let mut incoming = self.pipeline.begin_large(&self.caller, request).await?;
        tokio::select! {
            biased;
            // What is not whole when the service drains can be whole elsewhere.
            () = self.pipeline.gate.closing() => return Err(Refusal::Draining.into()),
            taken = take_all(&mut incoming, &mut requests) => taken?,
        }
        // It may have outlived what its caller was allowed when it began.
        let caller = self.live.caller(self.peer.as_deref())?;
        let whole = incoming.whole(&caller).await?;
        let (Some(key), Some(sha256)) = (key, whole.sha256()) else {
            let (response, document) = self.seal(&caller, whole).await?;
            return self.hand_out(response, document, wanted_whole).await;
        };
        let certificate = certificate.as_ref().map_or(&[][..], |id| id);
        let fingerprint = Fingerprint::of(&[b"large", taxpayer.as_bytes(), &sha256, certificate]);
        match self.pipeline.answers.find(key, fingerprint, whole.deadline()).await? {
            Found::Claim(claim) => {
                let (mut response, document) = self.seal(&caller, whole).await?;
                keep(claim, &mut response).await;
                self.hand_out(response, document, wanted_whole).await
            }
            Found::Answer(answer, until) => {
                let response: wire::SealResponse = again(&caller, answer, until)?;
                let (Some(Answer::Patch(patch)), Some(result)) = (&response.answer, &response.result) else {
                    return Err(Refusal::Internal.into());
                };
                expected(result, expect)?;
                self.pipeline.metrics.answered_again();
                let gives_way = patch.offset..patch.offset.saturating_add(patch.length);
                let receipt = result.receipt.as_ref().and_then(|receipt| receipt.id.parse().ok());
                let receipt = receipt.ok_or(Refusal::Internal)?;
                let document = whole.sealed_before(gives_way, patch.replacement.to_vec(), receipt);
                self.hand_out(response, document, wanted_whole).await
            }
        }
    }

    /// Its seal, as it is remembered, and its bytes.
    async fn seal(&self, caller: &Caller, whole: Whole) -> Result<(wire::SealResponse, Outgoing), Ended> {
        let sealed = self.pipeline.finish_large(caller, whole).await?;
        self.pipeline.metrics.sealed(sealed.receipt.document_type);
        let value = sealed.seal.signature_value();
        let response = wire::SealResponse {
            answer: Some(Answer::Patch(patch(&sealed.seal))),
            result: Some(result(value, sealed.signing_time, &[], sealed.receipt)),
        };
        Ok((response, sealed.document))
    }

    async fn hand_out(&self, sealed: wire::SealResponse, mut document: Outgoing, whole: bool) -> Result<(), Ended> {
        let patch = match sealed.answer {
            Some(Answer::Patch(patch)) if !whole => Some(patch),
            _ => None,
        };
        let result = wire::SealLargeResult {
            patch,
            result: sealed.result,
        };
        document.patience(self.say(Part::Result(result))).await??;
        while let Some(piece) = document.piece().await? {
            if whole {
                document.patience(self.say(Part::Chunk(piece))).await??;
            }
        }
        let (sha256, size) = document.sum()?;
        let end = wire::SealLargeEnd {
            sealed_document_sha256: Bytes::copy_from_slice(&sha256),
            size,
        };
        document.patience(self.say(Part::End(end))).await?
    }

    async fn say(&self, part: Part) -> Result<(), Ended> {
        let answer = wire::SealLargeResponse { part: Some(part) };
        self.answers.send(Ok(answer)).await.map_err(|_| Ended::Gone)
    }
}

async fn take_all(incoming: &mut Incoming, requests: &mut Streaming<wire::SealLargeRequest>) -> Result<(), Ended> {
    loop {
        match incoming.patience(next(requests)).await?? {
            Some(Ask::Chunk(chunk)) => {
                if !incoming.take(chunk).await? {
                    return Ok(());
                }
            }
            Some(Ask::Header(_)) => return Err(malformed("header", "comes once").into()),
            None => return Ok(()),
        }
    }
}

async fn next(requests: &mut Streaming<wire::SealLargeRequest>) -> Result<Option<Ask>, Ended> {
    match requests.message().await {
        Ok(Some(wire::SealLargeRequest { part: Some(part) })) => Ok(Some(part)),
        Ok(Some(_)) => Err(malformed("part", "is missing").into()),
        Ok(None) => Ok(None),
        Err(broken) => Err(Ended::Broken(wording::translate(
            broken,
            crate::pipeline::MAX_PIECE as u64,
        ))),
    }
}

fn malformed(field: &'static str, problem: &str) -> Refusal {
    Refusal::Request {
        field,
        problem: problem.to_owned(),
    }
}
