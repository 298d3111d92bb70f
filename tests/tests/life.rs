//! The service from its first moment to its last: many callers at once, and an orderly end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use muhurdar_proto::seal::v1::{
    SealBatchRequest, SealBatchResponse, SealLargeHeader, SealLargeRequest, SealLargeResponse, SealRequest,
    SealResponse, SealStreamRequest, SealStreamResponse, seal_large_request::Part as Ask, seal_large_response::Part,
    seal_response::Answer as Body, seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Branch, Builder, EC, RSA,
    calls::{Calls, end, framed, messages, prefix},
    frames::Dialer,
    invoice, muhurdar, refused, refused_item, xmlsec1,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status};

#[path = "life/endings.rs"]
mod endings;

/// The configured drain time-out and then some.
const END: Duration = Duration::from_secs(40);

#[tokio::test]
async fn five_hundred_seals_of_eight_callers_all_verify() {
    const CALLERS: usize = 8;
    const EACH: usize = 63;
    let folder = tempfile::tempdir().unwrap();
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (folder, name) = (folder.path().to_owned(), ["branch-1", "branch-2"][caller % 2]);
        callers.push(tokio::spawn(async move {
            let mut client = Branch::of(Appliance::shared(), name).connect().await;
            let sealer = [RSA, EC][caller / 2 % 2];
            let items: Vec<_> = (0..EACH)
                .map(|n| {
                    let document = invoice(
                        sealer,
                        &format!("<cbc:Note>{caller}/{n} {}</cbc:Note>", "ş".repeat(n * 50)),
                    );
                    SealStreamRequest {
                        id: n.to_string(),
                        request: Some(Branch::request(sealer, document)),
                    }
                })
                .collect();
            let mut answers = client
                .seal_stream(tokio_stream::iter(items))
                .await
                .unwrap()
                .into_inner();
            let mut answered = HashSet::new();
            while let Some(answer) = answers.message().await.unwrap() {
                let response = match answer.outcome.unwrap() {
                    Outcome::Response(response) => response,
                    other => panic!("{other:?}"),
                };
                let Some(Body::SealedDocument(sealed)) = response.answer else {
                    panic!("no document")
                };
                // Its own answer, and not another's.
                let own = format!("<cbc:Note>{caller}/{} ", answer.id);
                assert!(sealed.windows(own.len()).any(|w| w == own.as_bytes()));
                std::fs::write(folder.join(format!("{caller}-{}.xml", answer.id)), sealed).unwrap();
                answered.insert(answer.id);
            }
            assert_eq!(answered.len(), EACH, "each item is answered");
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let files = muhurdar_tests::files(folder.path(), "xml");
    assert_eq!(files.len(), CALLERS * EACH);
    let ca = Appliance::shared().dir().join("ca.crt");
    let names: Vec<_> = files.iter().map(|f| f.to_str().unwrap()).collect();
    let verified = muhurdar(&[&["verify", "--trust", ca.to_str().unwrap()], names.as_slice()].concat());
    assert!(verified.status.success(), "{}", verified.text);
    // xmlsec1 is a process for each; some of them will do, since our own verifier has seen all.
    for file in files.iter().step_by(10) {
        xmlsec1(file).unwrap();
    }
}

/// How often each end is tried: together twenty times.
const ENDS: usize = 10;

#[tokio::test]
async fn after_sigterm_everything_admitted_is_answered() {
    for round in 0..ENDS {
        a_stream_at_sigterm(50 + 20 * round).await;
    }
}

/// The signal comes after so many answers.
async fn a_stream_at_sigterm(after: usize) {
    const ITEMS: usize = 2000;
    let appliance = Builder::default().taxpayers(1).start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let mut unary = client.clone();

    let (requests, outgoing) = mpsc::channel(ITEMS);
    let mut answers = client
        .seal_stream(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    for n in 0..ITEMS {
        let document = invoice(RSA, &format!("<cbc:Note>{n}</cbc:Note>"));
        let request = Some(Branch::request(RSA, document));
        requests
            .send(SealStreamRequest {
                id: n.to_string(),
                request,
            })
            .await
            .unwrap();
    }
    let mut answered = HashSet::new();
    let (mut ended, mut notices) = (None, 0);
    loop {
        match answers.message().await {
            Ok(Some(answer)) if matches!(answer.outcome, Some(Outcome::Draining(_))) => {
                assert!(answer.id.is_empty(), "it is no item's");
                notices += 1;
            }
            Ok(Some(answer)) => {
                // One that was read just as the door closed is refused, by itself.
                if let Some(Outcome::Error(error)) = &answer.outcome {
                    let refused = refused_item(error);
                    assert_eq!(
                        (refused.code, refused.reason.as_str()),
                        (Code::Unavailable, "DRAINING"),
                        "{refused:?}"
                    );
                }
                assert!(answered.insert(answer.id), "each once");
                if answered.len() == after {
                    appliance.signal("TERM");
                }
            }
            Ok(None) => break,
            Err(status) => {
                ended = Some(status);
                break;
            }
        }
    }
    // What the server had not read when it began to drain was never admitted, and the caller is told so.
    let status = ended.expect("the stream ends with a reason, since items were left");
    let refused = refused(&status);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::Unavailable, "DRAINING"),
        "{refused:?}"
    );
    assert_eq!(notices, 1, "it was said before");
    assert!((after..ITEMS).contains(&answered.len()), "{} answered", answered.len());
    // Answered are the first ones that were read, without a gap: nothing admitted was lost.
    let last = answered.iter().map(|id| id.parse::<usize>().unwrap()).max().unwrap();
    assert_eq!(
        answered.len(),
        last + 1,
        "an item before the last answered one was admitted and not answered"
    );

    // On a connection that the server has said goodbye on, the client itself cancels a call that it could not send.
    let late = unary.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap_err();
    assert!(never_sent(&late) || refused_as(&late, "DRAINING"), "{late:?}");
    assert_eq!(appliance.ends_within(END).await, Some(0), "the process ends, and well");
    assert!(appliance.log().contains("drained"), "{}", appliance.log());
}

#[tokio::test]
async fn every_call_in_flight_at_sigterm_is_answered_or_refused_in_words() {
    for round in 0..ENDS {
        calls_at_sigterm(20 + 10 * round).await;
    }
}

/// The signal comes after so many answers.
async fn calls_at_sigterm(after: usize) {
    let appliance = Builder::default().taxpayers(1).start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    let calls: Vec<_> = (0..400)
        .map(|n| {
            let mut client = client.clone();
            let document = invoice(RSA, &format!("<cbc:Note>{n}</cbc:Note>"));
            tokio::spawn(async move { client.seal(Branch::request(RSA, document)).await })
        })
        .collect();
    let mut sealed = 0;
    for (n, call) in calls.into_iter().enumerate() {
        if n == after {
            appliance.signal("TERM");
        }
        match call.await.unwrap() {
            Ok(_) => sealed += 1,
            // Nothing was taken from it: it may go elsewhere without a second thought.
            Err(status) if never_sent(&status) => {}
            Err(status) => {
                let refused = refused(&status);
                let said = (refused.code, refused.reason.as_str());
                assert_eq!(said, (Code::Unavailable, "DRAINING"), "{refused:?}");
            }
        }
    }
    assert!(sealed >= after, "{sealed} sealed");
    assert_eq!(appliance.ends_within(END).await, Some(0), "the process ends, and well");
}

/// Whether the client itself gave up a call: the connection was closed for new ones before the service had seen it (RFC 9113,
/// section 6.8), or there was no connection any more.
fn never_sent(status: &Status) -> bool {
    let why = format!("{status:?}");
    let known = [
        "NO_ERROR, Remote",
        "operation was canceled",
        "ConnectError",
        "connection closed before",
    ];
    status.details().is_empty() && known.iter().any(|known| why.contains(known))
}

fn refused_as(status: &Status, reason: &str) -> bool {
    refused(status).reason == reason
}

/// Bytes of an answer that may be under way before it is read: so many are read at a time.
const WINDOW: u32 = 64 << 10;
/// How long a reader takes over each window: together more than a connection that owes nothing has at the end.
const A_WINDOW_EACH: Duration = Duration::from_millis(60);

/// Reads an answer as over a slow line. None where it ends before its trailers.
async fn read_slowly(response: http::Response<Incoming>) -> Option<(Bytes, Status)> {
    let (mut body, mut read, mut due) = (response.into_body(), BytesMut::new(), WINDOW as usize);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => {
                let status = Status::from_header_map(frame.trailers_ref()?)?;
                return Some((read.freeze(), status));
            }
        }
        while read.len() >= due {
            due += WINDOW as usize;
            tokio::time::sleep(A_WINDOW_EACH).await;
        }
    }
    None
}

