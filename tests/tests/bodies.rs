//! What is in a call's body: messages that are none, too large, or never whole. Each is refused by itself, while somebody
//! else is served. Each test prints its figures (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use muhurdar_proto::seal::v1::{SealLargeHeader, SealLargeRequest, seal_large_request::Part};
use muhurdar_tests::{
    Appliance, Builder, RSA, Suffered,
    calls::{Calls, framed, prefix, status},
};
use tokio_stream::{self as stream, Stream, StreamExt as _};
use tonic::Code;

const SEAL: &str = "Seal";
const GIB: usize = 1 << 30;
/// `limits.arrival_timeout`
const ARRIVAL: Duration = Duration::from_secs(3);

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::vandal()
            .limits("in_flight_bytes = \"64 MiB\"\nqueue_bytes = \"64 MiB\"\narrival_timeout = \"3s\"")
            .start()
    })
}

/// A connection whose calls have bodies of our own.
async fn connect() -> Calls {
    Calls::of(appliance(), "vandal", 1 << 20).await
}

/// Calls a method, and tells the status. A call that the other end resets without one is as good as CANCELLED.
async fn call(connection: &Calls, method: &str, body: impl Stream<Item = Bytes> + Send + 'static) -> Code {
    let Ok(response) = connection.call(method, body).await else {
        return Code::Cancelled;
    };
    if let Some(code) = status(response.headers()) {
        return code;
    }
    let collected = response.into_body().collect().await;
    collected.map_or(Code::Cancelled, |body| {
        body.trailers().and_then(status).unwrap_or(Code::Unknown)
    })
}

