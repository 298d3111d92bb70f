//! The same key and document: the same bytes. The HSM is slow here, so that two requests do meet.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    AnswerKind, DigestAlgorithm, DocumentType, Priority, SealBatchRequest, SealLargeHeader, SealLargeRequest,
    SealOptions, SealRequest, SealResponse, SealStreamRequest, SignDigestRequest,
    seal_batch_result::Outcome as BatchOutcome, seal_large_request::Part as Ask, seal_large_response::Part,
    seal_response::Answer as Body, seal_service_client::SealServiceClient, seal_stream_response::Outcome,
};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, refused};
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};

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

fn receipt(answer: &SealResponse) -> &str {
    &answer.result.as_ref().unwrap().receipt.as_ref().unwrap().id
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
        other => panic!("{other:?}"),
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
    assert_eq!(answers.len(), 13);
    let replayed = answers.iter().filter(|answer| answer.result.as_ref().unwrap().replayed);
    assert_eq!(
        replayed.count(),
        12,
        "there is one seal, and one answer that is the first"
    );
    for answer in &mut answers {
        let result = answer.result.as_mut().unwrap();
        assert!(result.kept_until.take().is_some(), "each says until when");
        result.replayed = false;
    }
    let first = answers[0].encode_to_vec();
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
        assert_ne!(receipt(&response), receipt(&answers[0]));
    }
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_refused() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    client.seal(request("two", "2")).await.unwrap();
    let long = request(&"k".repeat(200), "2");
    for (different, reason) in [(request("two", "another"), "IDEMPOTENCY_KEY_REUSED"), (long, "REQUEST")] {
        let refused = refused(&client.seal(different).await.unwrap_err());
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, reason),
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
    assert_ne!(receipt(&first), receipt(&later));
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

/// What decides about the seal is the document, not how it is described or what of it is wanted back.
#[tokio::test]
async fn said_or_detected_whole_or_alone_one_key_is_one_seal() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let whole = client.seal(request("five", "5")).await.unwrap().into_inner();
    let Some(Body::SealedDocument(sealed)) = &whole.answer else {
        panic!("no document")
    };
    let options = |document_type: DocumentType, answer: AnswerKind| SealRequest {
        options: Some(SealOptions {
            document_type: document_type.into(),
            answer: answer.into(),
            priority: Priority::Interactive.into(),
            ..SealOptions::default()
        }),
        ..request("five", "5")
    };
    let again = client.seal(options(DocumentType::Invoice, AnswerKind::Document)).await;
    let again = again.unwrap().into_inner();
    assert_eq!(receipt(&again), receipt(&whole));
    assert_eq!(again.answer, whole.answer, "byte for byte");
    let alone = client.seal(options(DocumentType::Unspecified, AnswerKind::Patch)).await;
    let alone = alone.unwrap().into_inner();
    let Some(Body::Patch(patch)) = &alone.answer else {
        panic!("no patch")
    };
    let (offset, length) = (
        usize::try_from(patch.offset).unwrap(),
        usize::try_from(patch.length).unwrap(),
    );
    let input = request("five", "5").document;
    let spliced = [&input[..offset], &patch.replacement, &input[offset + length..]].concat();
    assert_eq!(spliced, *sealed);
    // But it is not another document.
    let other = client
        .seal(options(DocumentType::CreditNote, AnswerKind::Document))
        .await;
    let refused = refused(&other.unwrap_err());
    assert_eq!(refused.reason, "DOCUMENT_TYPE", "{refused:?}");
    assert!(refused.metadata("requested").is_some() && refused.metadata("named").is_some());
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_says_so() {
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("[sealing]", "[idempotency]\nbytes = \"20 KiB\"\n\n[sealing]")
        .start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let kept = async |client: &mut SealServiceClient<Channel>, key: &str| {
        let answer = client.seal(request(key, "6")).await.unwrap().into_inner();
        answer.result.unwrap().kept_until
    };
    let window = kept(&mut client, "a").await.unwrap();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!(
        (now + 500..=now + 600).contains(&window.seconds),
        "ten minutes: {window:?}"
    );
    assert!(kept(&mut client, "").await.is_none(), "without a key");
    // Room for a few seals, each without its document: the next tells how long those before it stayed.
    for n in 0..8 {
        assert!(kept(&mut client, &format!("b{n}")).await.is_some());
    }
    let short = kept(&mut client, "c").await.unwrap();
    assert!(short.seconds < now + 120, "{short:?}");
    // A large document is kept no less than a small one.
    let note = "x".repeat(2 << 20);
    let first = client.seal(request("large", &note)).await.unwrap().into_inner();
    let second = client.seal(request("large", &note)).await.unwrap().into_inner();
    assert!(second.result.as_ref().unwrap().replayed);
    assert_eq!(first.answer, second.answer);
}

