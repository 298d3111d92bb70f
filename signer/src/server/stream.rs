//! `SealStream`: documents in, answers out in whatever order they are made, for as long as the caller likes.

use std::{sync::Arc, time::Instant};

use muhurdar_proto::seal::v1 as wire;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::{
    Live, Peer,
    opening::passed,
    service::seal,
    status::{item_status, status},
    wording,
};
use crate::{
    admission::{Admitted, Caller, Departure, Held},
    outside::{LONGEST, Outside},
    pipeline::Pipeline,
    refusal::Refusal,
    trace::Origin,
};

/// One open `SealStream`.
pub(super) struct Stream {
    pub(super) origin: Arc<Origin>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) live: Arc<Live>,
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) deadline: Option<Instant>,
    pub(super) departure: Departure,
    pub(super) answers: mpsc::Sender<(Result<wire::SealStreamResponse, Status>, Option<Waits>)>,
    pub(super) document_limit: u64,
}

/// What an answer holds until the transport takes it.
#[derive(Debug)]
pub(super) struct Waits {
    _place: OwnedSemaphorePermit,
    _bytes: Held,
}

impl Stream {
    /// Reads until the caller is done, its deadline passes or the service drains; every item that was read is answered.
    pub(super) async fn run(self, mut items: Streaming<wire::SealStreamRequest>, in_flight: usize) {
        let places = Arc::new(Semaphore::new(in_flight));
        let ended = loop {
            // A place first, and room: a stream whose answers are not read is not read either.
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.next(&mut items).await)
            };
            let (place, item) = tokio::select! {
                biased;
                () = self.pipeline.gate.closing() => break Some(status(&Refusal::Draining)),
                () = self.answers.closed() => break None,
                () = passed(self.deadline) => break Some(self.late()),
                next = next => next,
            };
            // The semaphore is ours, and never closed.
            let Ok(place) = place else { break None };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => break None,
                Err(broken) => break Some(wording::translate(broken, self.document_limit)),
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

    /// The deadline is the call's: it ends the stream, and was each item's before.
    fn late(&self) -> Status {
        let refusal = Refusal::Deadline("passed while the stream was open");
        self.pipeline.metrics.refused(&refusal, None);
        status(&refusal)
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
    let id = Outside::new(&item.id);
    let outcome = match (caller, item.request) {
        // It stands in the answer, and not whole.
        _ if id.as_str() != item.id => Err(Refusal::Request {
            field: "id",
            problem: format!("must have at most {LONGEST} bytes, and none that control how a text is shown"),
        }),
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
            id: id.as_str().to_owned(),
            outcome: Some(outcome),
        },
        admitted,
    )
}
