//! One connection's traffic: it opens the connection again when it ends, and turns answers into outcomes.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use muhurdar_proto::seal::v1::{
    SealBatchResponse, SealResponse, SealStreamResponse, SignDigestResponse, seal_batch_result, seal_stream_response,
};
use prost::Message as _;
use rustls::ClientConfig;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_types::{ErrorInfo, pb};

use super::{
    Connection, Mode,
    wire::{Outgoing, Wire, id_of},
    worker::{Parcel, Worker},
};
use crate::recorder::Failure;

const RETRY: Duration = Duration::from_millis(100);

/// A connection and the task that drives it.
pub(super) type Open = (Connection, JoinHandle<Result<(), hyper::Error>>);
type Client = Grpc<Connection>;
type Requests = mpsc::UnboundedReceiver<Parcel>;

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

/// Serves a lane until the worker stops.
pub(super) async fn run(worker: Arc<Worker>, lane: usize, tls: Arc<ClientConfig>, first: Open) {
    let mut opened = Ok(first);
    loop {
        match opened {
            Ok((connection, task)) => {
                let client = Grpc::with_origin(connection, worker.origin()).max_decoding_message_size(usize::MAX);
                let (sender, requests) = mpsc::unbounded_channel();
                worker.lane_up(lane, sender);
                let ended = match worker.mode() {
                    Mode::Stream => streams(&worker, client, requests).await,
                    Mode::Unary | Mode::Batch | Mode::HashOnly => calls(&worker, client, requests, task).await,
                };
                if worker.stopping() {
                    return;
                }
                let failure = Failure {
                    code: ended.code,
                    reason: &ended.reason,
                    message: &ended.message,
                };
                worker.lane_down(lane, failure);
            }
            Err(_) if worker.stopping() => return,
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
        opened = worker.connect(&tls).await;
    }
}

/// Requests of a connection's streams; a stream that takes more takes the next.
type Shared = Arc<Mutex<Requests>>;

/// Requests as gRPC takes them, each stamped when it does.
fn outgoing(worker: Arc<Worker>, requests: Shared) -> impl Stream<Item = Outgoing> + Send {
    stream::unfold((worker, requests), |(worker, requests)| async {
        // Streams take turns: the lock is handed on in the order in which it was asked for.
        let parcel = requests.lock().await.recv().await?;
        worker.handed_over(&parcel.tickets);
        Some((parcel.message, (worker, requests)))
    })
}

/// All streams of a connection. When one ends, the connection is made anew: what ends one will end the others.
async fn streams(worker: &Arc<Worker>, client: Client, requests: Requests) -> Ended {
    let requests = Arc::new(Mutex::new(requests));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..worker.streams() {
        let (worker, client, requests) = (worker.clone(), client.clone(), requests.clone());
        running.spawn(async move { one_stream(&worker, client, requests).await });
    }
    match running.join_next().await {
        Some(Ok(ended)) => ended,
        _ => Ended::broken("a stream came to no end"),
    }
}

/// How a connection's traffic came to its end.
struct Ended {
    code: &'static str,
    /// The server's, where it gave one.
    reason: String,
    message: String,
}

impl Ended {
    fn broken(message: &(impl ToString + ?Sized)) -> Self {
        Self {
            code: "UNAVAILABLE",
            reason: "CONNECTION".to_owned(),
            message: message.to_string(),
        }
    }

    /// A status that ended a stream: the server's own word, or this side's for a connection that broke.
    fn by(status: &Status) -> Self {
        if is_local(status) {
            return Self::broken(status.message());
        }
        let given = reason(&pb::Status::decode(status.details()).unwrap_or_default());
        Self {
            code: code_name(status.code()),
            reason: if given.is_empty() {
                "CONNECTION".to_owned()
            } else {
                given
            },
            message: status.message().to_owned(),
        }
    }
}

async fn one_stream(worker: &Arc<Worker>, mut client: Client, requests: Shared) -> Ended {
    if let Err(error) = client.ready().await {
        return Ended::broken(&error);
    }
    let requests = Request::new(outgoing(worker.clone(), requests));
    let call = client.streaming(
        requests,
        path("/muhurdar.seal.v1.SealService/SealStream"),
        Wire::<SealStreamResponse>::default(),
    );
    let mut answers = match call.await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ended::by(&status),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => item(worker, answer),
            Ok(None) => return Ended::broken("the service ended the stream"),
            Err(status) => return Ended::by(&status),
        }
    }
}

