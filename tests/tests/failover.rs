//! Two HSMs with the same keys, one of which leaves, again and again, under load: every request is answered once or refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{
    DigestAlgorithm, SealStreamRequest, SignDigestRequest, seal_response::Answer as Body, seal_stream_response::Outcome,
};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, refused, xmlsec1};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

const FAILOVERS: usize = 20;

async fn until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

fn ready(appliance: &Appliance, token: &str) -> bool {
    appliance.metric(&format!("muhurdar_token_ready{{token=\"{token}\"}}")) == 1.0
}

/// A stream that always has a few documents unanswered; at the end every item was answered, each once.
async fn stream(appliance: &Appliance, over: Arc<AtomicBool>, sealed: Arc<AtomicUsize>) -> JoinSet<()> {
    let mut client = Branch::of(appliance, "branch-1").connect().await;
    let (send, requests) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    let stop = Arc::clone(&over);
    tasks.spawn(async move {
        let mut answers = client
            .seal_stream(ReceiverStream::new(requests))
            .await
            .unwrap()
            .into_inner();
        let mut answered = HashSet::new();
        while let Some(answer) = answers.message().await.unwrap() {
            match answer.outcome.unwrap() {
                Outcome::Response(_) => drop(sealed.fetch_add(1, Ordering::Relaxed)),
                other => panic!("another token could sign: {:?}", other),
            }
            assert!(answered.insert(answer.id), "each once");
        }
        let asked = (0..answered.len()).map(|n| n.to_string()).collect();
        assert_eq!(answered, asked, "none without an answer");
    });
    tasks.spawn(async move {
        let mut id = 0;
        while !stop.load(Ordering::Relaxed) {
            let request = Some(Branch::request(RSA, invoice(RSA, "")));
            let item = SealStreamRequest {
                id: id.to_string(),
                request,
            };
            send.send(item).await.unwrap();
            id += 1;
        }
    });
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_failovers_between_two_hsms_lose_no_request() {
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(4, Duration::from_millis(2))
        .twins()
        .start();
    assert!(
        ready(&appliance, "dev") && ready(&appliance, "twin"),
        "{}",
        appliance.log()
    );
    let (over, sealed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(stream(&appliance, Arc::clone(&over), Arc::clone(&sealed)).await);
    }
    let mut slowest = Duration::ZERO;
    for round in 0..FAILOVERS {
        let name = ["dev", "twin"][round % 2];
        let command = |line: &str| {
            if name == "dev" {
                appliance.token(line)
            } else {
                appliance.twin(line)
            }
        };
        let before = sealed.load(Ordering::Relaxed);
        command("remove muhurdar-dev");
        until("it is noticed", || !ready(&appliance, name)).await;
        until("the other one signs", || sealed.load(Ordering::Relaxed) > before + 20).await;
        command("return muhurdar-dev");
        slowest = slowest.max(until("it is back", || ready(&appliance, name)).await);
    }
    over.store(true, Ordering::Relaxed);
    for tasks in streams {
        let _ = tasks.join_all().await;
    }
    println!(
        "{FAILOVERS} failovers, {} sealed, none refused; back after {slowest:?} at most",
        sealed.load(Ordering::Relaxed)
    );
    appliance.signal("TERM");
    assert_eq!(appliance.exit_code_within(Duration::from_secs(40)), Some(0));
}

/// A crash of the vendor's library takes its process with it, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_crashes_costs_no_request() {
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(4, Duration::from_millis(2))
        .twins()
        .start();
    let (over, sealed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks = stream(&appliance, Arc::clone(&over), Arc::clone(&sealed)).await;
    for _ in 0..3 {
        let before = sealed.load(Ordering::Relaxed);
        appliance.twin("rule C_Sign 1 crash");
        until("the other one signs", || sealed.load(Ordering::Relaxed) > before + 100).await;
        until("the process is replaced", || ready(&appliance, "twin")).await;
    }
    over.store(true, Ordering::Relaxed);
    let _ = tasks.join_all().await;
}

/// Callers of both kinds, of whole documents and of digests, who want every answer, until told to stop. Goes out: documents that they
/// were given.
async fn callers(appliance: &Appliance, over: &Arc<AtomicBool>, sealed: &Arc<AtomicUsize>) -> JoinSet<Vec<Vec<u8>>> {
    let mut tasks = JoinSet::new();
    for caller in 0_u8..8 {
        let mut client = Branch::of(appliance, "branch-1").connect().await;
        let (over, sealed) = (Arc::clone(over), Arc::clone(sealed));
        let certificate = Branch::seal_of(&mut client, RSA).await.id;
        tasks.spawn(async move {
            let mut kept = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let refusal = if caller == 0 {
                    let request = SignDigestRequest {
                        taxpayer: RSA.to_owned(),
                        // The only taxpayer has an EC P-384 key.
                        digest: vec![caller; 48].into(),
                        digest_algorithm: DigestAlgorithm::Sha384.into(),
                        certificate_sha256: certificate.clone(),
                        ..SignDigestRequest::default()
                    };
                    client.sign_digest(request).await.err()
                } else {
                    let asked = client.seal(Branch::request(RSA, invoice(RSA, ""))).await;
                    asked
                        .map(|answer| match answer.into_inner().answer {
                            Some(Body::SealedDocument(document)) if kept.len() < 5 => kept.push(document.to_vec()),
                            _ => {}
                        })
                        .err()
                };
                if let Some(status) = refusal {
                    panic!("a token that tells the truth was ready: {:?}", refused(&status));
                }
                sealed.fetch_add(1, Ordering::Relaxed);
            }
            kept
        });
    }
    tasks
}

/// Mirrored HSMs, one of which flips bits. Nobody notices but the operator.
#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_lies_costs_no_request_and_loses_its_place_until_it_tells_the_truth() {
    const WRONG: &str = "muhurdar_wrong_signatures_total{token=\"twin\"}";
    const ANEW: &str = "muhurdar_token_recoveries_total{rung=\"module\",token=\"twin\"}";
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(4, Duration::from_millis(2))
        .twins()
        .start();
    for pattern in ["always", "/7", "/50"] {
        let (over, sealed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = callers(&appliance, &over, &sealed).await;
        let (wrong, anew) = (appliance.metric(WRONG), appliance.metric(ANEW));
        appliance.twin(&format!("rule C_Sign {pattern} flip"));
        until("the liar leaves, and its module is started anew", || {
            appliance.metric(ANEW) > anew
        })
        .await;
        // A module that was started anew has forgotten to lie.
        until("it is let back", || ready(&appliance, "twin")).await;
        let before = sealed.load(Ordering::Relaxed);
        until("it goes on", || sealed.load(Ordering::Relaxed) > before + 20).await;
        over.store(true, Ordering::Relaxed);
        let lies = appliance.metric(WRONG) - wrong;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sealed.xml");
        let mut kept = 0;
        for document in tasks.join_all().await.into_iter().flatten() {
            std::fs::write(&file, document).unwrap();
            xmlsec1(&file).unwrap_or_else(|said| panic!("{pattern}: {said}"));
            kept += 1;
        }
        println!(
            "{pattern}: {lies} wrong, none of {} was refused",
            sealed.load(Ordering::Relaxed)
        );
        assert!(kept >= 10, "{kept}");
        assert!((3.0..60.0).contains(&lies), "a few are enough: {lies}");
    }
}