#[tokio::test]
async fn a_digest_with_a_key_is_signed_once() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let certificate = Branch::seal_of(&mut client, RSA).await.id;
    let ask = |key: &str, digest: u8| SignDigestRequest {
        taxpayer: RSA.to_owned(),
        digest: vec![digest; 32].into(),
        digest_algorithm: DigestAlgorithm::Sha256.into(),
        certificate_sha256: certificate.clone(),
        idempotency_key: key.to_owned(),
        ..SignDigestRequest::default()
    };
    let mut sign = async |key: &str, digest: u8| client.sign_digest(ask(key, digest)).await;
    let first = sign("digest", 7).await.unwrap().into_inner().result.unwrap();
    let second = sign("digest", 7).await.unwrap().into_inner().result.unwrap();
    assert!(!first.replayed && second.replayed && second.kept_until.is_some());
    assert_eq!(first.receipt, second.receipt);
    let other = refused(&sign("digest", 8).await.unwrap_err());
    assert_eq!(other.reason, "IDEMPOTENCY_KEY_REUSED", "{other:?}");
    let third = sign("another", 7).await.unwrap().into_inner().result.unwrap();
    assert_ne!(first.receipt, third.receipt);
}

#[tokio::test]
async fn a_large_document_with_a_key_is_sealed_once() {
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let document = |note: &str| Bytes::from(invoice(RSA, &format!("<cbc:Note>{note}</cbc:Note>")));
    let mut seal = async |document: Bytes, answer: AnswerKind| {
        let header = SealLargeHeader {
            taxpayer: RSA.to_owned(),
            idempotency_key: "large one".to_owned(),
            size: Some(document.len() as u64),
            options: Some(SealOptions {
                answer: answer.into(),
                ..SealOptions::default()
            }),
        };
        let parts = [Ask::Header(header), Ask::Chunk(document)].map(|part| SealLargeRequest { part: Some(part) });
        let mut answers = client.seal_large(tokio_stream::iter(parts)).await?.into_inner();
        let (mut result, mut sealed) = (None, Vec::new());
        while let Some(answer) = answers.message().await? {
            match answer.part.unwrap() {
                Part::Result(first) => result = Some(first),
                Part::Chunk(chunk) => sealed.extend_from_slice(&chunk),
                Part::End(end) => return Ok::<_, Status>((result.unwrap(), sealed, end)),
            }
        }
        panic!("no end")
    };
    let (first, sealed, end) = seal(document("a"), AnswerKind::Document).await.unwrap();
    let (second, again, end_again) = seal(document("a"), AnswerKind::Document).await.unwrap();
    let (first, second) = (first.result.unwrap(), second.result.unwrap());
    assert!(!first.replayed && second.replayed);
    assert_eq!((first.receipt, sealed, end.clone()), (second.receipt, again, end_again));
    let (alone, nothing, end_alone) = seal(document("a"), AnswerKind::Patch).await.unwrap();
    assert!(alone.patch.is_some() && alone.result.unwrap().replayed && nothing.is_empty());
    assert_eq!(end, end_alone);
    let reused = refused(&seal(document("b"), AnswerKind::Document).await.unwrap_err());
    assert_eq!(reused.reason, "IDEMPOTENCY_KEY_REUSED", "{reused:?}");
}
