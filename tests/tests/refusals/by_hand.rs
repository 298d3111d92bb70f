//! Calls that no gRPC client would make, or whose answer it would not wait for: deadlines, texts without end, metadata without
//! measure. Each is refused in the contract's words.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use muhurdar_proto::seal::v1::{
    DigestAlgorithm, GetSealRequest, SealBatchRequest, SealBatchResponse, SealStreamRequest, SignDigestRequest,
    get_seal_request, seal_batch_result::Outcome as BatchOutcome, seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Branch, Builder, RSA, Refused,
    calls::{Calls, end, framed, messages, prefix},
    invoice, refused, refused_item,
};
use tokio_stream::{self as stream, Stream, StreamExt as _};
use tonic::Code;

use super::{appliance, is};

const SEAL_SERVICE: &str = "muhurdar.seal.v1.SealService";

/// By hand: a gRPC client would give up by itself and never see the answer.
async fn by_hand(appliance: &Appliance) -> Calls {
    Calls::of(appliance, "branch-1", 1 << 20).await
}

/// How a call with these headers is refused.
async fn refused_with(
    connection: &Calls,
    method: &str,
    headers: &[(&str, &str)],
    body: impl Stream<Item = Bytes> + Send + 'static,
) -> Refused {
    let response = connection.call_with(method, headers, body).await.unwrap();
    refused(&end(response).await.expect("every call ends with a status"))
}

/// One whose token takes longer for a signature than anybody here waits.
fn slow() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::default()
            .taxpayers(1)
            .hsm(1, Duration::from_millis(100))
            .start()
    })
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_by_the_service_wherever_the_call_is() {
    let connection = by_hand(slow()).await;
    let seal = || framed(&Branch::request(RSA, invoice(RSA, "")));
    let item = framed(&SealStreamRequest {
        id: "1".to_owned(),
        request: Some(Branch::request(RSA, invoice(RSA, ""))),
    });
    let batch = framed(&SealBatchRequest {
        items: vec![Branch::request(RSA, invoice(RSA, "")); 8],
    });
    let mut client = Branch::of(slow(), "branch-1").connect().await;
    let digest = framed(&SignDigestRequest {
        taxpayer: RSA.to_owned(),
        // The only taxpayer has an EC P-384 key.
        digest: vec![7; 48].into(),
        digest_algorithm: DigestAlgorithm::Sha384.into(),
        certificate_sha256: Branch::seal_of(&mut client, RSA).await.id,
        ..SignDigestRequest::default()
    });
    let never = || stream::pending::<Bytes>();
    let calls: [(&str, Vec<Bytes>, bool); 8] = [
        ("Seal", vec![seal()], false),
        ("SignDigest", vec![digest], false),
        // Of these the body does not come, or not to its end.
        ("Seal", vec![], true),
        ("Seal", vec![seal().slice(..20)], true),
        ("ListSeals", vec![], true),
        ("SealStream", vec![], true),
        ("SealStream", vec![item], true),
        ("SealLarge", vec![], true),
    ];
    let counted = || slow().metric("muhurdar_seals_total{document=\"unknown\",outcome=\"DEADLINE\"}");
    let before = counted();
    for timeout in ["1n", "1m", "50m"] {
        for (method, body, open) in calls.clone() {
            let body = stream::iter(body);
            let path = format!("{SEAL_SERVICE}/{method}");
            let headers = [("grpc-timeout", timeout)];
            let refused = if open {
                refused_with(&connection, &path, &headers, body.chain(never())).await
            } else {
                refused_with(&connection, &path, &headers, body).await
            };
            is(&refused, Code::DeadlineExceeded, "DEADLINE");
        }
        // Of a batch it is each item's, where it is told in time.
        let headers = [("grpc-timeout", timeout)];
        let path = format!("{SEAL_SERVICE}/SealBatch");
        let response = connection.call_with(&path, &headers, stream::once(batch.clone())).await;
        let read = response.unwrap().into_body().collect().await.unwrap();
        for result in messages::<SealBatchResponse>(read.to_bytes())
            .into_iter()
            .flat_map(|batch| batch.results)
        {
            let Some(BatchOutcome::Error(error)) = result.outcome else {
                panic!("was sealed")
            };
            is(&refused_item(&error), Code::DeadlineExceeded, "DEADLINE");
        }
    }
    assert!(counted() >= before + 27.0, "each of them is counted");
}

#[tokio::test]
async fn a_deadline_that_is_none_is_refused_as_grpc_does() {
    let connection = by_hand(appliance()).await;
    let path = format!("{SEAL_SERVICE}/ListSeals");
    for timeout in ["1", "S", "-1S", "1x", "123456789S", "soon"] {
        let headers = [("grpc-timeout", timeout)];
        let refused = refused_with(&connection, &path, &headers, stream::once(prefix(0))).await;
        is(&refused, Code::Internal, "REQUEST");
        assert!(refused.message.contains("grpc-timeout"), "{refused:?}");
    }
}