#[tokio::test]
async fn a_body_that_is_no_message_is_refused_and_its_connection_goes_on() {
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect().await;
    let compressed = [&[1, 0, 0, 0, 3][..], b"abc"].concat();
    let flagged = [&[2, 0, 0, 0, 3][..], b"abc"].concat();
    // Field 1, length-delimited, of more bytes than there are.
    let beyond = [&[0, 0, 0, 0, 2][..], &[0x0a, 0x7f]].concat();
    let cases = [
        ("nothing", vec![]),
        ("half a prefix", vec![0, 0, 0]),
        ("less than its prefix says", vec![0, 0, 0, 1, 0, b'x']),
        ("compressed, in no encoding that was agreed on", compressed),
        ("a flag that does not exist", flagged),
        ("a field that is longer than its message", beyond),
        ("a field of a kind that does not exist", vec![0, 0, 0, 0, 1, 0x0f]),
        (
            "noise",
            vec![0, 0, 0, 0, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ];
    let mut refused = Vec::new();
    for method in [SEAL, "SealStream", "SealBatch", "SignDigest", "SealLarge"] {
        for (what, body) in &cases {
            let code = call(&connection, method, stream::once(Bytes::from(body.clone()))).await;
            // A stream that ends before its first item has asked for nothing.
            let fine = method == "SealStream" && body.is_empty();
            assert_eq!(code == Code::Ok, fine, "{method}: {what}: {code}");
            refused.push(code);
        }
    }
    let listed = call(&connection, "ListSeals", stream::once(prefix(0))).await;
    assert_eq!(listed, Code::Ok, "the same connection, afterwards");
    refused.sort_unstable_by_key(|code| i32::from(*code));
    refused.dedup();
    let said = format!("{} bodies that are no message: {refused:?}", cases.len() * 5);
    suffered.no_more_than(16, &said).await;
}

#[tokio::test]
async fn a_message_of_a_gibibyte_is_refused_by_its_prefix() {
    for method in [SEAL, "SealStream", "SealBatch", "SignDigest", "SealLarge"] {
        let suffered = Suffered::from_here(appliance()).await;
        let connection = connect().await;
        let sent = Arc::new(AtomicUsize::new(0));
        let (piece, counted) = (Bytes::from(vec![b'x'; 64 << 10]), Arc::clone(&sent));
        let pieces = stream::iter(std::iter::repeat_n(piece, GIB / (64 << 10)));
        let message = stream::once(prefix(GIB)).chain(pieces).map(move |piece| {
            counted.fetch_add(piece.len(), Ordering::Relaxed);
            piece
        });
        let code = call(&connection, method, message).await;
        let taken = sent.load(Ordering::Relaxed);
        assert_eq!(code, Code::InvalidArgument, "{method}");
        // The transport's own windows and buffers, of both ends, and no more.
        assert!(taken < 8 << 20, "{method}: {taken} bytes were taken");
        let said = format!(
            "1 GiB to {method}: {code:?} after {} KiB were handed to TLS and TCP",
            taken >> 10
        );
        suffered.no_more_than(16, &said).await;
    }
}

/// Calls that say how long their message is, send nearly all of it, and then nothing.
#[tokio::test]
async fn messages_that_are_never_whole_take_no_more_memory_than_their_client_may() {
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect().await;
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let since = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let most = stream::iter(std::iter::repeat_n(piece.clone(), 15 << 4));
        let message = stream::once(prefix(16 << 20)).chain(most).chain(stream::pending());
        let connection = connection.clone();
        calls.spawn(async move { call(&connection, SEAL, message).await });
    }
    let codes = calls.join_all().await;
    let took = since.elapsed();
    let count = |code| codes.iter().filter(|is| **is == code).count();
    let (refused, late) = (count(Code::ResourceExhausted), count(Code::DeadlineExceeded));
    let said = format!("60 messages of which 15 of 16 MiB come: {refused} refused, {late} too late, after {took:.1?}");
    assert_eq!(refused + late, 60, "{codes:?}");
    assert!(late > 0 && refused > 30 && took < ARRIVAL * 4, "{said}");
    // Half of 64 MiB for one client, and what of the others' lies in the windows of one connection.
    suffered.no_more_than(120, &said).await;
}

#[tokio::test]
async fn a_message_that_drips_is_let_go_of_after_its_time() {
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect().await;
    let mut said = String::from("one byte every 50 ms:");
    let mut calls = tokio::task::JoinSet::new();
    for method in [SEAL, "SealStream", "SealLarge"] {
        let drops = stream::iter(std::iter::repeat(Bytes::from_static(b"x"))).throttle(Duration::from_millis(50));
        let message = stream::once(prefix(1000)).chain(drops);
        let (connection, since) = (connection.clone(), Instant::now());
        calls.spawn(async move { (method, call(&connection, method, message).await, since.elapsed()) });
    }
    for (method, code, took) in calls.join_all().await {
        assert_eq!(code, Code::DeadlineExceeded, "{method}");
        assert!(took >= ARRIVAL && took < ARRIVAL * 3, "{method}: {took:?}");
        said += &format!(" {method} is let go of after {took:.2?},");
    }
    let listed = call(&connection, "ListSeals", stream::once(prefix(0))).await;
    assert_eq!(listed, Code::Ok, "the same connection, afterwards");
    suffered.no_more_than(16, &said).await;
}

/// A place for a large document is not kept for one whose document does not come, however it does not come.
#[tokio::test]
async fn a_large_document_that_does_not_get_on_is_let_go_of_after_its_time() {
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect().await;
    let part = |part: Part| framed(&SealLargeRequest { part: Some(part) });
    let header = SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    };
    let header = part(Part::Header(header));
    let byte = part(Part::Chunk(Bytes::from_static(b" ")));
    let bytes = stream::iter(std::iter::repeat(byte)).throttle(Duration::from_millis(50));
    let (mut calls, mut said) = (tokio::task::JoinSet::new(), String::from("a large document"));
    let bodies: [(_, Box<dyn Stream<Item = Bytes> + Send + Unpin>); 3] = [
        ("without a header", Box::new(stream::pending())),
        (
            "of which nothing comes",
            Box::new(stream::once(header.clone()).chain(stream::pending())),
        ),
        (
            "of which a byte comes every 50 ms",
            Box::new(Box::pin(stream::once(header).chain(bytes))),
        ),
    ];
    for (what, body) in bodies {
        let (connection, since) = (connection.clone(), Instant::now());
        calls.spawn(async move {
            let ended = tokio::time::timeout(ARRIVAL * 4, call(&connection, "SealLarge", body)).await;
            (what, ended, since.elapsed())
        });
    }
    for (what, ended, took) in calls.join_all().await {
        assert_eq!(ended, Ok(Code::DeadlineExceeded), "{what}");
        said += &format!(" {what} is let go of after {took:.2?},");
    }
    suffered.no_more_than(16, &said).await;
}

/// Five bytes are enough to announce sixteen mebibytes, and the transport makes room for what is announced.
#[tokio::test]
async fn messages_that_are_only_announced_ask_for_no_more_memory_than_their_client_may() {
    const CALLS: usize = 1000;
    let suffered = Suffered::from_here(appliance()).await;
    let connection = connect().await;
    let before = appliance().memory().asked;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let message = stream::once(prefix(16 << 20)).chain(stream::pending());
        let connection = connection.clone();
        calls.spawn(async move { call(&connection, SEAL, message).await });
    }
    let codes = calls.join_all().await;
    let asked = appliance().memory().asked.saturating_sub(before) >> 20;
    let refused = codes.iter().filter(|code| **code == Code::ResourceExhausted).count();
    let late = codes.iter().filter(|code| **code == Code::DeadlineExceeded).count();
    let said = format!(
        "{CALLS} prefixes of 16 MiB: {refused} refused, {late} too late, {asked} MiB of addresses were asked for"
    );
    assert_eq!(refused + late, CALLS, "{codes:?}");
    // An allocator asks for addresses in steps of its own; without a bound it is 16,000.
    assert!(late > 0 && asked < 1000, "{said}");
    suffered.no_more_than(64, &said).await;
}
