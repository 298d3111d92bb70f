//! What is offered beside sealing (`grpc.health.v1`, reflection): its calls begin and end as all others do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use muhurdar_tests::{
    Appliance, Branch, Builder, RSA, Refused,
    calls::{Calls, end, framed, prefix},
    invoice, refused,
};
use tokio::time::timeout;
use tokio_stream::{self as stream, Stream, StreamExt as _};
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(20);
const WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

async fn calls(appliance: &Appliance) -> Calls {
    Calls::of(appliance, "branch-1", 1 << 20).await
}

/// How a call is refused.
async fn refusal(response: http::Response<Incoming>) -> Refused {
    let end = timeout(PATIENCE, end(response)).await.expect("it ends");
    refused(&end.expect("with a status"))
}

fn is(refused: &Refused, code: Code, reason: &str, what: &str) {
    let found = (refused.code, refused.reason.as_str());
    assert_eq!(found, (code, reason), "{what}: {refused:?}");
}

/// A request of reflection's for all services (field 7 is list_services).
fn list() -> Bytes {
    [prefix(2), Bytes::from_static(&[0x3a, 0])].concat().into()
}

#[tokio::test]
async fn a_call_that_stays_open_ends_at_its_callers_deadline() {
    let connection = calls(Appliance::shared()).await;
    let headers = [("grpc-timeout", "300m")];
    let watch = connection
        .call_with(WATCH, &headers, stream::once(prefix(0)))
        .await
        .unwrap();
    is(&refusal(watch).await, Code::DeadlineExceeded, "DEADLINE", WATCH);
    for path in REFLECTION {
        let open = stream::once(list()).chain(stream::pending());
        let open = connection.call_with(path, &headers, open).await.unwrap();
        is(&refusal(open).await, Code::DeadlineExceeded, "DEADLINE", path);
    }
}

#[tokio::test]
async fn a_call_that_stays_open_is_told_that_the_service_drains() {
    let appliance = Builder::default().taxpayers(0).start();
    let connection = calls(&appliance).await;
    let mut open = vec![(
        WATCH,
        connection.call_with(WATCH, &[], stream::once(prefix(0))).await.unwrap(),
    )];
    for path in REFLECTION {
        let body = stream::once(list()).chain(stream::pending());
        open.push((path, connection.call_with(path, &[], body).await.unwrap()));
    }
    appliance.signal("TERM");
    for (path, response) in open {
        is(&refusal(response).await, Code::Unavailable, "DRAINING", path);
    }
    assert_eq!(appliance.ends_within(PATIENCE).await, Some(0));
}

#[tokio::test]
async fn reflection_does_not_take_what_it_cannot_read_for_the_end() {
    let connection = calls(Appliance::shared()).await;
    for path in REFLECTION {
        let whole = connection.call_with(path, &[], stream::once(list())).await.unwrap();
        assert_eq!(end(whole).await.unwrap().code(), Code::Ok, "{path}");
        let nothing = connection.call_with(path, &[], stream::empty()).await.unwrap();
        assert_eq!(
            end(nothing).await.unwrap().code(),
            Code::Ok,
            "{path}: nothing was asked"
        );
        for (what, body) in [
            ("half a prefix", vec![0, 0, 0]),
            ("less than its prefix says", vec![0, 0, 0, 1, 0, b'x']),
            ("a flag that does not exist", vec![2, 0, 0, 0, 0]),
            (
                "a field that is longer than its message",
                vec![0, 0, 0, 0, 2, 0x0a, 0x7f],
            ),
            ("more than it takes", vec![0, 0x7f, 0, 0, 0]),
        ] {
            for body in [
                Bytes::from(body.clone()),
                [list(), Bytes::from(body.clone())].concat().into(),
            ] {
                let response = connection.call_with(path, &[], stream::once(body)).await.unwrap();
                let (code, reason) = match what {
                    "more than it takes" => (Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
                    _ => (Code::Internal, "REQUEST"),
                };
                is(&refusal(response).await, code, reason, what);
            }
        }
    }
}

#[tokio::test]
async fn a_method_that_takes_one_message_refuses_a_second() {
    let connection = calls(Appliance::shared()).await;
    let seal = framed(&Branch::request(RSA, invoice(RSA, "")));
    let service = "muhurdar.seal.v1.SealService";
    for (path, message) in [
        (format!("{service}/Seal"), seal),
        (format!("{service}/SealBatch"), prefix(0)),
        (format!("{service}/ListSeals"), prefix(0)),
        ("grpc.health.v1.Health/Check".to_owned(), prefix(0)),
        (WATCH.to_owned(), prefix(0)),
    ] {
        let twice: Bytes = [message.clone(), message.clone()].concat().into();
        let begun: Bytes = [message.clone(), Bytes::from_static(&[0])].concat().into();
        let bodies: [std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>; 3] = [
            Box::pin(stream::once(twice)),
            Box::pin(stream::iter([message.clone(), message.clone()])),
            // Of a second one a byte is enough.
            Box::pin(stream::once(begun).chain(stream::pending())),
        ];
        for body in bodies {
            let response = connection.call_with(&path, &[], body).await.unwrap();
            let refused = refusal(response).await;
            is(&refused, Code::Internal, "REQUEST", &path);
            assert!(refused.message.contains("too many request messages"), "{refused:?}");
        }
    }
}
