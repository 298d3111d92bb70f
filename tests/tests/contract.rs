//! What the published proto promises beside the seal: times of single requests, ids, pages, certificates by name, what the server says of
//! itself, and what a program can read in a refusal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashMap,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use muhurdar_proto::seal::v1::{
    DigestAlgorithm, DocumentType, GetSealRequest, GetServerInfoRequest, Level, ListSealsRequest, Preflight, Priority,
    Right, SealBatchRequest, SealInfo, SealOptions, SealRequest, SealState, SealStreamRequest, SignDigestRequest,
    get_seal_request, seal_batch_result::Outcome as BatchOutcome, seal_service_client::SealServiceClient,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{Appliance, Branch, Builder, EC, RSA, Refused, invoice, refused, refused_item, successor};
use tonic::{Code, Status, transport::Channel};

type Client = SealServiceClient<Channel>;

/// Its token takes a while for a signature, and does two at a time.
fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::default()
            .taxpayers(3)
            .hsm(2, Duration::from_millis(300))
            .limits("document = \"2 MiB\"")
            .client("other", "taxpayers = [\"1000000026\"]")
            .client(
                "till",
                "taxpayers = [\"10*\", \"1234567890\"]\ncalls = [\"seal\"]\ndocuments = [\"invoice\"]\npriorities = [\"normal\"]\n\
                 [client.quota]\ndocuments_per_second = 20\nin_flight_bytes = \"1 MiB\"",
            )
            .start()
    })
}

async fn branch() -> Client {
    Branch::of(appliance(), "branch-1").connect().await
}

fn request() -> SealRequest {
    Branch::request(RSA, invoice(RSA, ""))
}

fn with(options: SealOptions) -> SealRequest {
    SealRequest {
        options: Some(options),
        ..request()
    }
}

fn milliseconds(count: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: count * 1_000_000,
    })
}

fn is(refused: &Refused, code: Code, reason: &str) {
    assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{refused:?}");
}

/// The outcomes of a stream's items, by their ids in the order of their answers.
async fn stream(client: &mut Client, items: Vec<SealStreamRequest>) -> Vec<(String, String)> {
    let answers = client.seal_stream(tokio_stream::iter(items)).await;
    let mut answers = answers.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let said = match answer.outcome.unwrap() {
            Outcome::Response(_) => "sealed".to_owned(),
            Outcome::Error(error) => refused_item(&error).reason,
            Outcome::Draining(_) => panic!("it goes on"),
        };
        outcomes.push((answer.id, said));
    }
    outcomes
}

fn item(id: &str, request: SealRequest) -> SealStreamRequest {
    SealStreamRequest {
        id: id.to_owned(),
        request: Some(request),
    }
}

#[tokio::test]
async fn a_requests_own_time_is_its_own_alone() {
    let mut client = branch().await;
    let hasty = || SealRequest {
        timeout: milliseconds(20),
        ..request()
    };
    let status = client.seal(hasty()).await.unwrap_err();
    is(&refused(&status), Code::DeadlineExceeded, "DEADLINE");
    let items = vec![item("a", hasty()), item("b", request()), item("c", hasty())];
    let said: HashMap<_, _> = stream(&mut client, items).await.into_iter().collect();
    let expected = [("a", "DEADLINE"), ("b", "sealed"), ("c", "DEADLINE")];
    assert_eq!(said, expected.map(|(id, said)| (id.to_owned(), said.to_owned())).into());
    let batch = SealBatchRequest {
        items: vec![request(), hasty()],
    };
    let results = client.seal_batch(batch).await.unwrap().into_inner().results;
    assert!(matches!(results[0].outcome, Some(BatchOutcome::Response(_))));
    match &results[1].outcome {
        Some(BatchOutcome::Error(error)) => is(&refused_item(error), Code::DeadlineExceeded, "DEADLINE"),
        other => panic!("{other:?}"),
    }
    for nonsense in [
        milliseconds(-1),
        Some(prost_types::Duration {
            seconds: i64::MIN,
            nanos: i32::MIN,
        }),
    ] {
        let nonsense = SealRequest {
            timeout: nonsense,
            ..request()
        };
        let said = refused(&client.seal(nonsense).await.unwrap_err());
        is(&said, Code::InvalidArgument, "REQUEST");
        assert_eq!(said.metadata("field"), Some("timeout"));
    }
}

