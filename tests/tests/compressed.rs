//! Messages that are compressed by gzip: read like any other, and bounded by what they become.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{io::Write as _, sync::OnceLock};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt as _;
use muhurdar_proto::seal::v1::SealResponse;
use muhurdar_tests::{
    Appliance, Branch, Builder, RSA, Suffered,
    calls::{Calls, end, messages},
    invoice, refused,
};
use prost::Message as _;
use tokio_stream as stream;
use tonic::Code;

const SEAL: &str = "muhurdar.seal.v1.SealService/Seal";
const GZIP: [(&str, &str); 1] = [("grpc-encoding", "gzip")];

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::vandal()
            .limits("in_flight_bytes = \"64 MiB\"\nqueue_bytes = \"64 MiB\"\narrival_timeout = \"3s\"")
            .start()
    })
}

/// A message behind its prefix, compressed.
fn packed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    let bytes = encoder.finish().unwrap();
    let mut message = BytesMut::new();
    message.put_u8(1);
    message.put_u32(u32::try_from(bytes.len()).unwrap());
    message.put(&bytes[..]);
    message.freeze()
}

#[tokio::test]
async fn a_document_that_comes_compressed_is_sealed_and_its_answer_is_plain() {
    let connection = Calls::of(appliance(), "branch-1", 1 << 20).await;
    let request = Branch::request(
        RSA,
        invoice(RSA, &format!("<cbc:Note>{}</cbc:Note>", "ş".repeat(50_000))),
    );
    let message = packed(&request.encode_to_vec());
    assert!(message.len() < 10_000);
    let headers = [GZIP[0], ("grpc-accept-encoding", "gzip")];
    let response = connection
        .call_with(SEAL, &headers, stream::once(message))
        .await
        .unwrap();
    assert!(!response.headers().contains_key("grpc-encoding"), "{response:?}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answers = messages::<SealResponse>(body);
    assert!(answers[0].result.is_some() || answers[0].encoded_len() > 50_000);
}

#[tokio::test]
async fn another_compression_is_refused_with_those_that_there_are() {
    let connection = Calls::of(appliance(), "branch-1", 1 << 20).await;
    let headers = [("grpc-encoding", "snappy")];
    let response = connection
        .call_with(SEAL, &headers, stream::once(packed(b"")))
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-accept-encoding"], "gzip,identity");
    let refused = refused(&end(response).await.unwrap());
    assert_eq!((refused.code, &*refused.reason), (Code::Unimplemented, "REQUEST"));
}

/// Two hundred mebibytes of nothing, in two hundred kilobytes; and as much as a message may have, in calls that do not end.
#[tokio::test]
async fn bombs_take_no_more_memory_than_their_client_may() {
    let suffered = Suffered::from_here(appliance()).await;
    let connection = Calls::of(appliance(), "vandal", 1 << 20).await;
    let bomb = packed(&vec![0; 200 << 20]);
    let large = packed(&Branch::request(RSA, vec![b' '; 15 << 20]).encode_to_vec());
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (connection, bomb, large) = (connection.clone(), bomb.clone(), large.clone());
        calls.spawn(async move {
            let call = if number % 4 == 0 {
                connection.call_with(SEAL, &GZIP, stream::once(bomb)).await
            } else {
                use stream::StreamExt as _;
                let open = stream::once(large).chain(stream::pending());
                connection.call_with(SEAL, &GZIP, open).await
            };
            match call {
                Ok(response) => end(response).await.map_or(Code::Cancelled, |status| status.code()),
                Err(_) => Code::Cancelled,
            }
        });
    }
    let codes = calls.join_all().await;
    let count = |code| codes.iter().filter(|is| **is == code).count();
    let (large, over, late) = (
        count(Code::InvalidArgument),
        count(Code::ResourceExhausted),
        count(Code::DeadlineExceeded),
    );
    let said = format!("40 bombs: {large} too large, {over} beyond what the client may have, {late} that did not end");
    assert!(large + over + late == 40 && over > 20 && late > 0, "{said}: {codes:?}");
    // Half of 64 MiB for one client, once here and once more with the transport while it is handed over.
    suffered.no_more_than(120, &said).await;
}
