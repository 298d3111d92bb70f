//! Where log lines go, and what becomes of the service where nobody takes them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    SealDigestRequest, SealLargeHeader, SealLargeRequest, SealResponse, SealStreamRequest,
    seal_large_request::Part as Ask, seal_large_response::Part, seal_service_client::SealServiceClient,
};
use muhurdar_tests::{Appliance, Branch, Builder, Output, RSA, invoice, muhurdar, refused};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

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
        lines.iter().filter(|line| line["message"] == message).cloned().collect()
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
    assert!(appliance.get("/metrics").1.contains(&format!("\n{LOST_FULL} 0\n")), "there from the start");
    let sealed = seal_many(&client, MANY).await;
    assert!(sealed.iter().all(Result::is_ok), "a log is no reason not to seal");
    let lost = appliance.metric(LOST_FULL);
    assert!(lost > 0.0);
    until("the stall is on the page", || {
        let page = page(&appliance);
        let warnings = page["warnings"].as_array().unwrap();
        warnings.iter().any(|w| w["text"].as_str().unwrap().contains("nobody takes the lines"))
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

/// The lines of an audit log and of those before it, each of which must be whole.
fn audit_lines(folder: &Path) -> Vec<Value> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| fs::read_to_string(file).unwrap());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_audit_log_of_its_own_survives_a_full_disk_and_has_every_seal_with_its_digest_and_its_peer() {
    let prepared = service("[log.audit]\nfile = \"audit/audit.log\"").prepare();
    let folder = prepared.dir().join("audit");
    let file = folder.join("audit.log");
    fs::create_dir(&folder).unwrap();
    symlink("/dev/full", &file).unwrap();
    let appliance = prepared.start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    let sealed: Vec<_> = seal_many(&client, 48).await.into_iter().map(Result::unwrap).collect();
    until("it is told", || appliance.log().contains("the log cannot be written")).await;
    assert!(!appliance.log().contains("\"sealed\""), "they have a place of their own");

    fs::remove_file(&file).unwrap();
    appliance.signal("HUP");
    let lines = || if file.exists() { audit_lines(&folder) } else { Vec::new() };
    until("they are there", || lines().len() >= sealed.len()).await;
    let lines = lines();
    assert_eq!(lines.len(), sealed.len(), "each once");
    for sealed in sealed {
        let line = lines.iter().find(|line| line["receipt"] == sealed.receipt.as_ref().unwrap().id);
        let line = line.unwrap_or_else(|| panic!("{sealed:?}"));
        assert_eq!(line["sha256"], hex(&sealed.sealed_document_sha256));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert_eq!((&line["target"], &line["taxpayer"]), (&"muhurdar::audit".into(), &RSA.into()));
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "taxpayers' numbers are in it");
    assert_eq!((appliance.metric(LOST_FULL), appliance.metric(LOST_FAILED)), (0.0, 0.0));
    until("it is told that it goes on", || appliance.log().contains("the log is written again")).await;
}

#[tokio::test]
async fn files_that_are_put_aside_and_moved_away_under_load_have_every_seal_once() {
    let prepared = service("[log.audit]\nfile = \"audit/audit.log\"\nrotate_size = \"64 KiB\"").prepare();
    let folder = prepared.dir().join("audit");
    fs::create_dir(&folder).unwrap();
    let appliance = prepared.start();
    let client = Branch::of(&appliance, "branch-1").connect().await;
    let flood = tokio::spawn(async move { seal_many(&client, MANY).await });
    // As logrotate does it.
    for round in 0..3 {
        until("there is something to move", || {
            fs::metadata(folder.join("audit.log")).is_ok_and(|found| found.len() > 0)
        })
        .await;
        fs::rename(folder.join("audit.log"), folder.join(format!("moved.{round}"))).unwrap();
        appliance.signal("HUP");
    }
    let sealed = flood.await.unwrap().into_iter().map(|outcome| outcome.unwrap().receipt.unwrap().id);
    let sealed: BTreeSet<_> = sealed.collect();
    until("the last are written", || {
        appliance.metric("muhurdar_log_queued_bytes{log=\"audit\"}") == 0.0
    })
    .await;
    let lines = audit_lines(&folder);
    let receipts: BTreeSet<_> = lines.iter().map(|line| line["receipt"].as_str().unwrap().to_owned()).collect();
    assert_eq!((lines.len(), receipts), (sealed.len(), sealed));
    let files = fs::read_dir(&folder).unwrap().count();
    assert!(files > 5, "it was put aside by its size too: {files}");
}

#[tokio::test]
async fn each_kind_of_call_says_who_asked_and_what_the_file_became() {
    let uid = Output::of(Command::new("id").arg("-u")).text;
    let prepared = service("[log.audit]\nfile = \"audit.log\"")
        .client("digester", "taxpayers = [\"*\"]\ncalls = [\"digest\"]")
        .client("goes", "taxpayers = [\"*\"]")
        .edit("[server.tls]", "unix_socket = \"local.sock\"\n\n[server.tls]")
        .edit("uri:urn:muhurdar:client:branch-2", &format!("uid:{}", uid.trim()))
        .prepare();
    let appliance = prepared.start();
    let lines = || {
        let text = fs::read_to_string(appliance.dir().join("audit.log")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let line_of = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = lines().into_iter().find(|line| is(line)) {
                return line;
            }
            assert!(Instant::now() < end, "{what}: {:?}", lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let from_here = |line: &Value| assert!(line["peer"].as_str().is_some_and(|p| p.starts_with("127.0.0.1:")), "{line}");

    // Where only a digest was shown there is no file.
    let mut digester = Branch::of(&appliance, "digester").connect().await;
    let request = SealDigestRequest {
        taxpayer: RSA.to_owned(),
        digest: vec![7; 48].into(),
        ..SealDigestRequest::default()
    };
    let receipt = digester.seal_digest(request).await.unwrap().into_inner().receipt.unwrap();
    let line = line_of("a digest", &|line| line["receipt"] == receipt.id);
    from_here(&line);
    assert_eq!(line.get("sha256"), None, "{line}");

    // In a stream, each item is in a task of its own.
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let item = || SealStreamRequest {
        id: String::new(),
        request: Some(Branch::request(RSA, invoice(RSA, ""))),
    };
    let mut answers = client.seal_stream(tokio_stream::iter([item()])).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    from_here(&line_of("a stream", &|line| line["client"] == "branch-1" && line["message"] == "sealed"));

    // A large document's digest is known when it was handed out.
    let header = SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    };
    let parts = [Ask::Header(header), Ask::Chunk(Bytes::from(invoice(RSA, "")))];
    let parts = parts.map(|part| SealLargeRequest { part: Some(part) });
    let mut answers = client.seal_large(tokio_stream::iter(parts)).await.unwrap().into_inner();
    let (mut receipt, mut sha256) = (None, Bytes::new());
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.part.unwrap() {
            Part::Result(result) => receipt = result.receipt,
            Part::Chunk(_) => {}
            Part::End(end) => sha256 = end.sealed_document_sha256,
        }
    }
    let receipt = receipt.unwrap().id;
    let line = line_of("a large one", &|line| line["receipt"] == *receipt && line["message"] == "handed out");
    from_here(&line);
    assert_eq!(line["sha256"], hex(&sha256));

    // On the Unix socket, the user.
    let socket = format!("unix://{}", appliance.dir().join("local.sock").display());
    let mut local = SealServiceClient::new(Endpoint::from_shared(socket).unwrap().connect().await.unwrap());
    seal(&mut local).await.unwrap();
    let line = line_of("a local one", &|line| line["client"] == "branch-2");
    assert_eq!(line["peer"], format!("uid:{}", uid.trim()));

    // Who was denied, too: a right, and a place among the clients, also in the middle of a stream.
    seal(&mut digester).await.unwrap_err();
    from_here(&line_of("no right", &|line| line["message"] == "denied" && line["client"] == "digester"));
    let mut goes = Branch::of(&appliance, "goes").connect().await;
    let (send, items) = tokio::sync::mpsc::channel(1);
    send.send(item()).await.unwrap();
    let items = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = goes.seal_stream(items).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let config = appliance.dir().join("muhurdar.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("urn:muhurdar:client:goes", "urn:muhurdar:client:gone")).unwrap();
    appliance.signal("HUP");
    until("it is taken over", || appliance.metric("muhurdar_reloads_total{outcome=\"taken_over\"}") == 1.0).await;
    send.send(item()).await.unwrap();
    answers.message().await.unwrap().unwrap();
    let nobody = |line: &Value| line["message"] == "denied" && line["certificate"] == "uri:urn:muhurdar:client:goes";
    from_here(&line_of("no client", &nobody));
    assert!(!appliance.log().contains("\"denied\""), "they have a place of their own");
}

#[test]
fn an_audit_log_that_cannot_be_opened_is_said_before_a_pin_is_tried() {
    let prepared = service("[log.audit]\nfile = \"nowhere/audit.log\"").prepare();
    let config = prepared.dir().join("muhurdar.toml");
    let output = muhurdar(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64), "{}", output.text);
    assert!(output.text.contains("log.audit.file") && output.text.contains("nowhere"), "{}", output.text);
}
