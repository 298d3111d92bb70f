//! The service from its first moment to its last: many callers at once, and an orderly end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, time::Duration};

use muhurdar_proto::seal::v1::{SealStreamRequest, seal_response::Result as Body, seal_stream_response::Outcome};
use muhurdar_tests::{Appliance, Branch, Builder, EC, RSA, invoice, muhurdar, refused, refused_item, xmlsec1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

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
                    Outcome::Error(error) => panic!("{:?}", refused_item(&error)),
                };
                let Some(Body::SealedDocument(sealed)) = response.result else {
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
    let mut ended = None;
    loop {
        match answers.message().await {
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
    let never_sent = late.code() == Code::Cancelled && late.details().is_empty();
    assert!(late.code() == Code::Unavailable || never_sent, "{late:?}");
    assert_eq!(appliance.exit_code_within(END), Some(0), "the process ends, and well");
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
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
    assert!(sealed >= after, "{sealed} sealed");
    assert_eq!(appliance.exit_code_within(END), Some(0), "the process ends, and well");
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
