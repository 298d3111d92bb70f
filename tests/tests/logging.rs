//! Where log lines go, and what becomes of the service where nobody takes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "logging/audit.rs"]
mod audit;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{SealResponse, seal_service_client::SealServiceClient};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, refused};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::{Status, transport::Channel};

/// On a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
const LOST_FULL: &str = "muhurdar_log_lines_lost_total{kind=\"audit\",reason=\"full\"}";
const LOST_FAILED: &str = "muhurdar_log_lines_lost_total{kind=\"audit\",reason=\"failed\"}";
/// More lines than a pipe and the smallest queue hold.
const MANY: usize = 600;

type Client = SealServiceClient<Channel>;

/// A service whose audit log is in its log. (`muhurdar dev` leaves it out.)
fn service(lines: &str) -> Builder {
    Builder::default()
        .taxpayers(1)
        .log(&format!("filter = \"info\"\n{lines}"))
}

async fn seal(client: &mut Client) -> Result<SealResponse, Status> {
    let sealed = client.seal(Branch::request(RSA, invoice(RSA, ""))).await;
    sealed.map(tonic::Response::into_inner)
}

/// Has so many documents sealed, sixteen at a time; who is refused asks no more.
async fn seal_many(client: &Client, count: usize) -> Vec<Result<SealResponse, Status>> {
    let (mut work, mut done) = (JoinSet::new(), Vec::new());
    for _ in 0..16 {
        let mut client = client.clone();
        work.spawn(async move {
            let mut outcomes = Vec::new();
            for _ in 0..count.div_ceil(16) {
                let outcome = seal(&mut client).await;
                let over = outcome.is_err();
                outcomes.push(outcome);
                if over {
                    break;
                }
            }
            outcomes
        });
    }
    while let Some(outcomes) = work.join_next().await {
        done.extend(outcomes.unwrap());
    }
    done
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn page(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.get("/status.json").1).unwrap()
}

/// Probes, figures and the page are there, whatever the log does.
fn it_is_alive(appliance: &Appliance) {
    assert_eq!(appliance.get("/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(appliance.get("/metrics").0, "HTTP/1.1 200 OK");
    assert_eq!(appliance.get("/").0, "HTTP/1.1 200 OK");
}

/// Somebody who reads the pipe at last.
#[derive(Debug, Clone, Default)]
struct Reader(Arc<Mutex<Vec<Value>>>);

impl Reader {
    fn of(appliance: &Appliance) -> Self {
        let (reader, pipe) = (Self::default(), File::open(appliance.unread()).unwrap());
        let lines = Arc::clone(&reader.0);
        // It ends with the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let parsed = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                lines.lock().unwrap().push(parsed);
            }
        });
        reader
    }

    fn says(&self, message: &str) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        lines
            .iter()
            .filter(|line| line["message"] == message)
            .cloned()
            .collect()
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_seals_nor_the_end() {
    let appliance = Builder::default()
        .taxpayers(1)
        .env("MUHURDAR_LOG", "info")
        .unread()
        .start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    for outcome in seal_many(&client, MANY).await {
        outcome.unwrap();
    }
    it_is_alive(&appliance);
    assert_eq!(appliance.get("/readyz").0, "HTTP/1.1 200 OK");
    appliance.signal("HUP");
    appliance.signal("TERM");
    assert_eq!(appliance.ends_within(PATIENCE).await, Some(0));
}