#[tokio::test]
async fn an_id_is_one_items_until_it_is_answered() {
    let mut client = branch().await;
    let items = vec![item("a", request()), item("a", request()), item("", request())];
    let mut said = stream(&mut client, items).await;
    assert_eq!(said.remove(0), ("a".to_owned(), "REQUEST".to_owned()), "at once");
    said.sort();
    let sealed = || "sealed".to_owned();
    assert_eq!(said, [(String::new(), sealed()), ("a".to_owned(), sealed())]);
    // Answered, it may be the next one's.
    let (send, items) = tokio::sync::mpsc::channel(1);
    send.send(item("a", request())).await.unwrap();
    let items = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = client.seal_stream(items).await.unwrap().into_inner();
    for _ in 0..3 {
        let answer = answers.message().await.unwrap().unwrap();
        assert!(matches!(answer.outcome, Some(Outcome::Response(_))), "{answer:?}");
        send.send(item("a", request())).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_reached_is_refused_and_not_left_out() {
    let mut client = branch().await;
    for (field, options) in [
        (
            "options.level",
            SealOptions {
                level: Level::A.into(),
                ..SealOptions::default()
            },
        ),
        (
            "options.preflight",
            SealOptions {
                preflight: Preflight::Warn.into(),
                ..SealOptions::default()
            },
        ),
        (
            "options.answer",
            SealOptions {
                answer: 9,
                ..SealOptions::default()
            },
        ),
        (
            "options.certificate_sha256",
            SealOptions {
                certificate_sha256: vec![7; 20].into(),
                ..SealOptions::default()
            },
        ),
    ] {
        let said = refused(&client.seal(with(options)).await.unwrap_err());
        is(&said, Code::InvalidArgument, "REQUEST");
        assert_eq!(said.metadata("field"), Some(field));
        assert_eq!(said.details.bad_request().unwrap().field_violations[0].field, field);
    }
    let bes = SealOptions {
        level: Level::Bes.into(),
        preflight: Preflight::Off.into(),
        ..SealOptions::default()
    };
    let sealed = client.seal(with(bes)).await.unwrap().into_inner();
    assert_eq!(sealed.result.unwrap().level(), Level::Bes);
}

/// Pages of so many seals.
async fn pages(client: &mut Client, page_size: u32) -> Vec<Vec<SealInfo>> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = client.list_seals(ListSealsRequest { page_size, page_token }).await;
        let page = page.unwrap().into_inner();
        pages.push(page.seals);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn seals_come_in_pages_and_what_is_no_page_token_is_refused() {
    let mut client = branch().await;
    let all = pages(&mut client, 0).await.concat();
    let one_by_one = pages(&mut client, 1).await;
    assert_eq!(one_by_one.len(), all.len());
    assert_eq!(one_by_one.concat(), all);
    let taxpayers: Vec<_> = all.iter().map(|seal| seal.taxpayer.as_str()).collect();
    assert_eq!(taxpayers, [RSA, "1000000018", EC]);
    for nonsense in [
        "x",
        RSA,
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let asked = ListSealsRequest {
            page_size: 0,
            page_token: nonsense.to_owned(),
        };
        let said = refused(&client.list_seals(asked).await.unwrap_err());
        is(&said, Code::InvalidArgument, "REQUEST");
        assert_eq!(said.metadata("field"), Some("page_token"));
    }
    // One of them, by its name.
    let by = |seal| GetSealRequest { seal: Some(seal) };
    let seal = get_seal_request::Seal::Id(all[1].id.clone());
    let found = client.get_seal(by(seal)).await.unwrap().into_inner().seal.unwrap();
    assert_eq!(found, all[1]);
    for (nobody, code, reason) in [
        (
            get_seal_request::Seal::Id(vec![7; 32].into()),
            Code::NotFound,
            "SEAL_UNKNOWN",
        ),
        (
            get_seal_request::Seal::Id(vec![7; 31].into()),
            Code::InvalidArgument,
            "REQUEST",
        ),
    ] {
        is(&refused(&client.get_seal(by(nobody)).await.unwrap_err()), code, reason);
    }
    let neither = client.get_seal(GetSealRequest { seal: None }).await;
    is(&refused(&neither.unwrap_err()), Code::InvalidArgument, "REQUEST");
    // What is not for this caller is not told apart from what is not there.
    let mut other = Branch::of(appliance(), "other").connect().await;
    let hidden = pages(&mut client, 0)
        .await
        .concat()
        .into_iter()
        .find(|seal| seal.taxpayer == RSA);
    let seal = get_seal_request::Seal::Id(hidden.unwrap().id);
    is(
        &refused(&other.get_seal(by(seal)).await.unwrap_err()),
        Code::NotFound,
        "SEAL_UNKNOWN",
    );
}

#[tokio::test]
async fn the_server_says_what_it_takes_and_what_its_caller_may() {
    let mut client = branch().await;
    let info = client
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.levels, [i32::from(Level::Bes)]);
    assert_eq!(info.idempotency_window.unwrap().seconds, 600);
    let limits = info.limits.unwrap();
    assert_eq!(
        (limits.document_bytes, limits.message_bytes),
        (2 << 20, (2 << 20) + (64 << 10))
    );
    assert_eq!(limits.chunk_bytes, 1 << 20);
    assert!(limits.batch_items > 0 && limits.stream_in_flight > 0 && limits.large_document_bytes > 2 << 20);
    assert!(limits.request_timeout.unwrap().seconds > 0 && limits.depth > 0 && limits.attributes > 0);

    let mut till = Branch::of(appliance(), "till").connect().await;
    let caller = till.get_server_info(GetServerInfoRequest {}).await;
    let caller = caller.unwrap().into_inner().caller.unwrap();
    assert_eq!(caller.client, "till");
    assert_eq!(caller.rights, [i32::from(Right::Seal)]);
    assert_eq!(caller.taxpayers, ["10*", "1234567890"]);
    assert_eq!(caller.document_types, [i32::from(DocumentType::Invoice)]);
    assert_eq!(caller.priorities, [i32::from(Priority::Normal)]);
    let quota = caller.quota.unwrap();
    assert_eq!(
        (quota.documents_per_second, quota.in_flight_bytes),
        (Some(20), Some(1 << 20))
    );
    assert_eq!((quota.in_flight, quota.large_in_flight), (None, None));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(caller.certificate_not_after.unwrap().seconds > i64::try_from(now.as_secs()).unwrap());
    let nobody = Branch::nobody(appliance())
        .connect()
        .await
        .get_server_info(GetServerInfoRequest {})
        .await;
    is(
        &refused(&nobody.unwrap_err()),
        Code::Unauthenticated,
        "CLIENT_CERTIFICATE",
    );
}

/// One with so many bytes, and a little more.
fn large(bytes: usize) -> SealRequest {
    Branch::request(
        RSA,
        invoice(RSA, &format!("<cbc:Note>{}</cbc:Note>", "x".repeat(bytes))),
    )
}

#[tokio::test]
async fn a_message_that_is_too_large_is_its_items_refusal_and_nobody_elses() {
    const MIB: usize = 1 << 20;
    let mut client = branch().await;
    let items = vec![
        item("a", request()),
        item("b", large(3 * MIB)),
        item("c", large(MIB)),
        item("d", request()),
    ];
    let said: HashMap<_, _> = stream(&mut client, items).await.into_iter().collect();
    let expected = [
        ("a", "sealed"),
        ("b", "MESSAGE_TOO_LARGE"),
        ("c", "sealed"),
        ("d", "sealed"),
    ];
    assert_eq!(said, expected.map(|(id, said)| (id.to_owned(), said.to_owned())).into());
    // One that nobody would read past ends the call, in words.
    let items = tokio_stream::iter([item("e", large(40 * MIB))]);
    let status = match client.seal_stream(items).await {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    let said = refused(&status);
    is(&said, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(said.metadata("limit"), Some("message_bytes"));
    assert_eq!(said.number("value"), Some((2 * MIB + (64 << 10)) as u64));
    assert!(said.number("size").is_some_and(|size| size > 40 << 20), "{said:?}");

    let said = refused(&client.seal(large(3 * MIB)).await.unwrap_err());
    is(&said, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    // A document that fits into a message, and is larger than a document may be.
    let said = refused(&client.seal(large(2 * MIB)).await.unwrap_err());
    is(&said, Code::InvalidArgument, "XML_LIMIT");
    // Of a batch it is told which item was too much.
    let batch = SealBatchRequest {
        items: vec![request(), large(MIB + MIB / 8), large(MIB), request()],
    };
    let said = refused(&client.seal_batch(batch).await.unwrap_err());
    is(&said, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(said.metadata("item"), Some("2"));
    assert_eq!(
        said.details.bad_request().unwrap().field_violations[0].field,
        "items[2].document"
    );
}

async fn signed(
    client: &mut Client,
    seal: &SealInfo,
    digest: usize,
    algorithm: DigestAlgorithm,
) -> Result<Vec<u8>, Status> {
    let request = SignDigestRequest {
        taxpayer: seal.taxpayer.clone(),
        digest: vec![7; digest].into(),
        digest_algorithm: algorithm.into(),
        certificate_sha256: seal.id.clone(),
        ..SignDigestRequest::default()
    };
    let answer = client.sign_digest(request).await?.into_inner();
    Ok(answer.result.unwrap().signature_value.to_vec())
}

#[tokio::test]
async fn a_digest_is_signed_for_the_certificate_that_it_was_made_for_and_no_other() {
    let folder = Builder::default()
        .taxpayers(3)
        .edit("[sealing]", "[sealing]\ncertificates = \"seals\"")
        .prepare();
    std::fs::create_dir(folder.dir().join("seals")).unwrap();
    let appliance = folder.start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let first = Branch::seal_of(&mut client, RSA).await;
    let ec = Branch::seal_of(&mut client, EC).await;
    signed(&mut client, &first, 32, DigestAlgorithm::Sha256).await.unwrap();
    signed(&mut client, &first, 64, DigestAlgorithm::Sha512).await.unwrap();
    signed(&mut client, &ec, 48, DigestAlgorithm::Sha384).await.unwrap();
    for (seal, digest, algorithm, field) in [
        (&first, 48, DigestAlgorithm::Sha256, "digest"),
        (&first, 32, DigestAlgorithm::Unspecified, "digest_algorithm"),
        (&ec, 32, DigestAlgorithm::Sha256, "digest_algorithm"),
    ] {
        let said = refused(&signed(&mut client, seal, digest, algorithm).await.unwrap_err());
        is(&said, Code::InvalidArgument, "REQUEST");
        assert_eq!(said.metadata("field"), Some(field));
    }
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stranger = SealInfo {
        id: vec![7; 32].into(),
        ..first.clone()
    };
    let said = refused(
        &signed(&mut client, &stranger, 32, DigestAlgorithm::Sha256)
            .await
            .unwrap_err(),
    );
    is(&said, Code::FailedPrecondition, "CERTIFICATE_CHANGED");
    assert_eq!(said.metadata("requested"), Some(hex(&stranger.id).as_str()));
    assert_eq!(said.metadata("named"), Some(hex(&first.id).as_str()));
    // Another taxpayer's is no better than a stranger's.
    let others = SealInfo {
        id: ec.id.clone(),
        ..first.clone()
    };
    let said = refused(
        &signed(&mut client, &others, 32, DigestAlgorithm::Sha256)
            .await
            .unwrap_err(),
    );
    is(&said, Code::FailedPrecondition, "CERTIFICATE_CHANGED");

    // With a successor there are two, and each seals for whom it is named; one that has ended does not.
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let renewed = successor(appliance.dir(), RSA, &(now - day..now + 100 * day));
    std::fs::write(appliance.dir().join("seals/new.crt"), renewed).unwrap();
    let ended = successor(appliance.dir(), RSA, &(now - 20 * day..now - 10 * day));
    std::fs::write(appliance.dir().join("seals/old.crt"), ended).unwrap();
    appliance.signal("HUP");
    let own = loop {
        let all = pages(&mut client, 0).await.concat();
        let own: Vec<_> = all.into_iter().filter(|seal| seal.taxpayer == RSA).collect();
        if own.len() == 3 {
            break own;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (usable, over): (Vec<_>, Vec<_>) = own.into_iter().partition(|seal| seal.state() == SealState::Usable);
    assert_eq!((usable.len(), over.len()), (2, 1));
    assert_eq!(usable.iter().filter(|seal| seal.chosen).count(), 1);
    for seal in &usable {
        signed(&mut client, seal, 32, DigestAlgorithm::Sha256).await.unwrap();
        let options = SealOptions {
            certificate_sha256: seal.id.clone(),
            ..SealOptions::default()
        };
        let sealed = client.seal(with(options)).await.unwrap().into_inner().result.unwrap();
        assert_eq!(sealed.receipt.unwrap().certificate_sha256, seal.id);
    }
    assert!(over[0].state() == SealState::Expired && over[0].state_detail.contains("expired") && !over[0].chosen);
    let said = refused(
        &signed(&mut client, &over[0], 32, DigestAlgorithm::Sha256)
            .await
            .unwrap_err(),
    );
    is(&said, Code::FailedPrecondition, "CERTIFICATE_CHANGED");
}

#[tokio::test]
async fn a_refusal_tells_a_program_what_it_is_about() {
    let mut client = branch().await;
    let mut refusal = async |request: SealRequest| refused(&client.seal(request).await.unwrap_err());
    let of = |document: String| Branch::request(RSA, document);
    let said = refusal(of(invoice(EC, ""))).await;
    assert_eq!(
        (said.metadata("requested"), said.metadata("named")),
        (Some(RSA), Some(EC))
    );
    let said = refusal(of(invoice(RSA, &"<a>".repeat(300)))).await;
    is(&said, Code::InvalidArgument, "XML_LIMIT");
    assert!(said.number("value").is_some_and(|value| value > 10), "{said:?}");
    assert!(said.metadata("limit").is_some() && said.number("line").is_some());
    let said = refusal(Branch::request("1234567890", invoice("1234567890", ""))).await;
    assert_eq!(said.metadata("requested"), Some("1234567890"));
    let expected = SealOptions {
        document_type: DocumentType::CreditNote.into(),
        ..SealOptions::default()
    };
    let said = refusal(with(expected)).await;
    is(&said, Code::InvalidArgument, "DOCUMENT_TYPE");
    let types = (said.metadata("requested"), said.metadata("named"));
    assert_eq!(
        types,
        (Some("DOCUMENT_TYPE_CREDIT_NOTE"), Some("DOCUMENT_TYPE_INVOICE"))
    );
    // And tells people, in their own language.
    let said = refusal(of("<Invoice".to_owned())).await;
    let turkish = said.details.localized_message().unwrap();
    assert_eq!(turkish.locale, "tr");
    assert!(turkish.message.contains("satır 1"), "{turkish:?}");
}