/// A text that no receipt, log or header block should have to hold.
fn endless(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[tokio::test]
async fn what_a_caller_writes_is_not_repeated_beyond_what_a_text_may_have() {
    let connection = by_hand(appliance()).await;
    let one = |message: Bytes| stream::once(message);
    let get = framed(&GetSealRequest {
        seal: Some(get_seal_request::Seal::Taxpayer(endless(7000))),
    });
    let refused = refused_with(&connection, &format!("{SEAL_SERVICE}/GetSeal"), &[], one(get)).await;
    is(&refused, Code::InvalidArgument, "REQUEST");

    let digest = SignDigestRequest {
        taxpayer: RSA.to_owned(),
        digest: vec![7; 32].into(),
        digest_algorithm: DigestAlgorithm::Sha256.into(),
        certificate_sha256: vec![7; 32].into(),
        document_id: endless(500_000),
        ..SignDigestRequest::default()
    };
    let refused = refused_with(
        &connection,
        &format!("{SEAL_SERVICE}/SignDigest"),
        &[],
        one(framed(&digest)),
    )
    .await;
    is(&refused, Code::InvalidArgument, "REQUEST");
    assert!(refused.bad_request().is_some(), "{refused:?}");

    // What the transport would answer, too.
    let path = format!("{SEAL_SERVICE}/{}", endless(7000));
    let refused = refused_with(&connection, &path, &[], one(prefix(0))).await;
    is(&refused, Code::Unimplemented, "REQUEST");
    let refused = refused_with(&connection, &endless(7000), &[], one(prefix(0))).await;
    is(&refused, Code::Unimplemented, "REQUEST");
    let encoding = endless(7000);
    let headers = [("grpc-encoding", encoding.as_str())];
    let refused = refused_with(&connection, &format!("{SEAL_SERVICE}/Seal"), &headers, one(prefix(0))).await;
    is(&refused, Code::Unimplemented, "REQUEST");
    // A reflected name: field 4 of ServerReflectionRequest is file_containing_symbol.
    let mut symbol = vec![0x22, 0xd8, 0x36];
    symbol.extend(endless(7000).into_bytes());
    let symbol = [prefix(symbol.len()), symbol.into()].concat().into();
    let reflection = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let refused = refused_with(&connection, reflection, &[], one(symbol)).await;
    is(&refused, Code::NotFound, "REQUEST");

    let item = SealStreamRequest {
        id: endless(7000),
        request: Some(Branch::request(RSA, invoice(RSA, ""))),
    };
    let mut client = Branch::of(appliance(), "branch-1").connect().await;
    let mut answers = client.seal_stream(stream::once(item)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.id.len() <= 128, "{} bytes", answer.id.len());
    let Some(Outcome::Error(error)) = answer.outcome else {
        panic!("was sealed")
    };
    is(&refused_item(&error), Code::InvalidArgument, "REQUEST");

    let mut document = invoice(RSA, "");
    document = document.replace("TST2026000000001", &endless(1000));
    let receipt = client
        .seal(Branch::request(RSA, document))
        .await
        .unwrap()
        .into_inner()
        .result
        .unwrap()
        .receipt;
    let id = receipt.unwrap().document_id;
    assert!(id.starts_with("xxxx") && id.len() <= 128, "{} bytes", id.len());
    let longest = appliance().log().lines().map(str::len).max();
    assert!(longest < Some(2000), "a line of the log has {longest:?} bytes");
}

#[tokio::test]
async fn metadata_over_the_limit_is_refused_and_the_connection_goes_on() {
    let connection = by_hand(appliance()).await;
    let path = format!("{SEAL_SERVICE}/ListSeals");
    for size in [17_000, 60_000] {
        let value = endless(size);
        let refused = refused_with(&connection, &path, &[("x-much", &value)], stream::once(prefix(0))).await;
        is(&refused, Code::InvalidArgument, "REQUEST");
        assert!(refused.message.contains("16384"), "{refused:?}");
    }
    // More than HTTP/2 itself takes: no status of gRPC's, but the one of HTTP.
    let value = endless(100_000);
    let response = connection
        .call_with(&path, &[("x-much", &value)], stream::once(prefix(0)))
        .await
        .unwrap();
    assert_eq!(response.status(), 431);
    let listed = connection
        .call_with(&path, &[("x-much", "a little")], stream::once(prefix(0)))
        .await;
    assert_eq!(
        end(listed.unwrap()).await.unwrap().code(),
        Code::Ok,
        "the same connection, afterwards"
    );
}