#[tokio::test]
async fn in_drop_what_finds_no_room_is_counted_told_and_told_again_when_somebody_reads() {
    let appliance = service("queue = \"64 KiB\"").unread().start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    assert!(
        appliance.get("/metrics").1.contains(&format!("\n{LOST_FULL} 0\n")),
        "there from the start"
    );
    let sealed = seal_many(&client, MANY).await;
    assert!(sealed.iter().all(Result::is_ok), "a log is no reason not to seal");
    let lost = appliance.metric(LOST_FULL);
    assert!(lost > 0.0);
    until("the stall is on the page", || {
        let page = page(&appliance);
        let warnings = page["warnings"].as_array().unwrap();
        warnings
            .iter()
            .any(|w| w["text"].as_str().unwrap().contains("nobody takes the lines"))
    })
    .await;
    let log = page(&appliance)["logs"][0].clone();
    assert_eq!((&log["name"], &log["to"]), (&"main".into(), &"standard error".into()));
    assert_eq!(log["lost_audit"].as_f64(), Some(lost));
    assert!(log["stalled_s"].as_u64() > Some(0), "{log}");
    assert!(appliance.metric("muhurdar_log_stalled_seconds{log=\"main\"}") > 0.0);
    it_is_alive(&appliance);
    assert_eq!(appliance.get("/readyz").0, "HTTP/1.1 200 OK");

    let reader = Reader::of(&appliance);
    let again = "the log is written again after it could not be, or had no room";
    until("it says what was lost", || !reader.says(again).is_empty()).await;
    assert_eq!(reader.says(again)[0]["lost_audit"].as_f64(), Some(lost));
    seal(&mut client).await.unwrap();
    #[allow(clippy::cast_precision_loss, reason = "some hundreds")]
    let kept = || reader.says("sealed").len() as f64 + lost;
    #[allow(clippy::cast_precision_loss, reason = "some hundreds")]
    let all = sealed.len() as f64 + 1.0;
    until("what was not lost is there", || kept() >= all).await;
    assert_eq!((kept(), appliance.metric(LOST_FULL)), (all, lost));
    assert_eq!(appliance.metric("muhurdar_log_stalled_seconds{log=\"main\"}"), 0.0);
}

#[tokio::test]
async fn in_block_seals_wait_for_the_log_and_nothing_else_does() {
    let appliance = service("queue = \"64 KiB\"\nwhen_full = \"block\"\n\n[limits]\nrequest_timeout = \"5s\"")
        .unread()
        .start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let outcomes = seal_many(&client, MANY).await;
    let (sealed, waited): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(waited.len(), 16, "nobody is sealed whose line has no room");
    for status in waited.into_iter().map(Result::unwrap_err) {
        let refused = refused(&status);
        assert_eq!(refused.reason, "DEADLINE");
        assert!(refused.message.contains("log.when_full"), "{}", refused.message);
    }
    it_is_alive(&appliance);
    let (head, why) = appliance.get("/readyz");
    assert_eq!(head, "HTTP/1.1 503 Service Unavailable");
    assert!(why.contains("log.when_full"), "{why}");
    assert_eq!((appliance.metric(LOST_FULL), appliance.metric(LOST_FAILED)), (0.0, 0.0));

    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { seal(&mut client).await }
    });
    let reader = Reader::of(&appliance);
    waiting.await.unwrap().unwrap();
    seal(&mut client).await.unwrap();
    let all = sealed.len() + 2;
    until("every line is there", || reader.says("sealed").len() >= all).await;
    assert_eq!(reader.says("sealed").len(), all, "and no other");
    assert_eq!(appliance.get("/readyz").0, "HTTP/1.1 200 OK");
    assert_eq!((appliance.metric(LOST_FULL), appliance.metric(LOST_FAILED)), (0.0, 0.0));
}

#[tokio::test]
async fn in_block_the_drain_does_not_wait_for_who_reads_the_log() {
    let appliance = service("queue = \"64 KiB\"\nwhen_full = \"block\"")
        .edit("[server.tls]", "drain_timeout = \"1h\"\n\n[server.tls]")
        .unread()
        .start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    let flood = tokio::spawn(async move { seal_many(&client, MANY).await });
    until("nothing more is sealed", || {
        appliance.get("/readyz").0 == "HTTP/1.1 503 Service Unavailable"
            && appliance.metric("muhurdar_in_flight_documents") == 16.0
    })
    .await;
    appliance.signal("TERM");
    assert_eq!(appliance.ends_within(PATIENCE).await, Some(0));
    let refused: Vec<_> = flood.await.unwrap().into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 16);
    for status in refused {
        assert_eq!(muhurdar_tests::refused(&status).reason, "DRAINING");
    }
}

/// Standard error on a disk that is full; and nothing of what was said is.
#[tokio::test]
async fn a_disk_that_is_full_is_told_where_it_is_seen() {
    let appliance = Builder::default()
        .taxpayers(1)
        .env("MUHURDAR_LOG", "info")
        .standard_error("/dev/full")
        .start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    for outcome in seal_many(&client, 48).await {
        outcome.unwrap();
    }
    let page = page(&appliance);
    let (log, warnings) = (&page["logs"][0], page["warnings"].to_string());
    assert!(log["error"].as_str().unwrap().contains("No space left"), "{log}");
    assert!(warnings.contains("the log cannot be written"), "{warnings}");
    assert_eq!(log["lost_audit"], 0, "they wait for a while");
    appliance.signal("TERM");
    assert_eq!(appliance.ends_within(PATIENCE).await, Some(0));
}
