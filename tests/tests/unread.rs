//! Answers that nobody reads: a client that asks and does not take what it asked for holds no more memory than its share, and
//! is told so; its neighbours are served meanwhile. Each test prints its figures (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use muhurdar_proto::seal::v1::{
    ListSealsRequest, SealBatchRequest, SealRequest, SealStreamRequest, SealStreamResponse,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Builder, RSA, Suffered,
    calls::{Calls, framed, status},
    invoice,
};
use prost::Message as _;
use tokio_stream::{self as stream, StreamExt as _};
use tonic::Code;

/// `limits.in_flight_bytes`, of which half may be one client's, in MiB.
const LIMIT: u64 = 64;

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::vandal()
            .limits(&format!(
                "in_flight_bytes = \"{LIMIT} MiB\"\nqueue_bytes = \"{LIMIT} MiB\""
            ))
            .start()
    })
}

/// A connection on which an answer may have so many bytes before it is read.
async fn connect(window: u32) -> Calls {
    Calls::of(appliance(), "vandal", window).await
}

fn document(size: usize) -> Bytes {
    invoice(RSA, &format!("<cbc:Note>{}</cbc:Note>", "x".repeat(size))).into()
}

fn request(document: &Bytes) -> SealRequest {
    SealRequest {
        taxpayer: RSA.to_owned(),
        document: document.clone(),
        ..SealRequest::default()
    }
}

#[tokio::test]
async fn a_stream_whose_answers_are_not_read_is_not_read_either_and_loses_none() {
    const DOCUMENTS: usize = 400;
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect(64 << 10).await;
    let (document, asked) = (document(512 << 10), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    let messages = stream::iter(0..DOCUMENTS).map(move |id| {
        counted.fetch_add(1, Ordering::Relaxed);
        framed(&SealStreamRequest {
            id: id.to_string(),
            request: Some(request(&document)),
        })
    });
    let response = connection.call("SealStream", messages).await.unwrap();
    let mut taken = 0;
    while taken < asked.load(Ordering::Relaxed) {
        taken = asked.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let said = format!("{taken} of {DOCUMENTS} documents of 512 KiB were taken while no answer was read");
    // Fewer than a stream may have unanswered (`limits.stream_in_flight`): it is their bytes that count.
    assert!(taken < 200, "{said}");

    let (mut body, mut buffer, mut answers) = (response.into_body(), BytesMut::new(), vec![0; DOCUMENTS]);
    let mut ended = None;
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => buffer.extend_from_slice(&data),
            Err(frame) => ended = frame.into_trailers().ok().and_then(|trailers| status(&trailers)),
        }
        while buffer.len() >= 5 {
            let length = u32::from_be_bytes(buffer[1..5].try_into().unwrap()) as usize;
            if buffer.len() < 5 + length {
                break;
            }
            let message = buffer.split_to(5 + length).freeze().slice(5..);
            let answer = SealStreamResponse::decode(message).unwrap();
            assert!(matches!(answer.outcome, Some(Outcome::Response(_))), "{answer:?}");
            answers[answer.id.parse::<usize>().unwrap()] += 1;
        }
    }
    assert_eq!(ended, Some(Code::Ok));
    assert!(answers.iter().all(|times| *times == 1), "each once, in whatever order");
    suffered.no_more_than(3 * LIMIT, &said).await;
}

