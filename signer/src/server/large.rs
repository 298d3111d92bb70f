//! `SealLarge`: chunks in, chunks out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};
use wire::{seal_large_request::Part as Ask, seal_large_response::Part};

use super::{
    Live, Peer,
    messages::{read_large, wire_receipt},
    opening::passed,
    status::status,
    wording,
};
use crate::{
    admission::Caller,
    pipeline::{Incoming, LargeSealed, Pipeline},
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
        let (request, whole) = read_large(header, self.deadline)?;
        let mut incoming = self.pipeline.begin_large(&self.caller, request).await?;
        tokio::select! {
            biased;
            // What is not whole when the service drains can be whole elsewhere.
            () = self.pipeline.gate.closing() => return Err(Refusal::Draining.into()),
            taken = take_all(&mut incoming, &mut requests) => taken?,
        }
        // It may have outlived what its caller was allowed when it began.
        let caller = self.live.caller(self.peer.as_deref())?;
        let sealed = self.pipeline.finish_large(&caller, incoming).await?;
        self.pipeline.metrics.sealed(sealed.receipt.document_type);
        self.hand_out(sealed, whole).await
    }

    async fn hand_out(&self, sealed: LargeSealed, whole: bool) -> Result<(), Ended> {
        let LargeSealed {
            seal,
            signing_time,
            receipt,
            mut document,
        } = sealed;
        let result = wire::SealLargeResult {
            seal: Some(wire::DetachedSeal {
                offset: seal.range().start as u64,
                length: seal.range().len() as u64,
                replacement: Bytes::copy_from_slice(seal.replacement()),
            })
            .filter(|_| !whole),
            signature_value: Bytes::copy_from_slice(seal.signature_value()),
            signing_time,
            certificate_serial_number: receipt.used.certificate.serial_decimal().to_owned(),
            receipt: Some(wire_receipt(receipt)),
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
