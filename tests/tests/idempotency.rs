//! The same key and document: the same bytes. The HSM is slow here, so that two requests do meet.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::OnceLock, time::Duration};

use muhurdar_proto::seal::v1::{
    Answer, SealBatchRequest, SealRequest, SealResponse, SealStreamRequest, seal_batch_result::Outcome as BatchOutcome,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, refused};
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::default()
            .taxpayers(2)
            .hsm(4, Duration::from_millis(50))
            .client("few", "taxpayers = [\"*\"]\n[client.quota]\nin_flight = 3")
            .client(
                "seldom",
                "taxpayers = [\"*\"]\n[client.quota]\ndocuments_per_second = 1\nburst = 4",
            )
            .edit("[sealing]", "[idempotency]\nwindow = \"6s\"\n\n[sealing]")
            .start()
    })
}

fn request(key: &str, note: &str) -> SealRequest {
    SealRequest {
        idempotency_key: key.to_owned(),
        ..Branch::request(RSA, invoice(RSA, &format!("<cbc:Note>{note}</cbc:Note>")))
    }
}

#[tokio::test]
async fn one_key_is_one_seal_however_it_is_asked_for_and_by_how_many_at_once() {
    let client = Branch::of(appliance(), "branch-1").connect().await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let mut client = client.clone();
        calls.spawn(async move { client.seal(request("one", "1")).await.unwrap().into_inner() });
    }
    let mut answers: Vec<SealResponse> = calls.join_all().await;
    let mut client = client;
    let item = SealStreamRequest {
        id: "x".to_owned(),
        request: Some(request("one", "1")),
    };
    let mut stream = client
        .seal_stream(tokio_stream::iter([item]))
        .await
        .unwrap()
        .into_inner();
    match stream.message().await.unwrap().unwrap().outcome.unwrap() {
        Outcome::Response(response) => answers.push(response),
        Outcome::Error(error) => panic!("{error:?}"),
    }
    let items = vec![request("one", "1"), request("one", "1")];
    for result in client
        .seal_batch(SealBatchRequest { items })
        .await
        .unwrap()
        .into_inner()
        .results
    {
        match result.outcome.unwrap() {
            BatchOutcome::Response(response) => answers.push(response),
            BatchOutcome::Error(error) => panic!("{error:?}"),
        }
    }
    let first = answers[0].encode_to_vec();
    assert_eq!(answers.len(), 13);
    assert!(
        answers.iter().all(|a| a.encode_to_vec() == first),
        "the receipt is the same too: there is one seal"
    );
    assert!(appliance().metric("muhurdar_answered_again_total") >= 12.0);

    // Without a key, or with another client's, it is another seal.
    let anew = client.seal(request("", "1")).await.unwrap().into_inner();
    let mut other = Branch::of(appliance(), "branch-2").connect().await;
    let others = other.seal(request("one", "1")).await.unwrap().into_inner();
    for response in [anew, others] {
        assert_ne!(response.receipt, answers[0].receipt);
    }
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_refused() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    client.seal(request("two", "2")).await.unwrap();
    let signature_only = SealRequest {
        answer: Answer::SignatureOnly.into(),
        ..request("two", "2")
    };
    let long = request(&"k".repeat(200), "2");
    for different in [request("two", "another"), signature_only, long] {
        let refused = refused(&client.seal(different).await.unwrap_err());
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "REQUEST"),
            "{refused:?}"
        );
        let violation = &refused.details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "idempotency_key");
    }
}

#[tokio::test]
async fn what_was_refused_may_be_tried_again_and_what_was_answered_long_ago_is_forgotten() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let broken = SealRequest {
        document: "<Invoice".into(),
        ..request("three", "3")
    };
    for _ in 0..2 {
        let refused = refused(&client.seal(broken.clone()).await.unwrap_err());
        assert_eq!(refused.reason, "XML_MALFORMED", "{refused:?}");
    }
    let first = client.seal(request("three", "3")).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_millis(6100)).await;
    let later = client.seal(request("three", "3")).await.unwrap().into_inner();
    assert_ne!(first.receipt, later.receipt);
}

#[tokio::test]
async fn where_the_first_caller_goes_away_the_second_gets_its_seal_all_the_same() {
    let client = Branch::of(appliance(), "branch-1").connect().await;
    let mut first = client.clone();
    let first = tokio::spawn(async move { first.seal(request("four", "4")).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut second = client.clone();
    let second = tokio::spawn(async move { second.seal(request("four", "4")).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.abort();
    second.await.unwrap().unwrap();
}

/// What became of twelve requests with one key.
async fn twelve(client: &str) -> (usize, Vec<String>) {
    let connected = Branch::of(appliance(), client).connect().await;
    let mut calls = JoinSet::new();
    for _ in 0..12 {
        let mut client = connected.clone();
        calls.spawn(async move { client.seal(request("twelve", "12")).await });
    }
    let (mut sealed, mut bounds) = (0, Vec::new());
    for outcome in calls.join_all().await {
        match outcome {
            Ok(_) => sealed += 1,
            Err(status) => {
                let refused = refused(&status);
                assert_eq!(refused.reason, "QUOTA", "{refused:?}");
                bounds.push(refused.details.quota_failure().unwrap().violations[0].subject.clone());
            }
        }
    }
    (sealed, bounds)
}

#[tokio::test]
async fn those_who_wait_for_the_same_answer_are_within_their_clients_quota() {
    // Longer than it takes twelve to arrive.
    appliance().token("stall 2000");
    let (sealed, bounds) = twelve("few").await;
    assert_eq!((sealed, bounds.len()), (3, 9));
    assert!(bounds.iter().all(|bound| bound == "in_flight"), "{bounds:?}");
}

#[tokio::test]
async fn what_was_answered_before_is_answered_again_as_often_as_the_quota_allows() {
    let (sealed, bounds) = twelve("seldom").await;
    // One more where a second has gone by.
    assert!((4..=5).contains(&sealed), "{sealed} of twelve were answered");
    assert!(bounds.iter().all(|bound| bound == "documents_per_second"), "{bounds:?}");
}
