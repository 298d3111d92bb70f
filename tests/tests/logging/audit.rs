//! The audit log in a place of its own, and what its lines say.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    DigestAlgorithm, SealLargeHeader, SealLargeRequest, SealStreamRequest, SignDigestRequest,
    seal_large_request::Part as Ask, seal_large_response::Part, seal_service_client::SealServiceClient,
};
use muhurdar_tests::{Branch, Output, RSA, invoice, muhurdar};
use serde_json::Value;
use tonic::transport::Endpoint;

use super::{LOST_FAILED, LOST_FULL, MANY, PATIENCE, seal, seal_many, service, until};

/// The lines of an audit log and of those before it, each of which must be whole.
fn audit_lines(folder: &Path) -> Vec<Value> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.map(|file| fs::read_to_string(file).unwrap());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
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
    assert!(
        !appliance.log().contains("\"sealed\""),
        "they have a place of their own"
    );

    fs::remove_file(&file).unwrap();
    appliance.signal("HUP");
    let lines = || {
        if file.exists() {
            audit_lines(&folder)
        } else {
            Vec::new()
        }
    };
    until("they are there", || lines().len() >= sealed.len()).await;
    let lines = lines();
    assert_eq!(lines.len(), sealed.len(), "each once");
    for sealed in sealed {
        let sealed = sealed.result.unwrap();
        let line = lines
            .iter()
            .find(|line| line["receipt"] == sealed.receipt.as_ref().unwrap().id);
        let line = line.unwrap_or_else(|| panic!("{sealed:?}"));
        assert_eq!(line["sha256"], hex(&sealed.sealed_document_sha256));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert_eq!(
            (&line["target"], &line["taxpayer"]),
            (&"muhurdar::audit".into(), &RSA.into())
        );
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "taxpayers' numbers are in it");
    assert_eq!((appliance.metric(LOST_FULL), appliance.metric(LOST_FAILED)), (0.0, 0.0));
    until("it is told that it goes on", || {
        appliance.log().contains("the log is written again")
    })
    .await;
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
    let sealed = flood
        .await
        .unwrap()
        .into_iter()
        .map(|outcome| outcome.unwrap().result.unwrap().receipt.unwrap().id);
    let sealed: BTreeSet<_> = sealed.collect();
    until("the last are written", || {
        appliance.metric("muhurdar_log_queued_bytes{log=\"audit\"}") == 0.0
    })
    .await;
    let lines = audit_lines(&folder);
    let receipts: BTreeSet<_> = lines
        .iter()
        .map(|line| line["receipt"].as_str().unwrap().to_owned())
        .collect();
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
    let from_here = |line: &Value| {
        assert!(
            line["peer"].as_str().is_some_and(|p| p.starts_with("127.0.0.1:")),
            "{line}"
        );
    };

    // Where only a digest was shown there is no file.
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let mut digester = Branch::of(&appliance, "digester").connect().await;
    let request = SignDigestRequest {
        taxpayer: RSA.to_owned(),
        // The only taxpayer has an EC P-384 key.
        digest: vec![7; 48].into(),
        digest_algorithm: DigestAlgorithm::Sha384.into(),
        certificate_sha256: Branch::seal_of(&mut client, RSA).await.id,
        ..SignDigestRequest::default()
    };
    let signed = digester.sign_digest(request).await.unwrap().into_inner();
    let receipt = signed.result.unwrap().receipt.unwrap();
    let line = line_of("a digest", &|line| line["receipt"] == receipt.id);
    from_here(&line);
    assert_eq!(line.get("sha256"), None, "{line}");

    // In a stream, each item is in a task of its own.
    let item = || SealStreamRequest {
        id: String::new(),
        request: Some(Branch::request(RSA, invoice(RSA, ""))),
    };
    let mut answers = client
        .seal_stream(tokio_stream::iter([item()]))
        .await
        .unwrap()
        .into_inner();
    answers.message().await.unwrap().unwrap();
    from_here(&line_of("a stream", &|line| {
        line["client"] == "branch-1" && line["message"] == "sealed"
    }));

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
            Part::Result(first) => receipt = first.result.unwrap().receipt,
            Part::Chunk(_) => {}
            Part::End(end) => sha256 = end.sealed_document_sha256,
        }
    }
    let receipt = receipt.unwrap().id;
    let line = line_of("a large one", &|line| {
        line["receipt"] == *receipt && line["message"] == "handed out"
    });
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
    from_here(&line_of("no right", &|line| {
        line["message"] == "denied" && line["client"] == "digester"
    }));
    let mut goes = Branch::of(&appliance, "goes").connect().await;
    let (send, items) = tokio::sync::mpsc::channel(1);
    send.send(item()).await.unwrap();
    let items = tokio_stream::wrappers::ReceiverStream::new(items);
    let mut answers = goes.seal_stream(items).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let config = appliance.dir().join("muhurdar.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("urn:muhurdar:client:goes", "urn:muhurdar:client:gone"),
    )
    .unwrap();
    appliance.signal("HUP");
    until("it is taken over", || {
        appliance.metric("muhurdar_reloads_total{outcome=\"taken_over\"}") == 1.0
    })
    .await;
    send.send(item()).await.unwrap();
    answers.message().await.unwrap().unwrap();
    let nobody = |line: &Value| line["message"] == "denied" && line["certificate"] == "uri:urn:muhurdar:client:goes";
    from_here(&line_of("no client", &nobody));
    assert!(
        !appliance.log().contains("\"denied\""),
        "they have a place of their own"
    );
}

#[test]
fn an_audit_log_that_cannot_be_opened_is_said_at_the_start_and_by_check() {
    let prepared = service("[log.audit]\nfile = \"nowhere/audit.log\"").prepare();
    let config = prepared.dir().join("muhurdar.toml");
    for (command, code) in [("serve", 64), ("check", 1)] {
        let output = muhurdar(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{}", output.text);
        let says = |text: &str| output.text.contains(text);
        assert!(says("log.audit.file") && says("nowhere"), "{}", output.text);
    }
}
