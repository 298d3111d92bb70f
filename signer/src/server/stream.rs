//! `SealStream`: documents in, answers out in whatever order they are made, for as long as the caller likes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use muhurdar_proto::seal::v1 as wire;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::{
    Live, Peer,
    opening::passed,
    oversize::Oversized,
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
    /// Bytes of a message.
    pub(super) message_limit: u64,
    /// Items that were read past.
    pub(super) oversized: Oversized,
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
        let unanswered = Unanswered::default();
        let mut number = 0;
        let ended = loop {
            // A place first, and room: a stream whose answers are not read is not read either.
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.next(&mut items).await)
            };
            let (place, item) = tokio::select! {
                biased;
                () = self.pipeline.gate.closing() => {
                    // So that nothing more is sent this way while what was read is answered.
                    self.notice().await;
                    break Some(status(&Refusal::Draining));
                }
                () = self.answers.closed() => break None,
                () = passed(self.deadline) => break Some(self.late()),
                next = next => next,
            };
            // The semaphore is ours, and never closed.
            let Ok(place) = place else { break None };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => break None,
                Err(broken) => break Some(wording::translate(broken, self.message_limit)),
            };
            // A stream may outlive what its caller was allowed when it began.
            let caller = self.live.caller(self.peer.as_deref());
            let (pipeline, origin) = (Arc::clone(&self.pipeline), Arc::clone(&self.origin));
            let mut id = unanswered.begin(&item.id);
            let oversized = self.oversized.size_of(number);
            if let Some(size) = oversized.filter(|_| id.refusal.is_none()) {
                id.refusal = Some(Refusal::MessageTooLarge {
                    limit: self.message_limit,
                    size: Some(size),
                    item: None,
                });
            }
            number += 1;
            let (deadline, departure, answers) = (self.deadline, self.departure.clone(), self.answers.clone());
            tokio::spawn(async move {
                let answer = tokio::select! {
                    biased;
                    answer = answer(&pipeline, caller, &origin, item, &id, deadline) => Some(answer),
                    // Nobody reads the answers any more: what waits leaves its turn to others.
                    () = answers.closed() => None,
                };
                // Whoever reads the answer may take its id for the next one.
                drop(id);
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

    /// Says that the service is about to end.
    async fn notice(&self) {
        let notice = wire::SealStreamResponse {
            id: String::new(),
            outcome: Some(wire::seal_stream_response::Outcome::Draining(wire::DrainNotice {})),
        };
        drop(self.answers.send((Ok(notice), None)).await);
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

/// The ids of a stream's items that are not answered.
#[derive(Debug, Default, Clone)]
struct Unanswered(Arc<Mutex<HashSet<String>>>);

/// An item's id, until it is answered.
#[derive(Debug)]
struct Id {
    /// As it is told.
    shown: Outside,
    /// What is wrong with it, or with its item.
    refusal: Option<Refusal>,
    /// Where it stands among the unanswered.
    of: Option<(Unanswered, String)>,
}

impl Unanswered {
    fn begin(&self, id: &str) -> Id {
        let shown = Outside::new(id);
        let refused = |shown, problem: String| Id {
            shown,
            refusal: Some(Refusal::Request { field: "id", problem }),
            of: None,
        };
        // It stands in the answer, and not whole.
        if shown.as_str() != id {
            let problem = format!("must have at most {LONGEST} bytes, and none that control how a text is shown");
            return refused(shown, problem);
        }
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.insert(id.to_owned()) {
            let problem = "is that of an item which is not answered yet; this one was not sealed, that one goes on";
            return refused(shown, problem.to_owned());
        }
        drop(ids);
        Id {
            shown,
            refusal: None,
            of: Some((self.clone(), id.to_owned())),
        }
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if let Some((all, id)) = &self.of {
            all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
    }
}

/// The answer to one item of a stream, with the item's share of the limits.
async fn answer(
    pipeline: &Pipeline,
    caller: Result<Arc<Caller>, Refusal>,
    origin: &Origin,
    item: wire::SealStreamRequest,
    id: &Id,
    deadline: Option<Instant>,
) -> (wire::SealStreamResponse, Option<Admitted>) {
    let outcome = match (caller, item.request) {
        _ if id.refusal.is_some() => Err(id.refusal.clone().unwrap_or(Refusal::Internal)),
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
            id: id.shown.as_str().to_owned(),
            outcome: Some(outcome),
        },
        admitted,
    )
}