fn item(worker: &Arc<Worker>, answer: SealStreamResponse) {
    // u64::MAX is no ticket: it will be counted as an answer to nothing.
    let ticket = id_of(&answer.id).unwrap_or(u64::MAX);
    match answer.outcome {
        Some(seal_stream_response::Outcome::Response(response)) => worker.answered([(ticket, Ok(response))]),
        // What was read is answered before the stream ends.
        Some(seal_stream_response::Outcome::Draining(_)) => {}
        Some(seal_stream_response::Outcome::Error(status)) => {
            let reason = reason(&status);
            worker.answered([(ticket, Err(failure(&status, &reason)))]);
        }
        None => worker.answered([(ticket, Err(EMPTY))]),
    }
}

const EMPTY: Failure<'static> = Failure {
    code: "EMPTY_ANSWER",
    reason: "",
    message: "the answer holds neither a seal nor an error",
};

async fn calls(
    worker: &Arc<Worker>,
    client: Client,
    mut requests: Requests,
    mut connection: JoinHandle<Result<(), hyper::Error>>,
) -> Ended {
    loop {
        tokio::select! {
            parcel = requests.recv() => match parcel {
                Some(parcel) => drop(tokio::spawn(call(worker.clone(), client.clone(), parcel))),
                None => return Ended::broken("the run is over"),
            },
            ended = &mut connection => return match ended {
                Ok(Err(error)) => Ended::broken(&error),
                _ => Ended::broken("the service closed the connection"),
            },
        }
    }
}

async fn call(worker: Arc<Worker>, mut client: Client, parcel: Parcel) {
    let Parcel { message, tickets } = parcel;
    if let Err(error) = client.ready().await {
        let status = Status::unavailable(error.to_string());
        return refused(&worker, &tickets, &status, true);
    }
    worker.handed_over(&tickets);
    match message {
        Outgoing::Batch(..) => {
            let method = path("/muhurdar.seal.v1.SealService/SealBatch");
            match client.unary(Request::new(message), method, Wire::default()).await {
                Ok(response) => batch(&worker, &tickets, response.into_inner()),
                Err(status) => refused(&worker, &tickets, &status, is_local(&status)),
            }
        }
        Outgoing::Digest(..) => {
            let method = path("/muhurdar.seal.v1.SealService/SignDigest");
            match client.unary(Request::new(message), method, Wire::default()).await {
                Ok(response) => worker.answered([(tickets[0], Ok(signed(response.into_inner())))]),
                Err(status) => refused(&worker, &tickets, &status, is_local(&status)),
            }
        }
        _ => {
            let method = path("/muhurdar.seal.v1.SealService/Seal");
            match client.unary(Request::new(message), method, Wire::default()).await {
                Ok(response) => worker.answered([(tickets[0], Ok(response.into_inner()))]),
                Err(status) => refused(&worker, &tickets, &status, is_local(&status)),
            }
        }
    }
}

/// A signature value as an answer without a document: the rest of the seal is put together here.
fn signed(response: SignDigestResponse) -> SealResponse {
    SealResponse {
        answer: None,
        result: response.result,
    }
}

fn batch(worker: &Arc<Worker>, tickets: &[u64], response: SealBatchResponse) {
    let mut results = response.results.into_iter();
    let outcomes: Vec<_> = tickets
        .iter()
        .map(|ticket| (*ticket, results.next().and_then(|result| result.outcome)))
        .collect();
    let reasons: Vec<String> = outcomes
        .iter()
        .map(|(_, outcome)| match outcome {
            Some(seal_batch_result::Outcome::Error(status)) => reason(status),
            _ => String::new(),
        })
        .collect();
    worker.answered(outcomes.iter().zip(&reasons).map(|((ticket, outcome), reason)| {
        let answer = match outcome {
            Some(seal_batch_result::Outcome::Response(response)) => Ok(response.clone()),
            Some(seal_batch_result::Outcome::Error(status)) => Err(failure(status, reason)),
            None => Err(EMPTY),
        };
        (*ticket, answer)
    }));
}

fn refused(worker: &Arc<Worker>, tickets: &[u64], status: &Status, local: bool) {
    let rpc = pb::Status::decode(status.details()).unwrap_or_default();
    let (code, reason) = if local {
        ("UNAVAILABLE", "CONNECTION".to_owned())
    } else {
        (code_name(status.code()), reason(&rpc))
    };
    let failure = Failure {
        code,
        reason: &reason,
        message: status.message(),
    };
    worker.answered(tickets.iter().map(|ticket| (*ticket, Err(failure))));
}

/// A status that the server did not send: the connection broke on this side of it.
fn is_local(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn failure<'a>(status: &'a pb::Status, reason: &'a str) -> Failure<'a> {
    Failure {
        code: code_name(Code::from_i32(status.code)),
        reason,
        message: &status.message,
    }
}

/// `ErrorInfo.reason` of a status, or nothing.
fn reason(status: &pb::Status) -> String {
    status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.ErrorInfo"))
        .and_then(|any| pb::ErrorInfo::decode(any.value.as_slice()).ok())
        .map(|info| ErrorInfo::from(info).reason)
        .unwrap_or_default()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