fn large(size: usize) -> SealRequest {
    Branch::request(RSA, invoice(RSA, &format!("<cbc:Note>{}</cbc:Note>", "x".repeat(size))))
}

/// Every kind of call that is answered with documents.
const KINDS: [&str; 4] = ["Seal", "SealStream", "SealBatch", "SealLarge"];

/// Four megabytes of answers to each of these calls, on connections of their own.
async fn ask_for_much(appliance: &Appliance, kinds: &[&str]) -> Vec<(&'static str, http::Response<Incoming>)> {
    const MUCH: usize = 4 << 20;
    let eighth = || large(MUCH / 8);
    let items = (0..8).map(|id| {
        framed(&SealStreamRequest {
            id: id.to_string(),
            request: Some(eighth()),
        })
    });
    let batch = SealBatchRequest {
        items: (0..8).map(|_| eighth()).collect(),
    };
    let document = large(MUCH).document;
    let header = Ask::Header(SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    });
    let chunks = (0..document.len()).step_by(256 << 10);
    let chunks = chunks.map(|at| Ask::Chunk(document.slice(at..document.len().min(at + (256 << 10)))));
    let parts = std::iter::once(header)
        .chain(chunks)
        .map(|part| framed(&SealLargeRequest { part: Some(part) }));
    let bodies: [(&str, Vec<Bytes>); 4] = [
        ("Seal", vec![framed(&large(MUCH))]),
        ("SealStream", items.collect()),
        ("SealBatch", vec![framed(&batch)]),
        ("SealLarge", parts.collect()),
    ];
    let (mut answers, mut documents) = (Vec::new(), 0.0);
    for (method, body) in bodies.into_iter().filter(|(method, _)| kinds.contains(method)) {
        documents += if matches!(method, "Seal" | "SealLarge") {
            1.0
        } else {
            8.0
        };
        let connection = Calls::of(appliance, "branch-1", WINDOW).await;
        answers.push((method, connection.call(method, tokio_stream::iter(body)).await.unwrap()));
    }
    let sealed = || appliance.metric("muhurdar_seals_total{document=\"invoice\",outcome=\"sealed\"}");
    while sealed() < documents {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answers
}

