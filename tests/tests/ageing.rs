//! Connections that have come to their greatest age: their clients go on by themselves on others, and nothing that is open ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    path::Path,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{ListSealsRequest, SealStreamRequest, seal_stream_response::Outcome};
use muhurdar_tests::{
    Appliance, Branch, Builder, Output, RSA,
    frames::{ACK, Dialer, END_HEADERS, call_headers, frame, kind},
    invoice, skipped,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// `server.max_connection_age`, and what a slow machine may take more.
const AGE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| aged("1s").start())
}

fn aged(age: &str) -> Builder {
    let key = format!("max_connection_age = \"{age}\"\n\n[server.tls]");
    Builder::default().taxpayers(1).edit("[server.tls]", &key)
}

#[tokio::test]
async fn a_connection_that_is_idle_is_closed_at_its_age_and_not_before() {
    let since = Instant::now();
    let mut frames = Dialer::of(appliance(), "branch-1").open().await.unwrap();
    let goaway = loop {
        let frame = timeout(PATIENCE, frames.next()).await.unwrap().unwrap();
        match frame.kind {
            kind::GOAWAY => break frame,
            kind::PING if frame.flags & ACK == 0 => answer_ping(&mut frames, &frame.payload).await,
            _ => {}
        }
    };
    assert!(since.elapsed() > AGE * 8 / 10, "after {:?}", since.elapsed());
    assert_eq!(goaway.payload[4..8], [0; 4], "NO_ERROR");
    // The first GOAWAY leaves room for what is on its way; once its PING is answered, the second names the last call.
    let end = Instant::now() + PATIENCE;
    while let Ok(frame) = timeout(PATIENCE, frames.next()).await.unwrap() {
        if frame.kind == kind::PING && frame.flags & ACK == 0 {
            answer_ping(&mut frames, &frame.payload).await;
        }
        assert!(Instant::now() < end, "it stays open");
    }
}

async fn answer_ping(frames: &mut muhurdar_tests::frames::Frames, payload: &[u8]) {
    // The other end may have closed meanwhile, which the next read tells.
    drop(frames.send(&frame(kind::PING, ACK, 0, payload)).await);
}

#[test]
fn another_languages_client_goes_on_by_itself_beside_a_stream_that_stays_open() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let marker = root.join("target/interop-venv/grpc-ready");
    if !marker.exists() {
        skipped("there is no grpcio; tests/interop/setup.sh makes it");
        return;
    }
    // Not resolved: where it lies is what makes it that environment's.
    let python = marker.canonicalize().unwrap().with_file_name("bin").join("python");
    for last in [false, false, true] {
        let mut command = Command::new(&python);
        command.arg(root.join("tests/interop/clients/ageing.py"));
        command.arg(appliance().dir()).arg(appliance().address().to_string());
        let output = Output::of(command.arg((AGE * 4).as_secs().to_string()));
        if output.status.success() {
            return;
        }
        // Rarely h2 takes a window update for a call that came too late for a PROTOCOL_ERROR, and ends the connection by it: which is
        // said where the age is configured, and nothing that this service does.
        let h2s = output.text.contains("Got goaway [1]");
        assert!(h2s && !last, "{}", output.text);
    }
}

/// hyper's client cancels a call that it has not sent yet when its connection may take no more, and tonic does not try it again.
fn was_never_sent(status: &Status) -> bool {
    status.code() == Code::Cancelled && format!("{status:?}").contains("connection closed")
}

#[tokio::test]
async fn a_client_of_tonics_goes_on_by_itself_on_another_connection() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let (since, mut unsent) = (Instant::now(), 0);
    while since.elapsed() < AGE * 4 {
        if let Err(status) = client.list_seals(ListSealsRequest::default()).await {
            assert!(was_never_sent(&status), "after {:?}: {status:?}", since.elapsed());
            unsent += 1;
            // The next finds a new connection, and is answered.
            client.list_seals(ListSealsRequest::default()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(unsent <= 5, "{unsent} calls of one connection's age each");
}

#[tokio::test]
async fn an_open_stream_outlives_the_age_of_its_connection() {
    let (items, sent) = mpsc::channel(1);
    let mut client = Branch::of(appliance(), "branch-2").connect().await;
    let mut answers = client
        .seal_stream(ReceiverStream::new(sent))
        .await
        .unwrap()
        .into_inner();
    let since = Instant::now();
    for number in 0..4 {
        let item = SealStreamRequest {
            id: number.to_string(),
            request: Some(Branch::request(RSA, invoice(RSA, ""))),
        };
        items.send(item).await.unwrap();
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.id, number.to_string());
        assert!(matches!(answer.outcome, Some(Outcome::Response(_))), "{answer:?}");
        tokio::time::sleep(AGE).await;
    }
    assert!(since.elapsed() > AGE * 3);
    drop(items);
    assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_connection_without_an_age_stays() {
    let appliance = aged("0s").start();
    let mut frames = Dialer::of(&appliance, "branch-1").open().await.unwrap();
    let until = Instant::now() + AGE * 3;
    while let Ok(frame) = timeout(until - Instant::now(), frames.next()).await {
        assert_ne!(frame.unwrap().kind, kind::GOAWAY);
    }
    let headers = call_headers("/muhurdar.seal.v1.SealService/ListSeals");
    frames
        .send(&frame(kind::HEADERS, END_HEADERS, 1, &headers))
        .await
        .unwrap();
    frames.send(&frame(kind::DATA, 1, 1, &[0; 5])).await.unwrap();
    assert_eq!(frames.ending().await, muhurdar_tests::frames::Ending::Answered);
}