#[tokio::test]
async fn calls_of_one_who_does_not_read_are_refused_until_it_does() {
    const CALLS: usize = 300;
    let suffered = Suffered::from_here(appliance()).await;
    let document = framed(&request(&document(1 << 20)));
    let since = Instant::now();
    // Several connections, since each has a window for what it sends.
    let (mut held, mut refused) = (Vec::new(), 0);
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(connect(1 << 10).await);
    }
    for number in 0..CALLS {
        let connection = &connections[number % connections.len()];
        let response = connection.call("Seal", stream::once(document.clone())).await.unwrap();
        match status(response.headers()) {
            None => held.push(response.into_body()),
            Some(Code::ResourceExhausted) => refused += 1,
            Some(code) => panic!("{code}"),
        }
        if refused == 50 {
            break;
        }
    }
    let (unread, filled) = (held.len(), since.elapsed());
    let said = format!("{unread} answers of 1 MiB stay unread, {refused} more calls are refused, after {filled:.1?}");
    assert!(refused == 50 && unread as u64 <= LIMIT / 2 + 8, "{said}");

    let list = framed(&ListSealsRequest::default());
    let listed = connections[0].call("ListSeals", stream::once(list)).await.unwrap();
    assert_eq!(
        status(listed.headers()),
        Some(Code::ResourceExhausted),
        "whatever it asks for"
    );

    // What was sealed is there for whoever reads it, and with it the next call is welcome.
    for body in held {
        let read = body.collect().await.unwrap();
        assert_eq!(read.trailers().and_then(status), Some(Code::Ok));
    }
    let again = connections[0].call("Seal", stream::once(document)).await.unwrap();
    assert_eq!(status(again.headers()), None, "{said}");
    drop(again);
    suffered.no_more_than(3 * LIMIT, &said).await;
}

/// Half a kilobyte that asks for 256 answers, each of them a refusal with its details.
#[tokio::test]
async fn batches_of_nothing_hold_no_more_than_their_clients_share() {
    const CALLS: usize = 600;
    let suffered = Suffered::from_here(appliance()).await;
    let batch = framed(&SealBatchRequest {
        items: vec![SealRequest::default(); 256],
    });
    let mut asking = tokio::task::JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..6 {
        connections.push(connect(0).await);
    }
    for number in 0..CALLS {
        let (connection, batch) = (connections[number % connections.len()].clone(), batch.clone());
        asking.spawn(async move { connection.call("SealBatch", stream::once(batch)).await.unwrap() });
    }
    let (mut unread, mut refused) = (Vec::new(), 0);
    while let Some(response) = asking.join_next().await {
        let response = response.unwrap();
        match status(response.headers()) {
            None => unread.push(response),
            Some(Code::ResourceExhausted) => refused += 1,
            Some(code) => panic!("{code}"),
        }
    }
    let said = format!(
        "{} batches of nothing stay unread, {refused} more are refused",
        unread.len()
    );
    assert!(refused > 0, "{said}");
    suffered.no_more_than(2 * LIMIT, &said).await;
}

/// One item of a stream at a time, so that it is soon not read on.
fn one_by_one() -> &'static Appliance {
    static NARROW: OnceLock<Appliance> = OnceLock::new();
    NARROW.get_or_init(|| {
        Builder::vandal()
            .limits(&format!(
                "in_flight_bytes = \"{LIMIT} MiB\"\nqueue_bytes = \"{LIMIT} MiB\"\nstream_in_flight = 1"
            ))
            .start()
    })
}

#[tokio::test]
async fn what_lies_in_the_windows_of_streams_that_are_not_read_is_their_clients() {
    const CONNECTIONS: usize = 20;
    const STREAMS: usize = 16;
    let suffered = Suffered::from_here(one_by_one()).await;
    let item = framed(&SealStreamRequest {
        id: String::new(),
        request: Some(request(&document(60 << 10))),
    });
    let taken = Arc::new(AtomicUsize::new(0));
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = Calls::of(one_by_one(), "vandal", 1 << 10).await;
        for _ in 0..STREAMS {
            let (item, counted) = (item.clone(), Arc::clone(&taken));
            let items = stream::iter(std::iter::repeat(item)).map(move |item| {
                counted.fetch_add(item.len(), Ordering::Relaxed);
                item
            });
            open.push(connection.call("SealStream", items).await.unwrap());
        }
    }
    let mut before = usize::MAX;
    while before != taken.load(Ordering::Relaxed) {
        before = taken.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let arriving = one_by_one().metric("muhurdar_arriving_bytes");
    let said = format!(
        "{} streams that are not read: {} MiB were handed to TLS and TCP, {arriving} bytes are counted",
        open.len(),
        before >> 20
    );
    assert!(arriving <= (LIMIT << 20) as f64 / 2.0, "{said}");
    suffered.no_more_than(2 * LIMIT, &said).await;
}