#[tokio::test]
async fn an_upload_that_is_not_whole_at_sigterm_is_refused_as_draining_and_holds_up_nobody() {
    let appliance = Builder::default().taxpayers(1).start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let (send, parts) = mpsc::channel(4);
    let header = Ask::Header(SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    });
    for part in [header, Ask::Chunk(Bytes::from_static(b"<Invoice"))] {
        send.send(SealLargeRequest { part: Some(part) }).await.unwrap();
    }
    let mut answers = client
        .seal_large(ReceiverStream::new(parts))
        .await
        .unwrap()
        .into_inner();
    let arrived = || appliance.metric("muhurdar_in_flight_documents");
    while arrived() < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    appliance.signal("TERM");
    let refusal = refused(&answers.message().await.unwrap_err());
    assert_eq!((refusal.code, &*refusal.reason), (Code::Unavailable, "DRAINING"));
    drop((send, answers, client));
    assert_eq!(
        appliance.exit_code_within(Duration::from_secs(20)),
        Some(0),
        "{}",
        appliance.log()
    );
}

#[tokio::test]
async fn what_a_slow_reader_has_asked_for_is_delivered_after_sigterm() {
    // A large document is in flight until it was handed out, and would have the others waited for too.
    tokio::join!(read_after_sigterm(&KINDS[..3]), read_after_sigterm(&KINDS[3..]));
}

async fn read_after_sigterm(kinds: &[&str]) {
    let appliance = Builder::default().taxpayers(1).start();
    let answers = ask_for_much(&appliance, kinds).await;
    appliance.signal("TERM");
    let mut readers = tokio::task::JoinSet::new();
    for (method, response) in answers {
        readers.spawn(async move { (method, read_slowly(response).await) });
    }
    while let Some(read) = readers.join_next().await {
        let (method, read) = read.unwrap();
        let (body, status) = read.unwrap_or_else(|| panic!("{method}: cut off; {}", appliance.log()));
        // The door was closed before the stream was seen to have no more items, or after it.
        let drained = method == "SealStream" && status.code() == Code::Unavailable;
        assert!(status.code() == Code::Ok || drained, "{method}: {status:?}");
        match method {
            "Seal" => assert_eq!(messages::<SealResponse>(body).len(), 1),
            "SealStream" => {
                let answers = messages::<SealStreamResponse>(body);
                assert!(answers.iter().all(|a| matches!(a.outcome, Some(Outcome::Response(_)))));
                assert_eq!(answers.len(), 8);
            }
            "SealBatch" => assert_eq!(messages::<SealBatchResponse>(body)[0].results.len(), 8),
            _ => {
                let last = messages::<SealLargeResponse>(body).pop().and_then(|answer| answer.part);
                assert!(matches!(last, Some(Part::End(_))), "{last:?}");
            }
        }
    }
    assert_eq!(appliance.ends_within(END).await, Some(0), "the process ends, and well");
    assert!(!appliance.log().contains("giving up"), "{}", appliance.log());
}

#[tokio::test]
async fn what_nobody_reads_is_given_up_after_the_drain_time_out_and_not_before() {
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("[server]\n", "[server]\ndrain_timeout = \"4s\"\n")
        .start();
    let answers = ask_for_much(&appliance, &KINDS).await;
    let since = Instant::now();
    appliance.signal("TERM");
    assert_eq!(appliance.ends_within(END).await, Some(0), "the process ends, and well");
    assert!(since.elapsed() >= Duration::from_secs(4), "after {:?}", since.elapsed());
    let log = appliance.log();
    let given_up = log.lines().find(|line| line.contains("giving up the rest"));
    assert!(given_up.is_some_and(|line| line.contains("\"unanswered\":4")), "{log}");
    drop(answers);
}

#[tokio::test]
async fn a_connection_that_owes_nothing_does_not_hold_up_the_end() {
    let appliance = Builder::default().taxpayers(1).start();
    // Nobody reads it, so that it answers no PING and sees no GOAWAY.
    let idle = Dialer::of(&appliance, "branch-1").open().await.unwrap();
    // A call that has not said what it wants is refused in words.
    let connection = Calls::of(&appliance, "branch-1", WINDOW).await;
    let half = tokio_stream::once(prefix(1000)).chain(tokio_stream::pending());
    let half = tokio::spawn(async move { connection.call("Seal", half).await });
    let before = appliance.metric("muhurdar_arriving_bytes");
    while appliance.metric("muhurdar_arriving_bytes") <= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    appliance.signal("TERM");
    let half = end(half.await.unwrap().unwrap()).await.unwrap();
    assert!(refused_as(&half, "DRAINING"), "{half:?}");
    assert_eq!(appliance.ends_within(END).await, Some(0), "the process ends, and well");
    assert!(!appliance.log().contains("giving up"), "{}", appliance.log());
    drop(idle);
}

#[test]
fn a_port_that_is_taken_is_said_in_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = muhurdar(&[
        "dev",
        "--dir",
        dir,
        "--listen",
        &address,
        "--admin-listen",
        "127.0.0.1:0",
        "--taxpayers",
        "0",
    ]);
    assert_eq!(output.status.code(), Some(69), "{}", output.text);
    assert!(
        output.text.contains(&address) && !output.text.contains("panicked"),
        "{}",
        output.text
    );
}

#[test]
fn what_is_prepared_once_is_kept() {
    let prepared = Builder::default().prepare();
    let taxpayers = prepared.dir().join("taxpayers.json");
    let (first, ca) = (
        std::fs::read(&taxpayers).unwrap(),
        std::fs::read(prepared.dir().join("ca.crt")).unwrap(),
    );
    let appliance = prepared.start();
    assert_eq!(std::fs::read(&taxpayers).unwrap(), first);
    assert_eq!(std::fs::read(appliance.dir().join("ca.crt")).unwrap(), ca);
}
