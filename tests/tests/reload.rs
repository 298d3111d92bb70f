//! A service that is changed while it works: configuration, clients, certificates, revocations. Nothing is lost, and what is
//! wrong is not taken over. What changes without anybody doing anything is in `time`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{
    ListSealsRequest, SealRequest, SealStreamRequest, seal_service_client::SealServiceClient,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Branch, Builder, Output, RSA, certify, invoice, muhurdar, refused, refused_item, renew_server, revoke,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Endpoint};

#[path = "reload/time.rs"]
mod time;

fn reloads(appliance: &Appliance, outcome: &str) -> f64 {
    appliance.metric(&format!("muhurdar_reloads_total{{outcome=\"{outcome}\"}}"))
}

fn all_reloads(appliance: &Appliance) -> f64 {
    ["taken_over", "unchanged", "refused"]
        .iter()
        .map(|outcome| reloads(appliance, outcome))
        .sum()
}

/// Sends SIGHUP and waits until it was acted upon.
async fn hang_up(appliance: &Appliance) {
    let before = all_reloads(appliance);
    appliance.signal("HUP");
    let end = Instant::now() + Duration::from_secs(20);
    while all_reloads(appliance) == before {
        assert!(Instant::now() < end, "SIGHUP does nothing:\n{}", appliance.log());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Changes the configuration in one step, as an editor does.
fn edit(appliance: &Appliance, change: impl Fn(String) -> String) {
    let (path, new) = (appliance.dir().join("muhurdar.toml"), appliance.dir().join("new.toml"));
    fs::write(&new, change(fs::read_to_string(&path).unwrap())).unwrap();
    fs::rename(new, path).unwrap();
}

fn serial_of_server(appliance: &Appliance) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &appliance.address().to_string(), "-alpn", "h2"]);
    let shown = Output::of(&mut openssl).text;
    let begin = shown.find("-----BEGIN").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shown.crt");
    fs::write(&file, &shown[begin..]).unwrap();
    Output::of(
        Command::new("openssl")
            .args(["x509", "-noout", "-serial", "-in"])
            .arg(file),
    )
    .text
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_with_new_certificates_lose_no_request_and_drop_no_connection() {
    let appliance = Builder::default().taxpayers(1).start();
    let first = serial_of_server(&appliance);
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let mut unary = client.clone();
    let over = Arc::new(AtomicBool::new(false));

    let (send, requests) = mpsc::channel(16);
    let mut answers = client
        .seal_stream(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    let sent = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut sent = 0_usize;
            while !over.load(Ordering::Relaxed) {
                let request = Some(Branch::request(RSA, invoice(RSA, "")));
                let id = sent.to_string();
                send.send(SealStreamRequest { id, request }).await.unwrap();
                sent += 1;
            }
            sent
        }
    });
    let answered = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let answered = Arc::clone(&answered);
        async move {
            while let Some(answer) = answers.message().await.unwrap() {
                match answer.outcome.unwrap() {
                    Outcome::Response(_) => answered.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other:?}"),
                };
            }
        }
    });
    let calling = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            while !over.load(Ordering::Relaxed) {
                unary.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
            }
        }
    });
    for n in 0..20 {
        renew_server(appliance.dir());
        edit(&appliance, |config| {
            let config = config.split("\n[limits]").next().unwrap().to_owned();
            format!("{config}\n[limits]\nqueue = {}\n", 500 + n)
        });
        hang_up(&appliance).await;
    }
    over.store(true, Ordering::Relaxed);
    calling.await.unwrap();
    let sent = sent.await.unwrap();
    reading.await.unwrap();
    assert_eq!(answered.load(Ordering::Relaxed), sent, "each is answered");
    assert!(sent > 100, "{sent} sent");
    assert!(reloads(&appliance, "taken_over") >= 20.0, "{}", appliance.log());
    assert_eq!(reloads(&appliance, "refused"), 0.0);
    assert_ne!(
        serial_of_server(&appliance),
        first,
        "a new connection sees the new certificate"
    );
    Branch::of(&appliance, "branch-1").connect().await;
}

#[tokio::test]
async fn clients_rights_and_quotas_change_for_connections_that_are_open() {
    let appliance = Builder::default().taxpayers(1).start();
    let (certificate, key) = certify(appliance.dir(), appliance.dir(), "late");
    let mut late = Branch::nobody(&appliance).with(&certificate, &key).connect().await;
    let request = || Branch::request(RSA, invoice(RSA, ""));
    let status = late.seal(request()).await.unwrap_err();
    assert_eq!(refused(&status).reason, "ACCESS");

    let client = "\n[[client]]\nname = \"late\"\nidentity = \"uri:urn:muhurdar:client:late\"\ntaxpayers = [\"*\"]\n";
    edit(&appliance, |config| config + client);
    hang_up(&appliance).await;
    late.seal(request()).await.expect("known now, on the same connection");

    // A stream that is open does not outlive its rights.
    let (send, requests) = mpsc::channel(1);
    let mut answers = late
        .seal_stream(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    let item = || SealStreamRequest {
        id: String::new(),
        request: Some(request()),
    };
    send.send(item()).await.unwrap();
    assert!(matches!(
        answers.message().await.unwrap().unwrap().outcome.unwrap(),
        Outcome::Response(_)
    ));

    let quota = "[client.quota]\ndocuments_per_second = 1\nburst = 2\n";
    edit(&appliance, |config| config + quota);
    hang_up(&appliance).await;
    late.seal(request()).await.unwrap();
    late.seal(request()).await.unwrap();
    assert_eq!(refused(&late.seal(request()).await.unwrap_err()).reason, "QUOTA");

    edit(&appliance, |config| config.replace(client, "").replace(quota, ""));
    hang_up(&appliance).await;
    assert_eq!(refused(&late.seal(request()).await.unwrap_err()).reason, "ACCESS");
    send.send(item()).await.unwrap();
    match answers.message().await.unwrap().unwrap().outcome.unwrap() {
        Outcome::Error(error) => assert_eq!(refused_item(&error).reason, "ACCESS"),
        other => panic!("one that was removed is served: {other:?}"),
    }
    let log = appliance.log();
    for said in ["client late new", "client late changed", "client late removed"] {
        assert!(log.contains(said), "{said}:\n{log}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_not_taken_over_and_what_needs_a_restart_is_said() {
    let appliance = Builder::default().taxpayers(1).start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let good = fs::read_to_string(appliance.dir().join("muhurdar.toml")).unwrap();
    let secret = "gizli-4711";
    let broken = [
        good.replace("unnamed_sealer", "unamed_sealer"),
        good.clone() + "\n[limits]\nqueue = 0\n",
        good.replace("server.key", "clients/branch-1.key"),
        good.replace("client_ca = \"ca.crt\"", &format!("client_ca = \"{secret}.crt\"")),
        good.replace("client_ca = \"ca.crt\"", "client_ca = \"ca.crt\"\ncrl = \"ca.crt\""),
        String::new(),
    ];
    for (n, text) in broken.into_iter().enumerate() {
        // Together with something that could be taken over: all or nothing.
        let text = text.replace("name = \"branch-1\"", "name = \"renamed\"");
        edit(&appliance, |_| text.clone());
        hang_up(&appliance).await;
        #[allow(clippy::cast_precision_loss)]
        let refusals = n as f64 + 1.0;
        assert!(
            reloads(&appliance, "refused") >= refusals,
            "{text}\n{}",
            appliance.log()
        );
        let answer = client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
        assert_eq!(answer.into_inner().result.unwrap().receipt.unwrap().client, "branch-1");
    }
    let listens = format!("admin_listen = \"{}\"", appliance.admin_address());
    edit(&appliance, |_| {
        let moved = good.replace("admin_listen = \"127.0.0.1:0\"", "admin_listen = \"127.0.0.1:1\"");
        assert_ne!(moved, good, "{listens}: {good}");
        moved.replace("sessions = ", "sessions = 1")
    });
    hang_up(&appliance).await;
    let log = appliance.log();
    assert!(log.contains("server.admin_listen, token"), "{log}");
    assert!(
        !log.contains("648219") && !log.contains("BEGIN"),
        "no secret in the log"
    );
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
}

#[tokio::test]
async fn a_file_that_never_ends_is_refused_and_the_next_reload_is_taken_over() {
    let appliance = Builder::default().taxpayers(1).start();
    let (list, aside) = (appliance.dir().join("server.crt"), appliance.dir().join("aside.crt"));
    fs::rename(&list, &aside).unwrap();
    assert!(Command::new("mkfifo").arg(&list).status().unwrap().success());
    hang_up(&appliance).await;
    assert_eq!(reloads(&appliance, "refused"), 1.0, "{}", appliance.log());
    fs::rename(&aside, &list).unwrap();
    edit(&appliance, |config| {
        config.replace("name = \"branch-1\"", "name = \"renamed\"")
    });
    hang_up(&appliance).await;
    assert_eq!(reloads(&appliance, "taken_over"), 1.0, "{}", appliance.log());
}

#[tokio::test]
async fn a_file_that_changes_is_read_without_being_asked() {
    let appliance = Builder::default().taxpayers(1).start();
    let first = serial_of_server(&appliance);
    renew_server(appliance.dir());
    let end = Instant::now() + Duration::from_secs(30);
    while reloads(&appliance, "taken_over") == 0.0 {
        assert!(Instant::now() < end, "{}", appliance.log());
        sleep(Duration::from_millis(100)).await;
    }
    assert_ne!(serial_of_server(&appliance), first);
    // Nothing more happens by itself.
    let settled = all_reloads(&appliance);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(all_reloads(&appliance), settled, "{}", appliance.log());
}

#[tokio::test]
async fn a_revoked_client_is_refused_on_its_open_connection_and_gets_no_new_one() {
    let appliance = Builder::default().taxpayers(1).start();
    let mut stays = Branch::of(&appliance, "branch-1").connect().await;
    let mut goes = Branch::of(&appliance, "branch-2").connect().await;
    let request = || Branch::request(RSA, invoice(RSA, ""));
    goes.seal(request()).await.unwrap();
    let certificate = appliance.dir().join("clients/branch-2.crt");
    revoke(appliance.dir(), &[&certificate], &appliance.dir().join("revoked.crl"));
    let ca = "client_ca = \"ca.crt\"";
    edit(&appliance, |config| {
        config.replace(ca, &format!("{ca}\ncrl = \"revoked.crl\""))
    });
    hang_up(&appliance).await;
    assert!(appliance.log().contains("\"revoked_clients\":1"), "{}", appliance.log());
    assert_eq!(goes.seal(request()).await.unwrap_err().code(), Code::Unauthenticated);
    stays.seal(request()).await.expect("another is not touched");
    if let Ok(channel) = Branch::of(&appliance, "branch-2").try_connect().await {
        let status = SealServiceClient::new(channel)
            .list_seals(ListSealsRequest::default())
            .await
            .unwrap_err();
        assert!(
            !matches!(status.code(), Code::Ok | Code::PermissionDenied),
            "{status:?}"
        );
    }
    Branch::of(&appliance, "branch-1")
        .connect()
        .await
        .seal(request())
        .await
        .unwrap();
    let config = appliance.dir().join("muhurdar.toml");
    let checked = muhurdar(&["check", "--config", config.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", checked.text);

    // Without the list it is let in again: a connection is looked at by what holds now.
    edit(&appliance, |config| config.replace("\ncrl = \"revoked.crl\"", ""));
    hang_up(&appliance).await;
    goes.seal(request()).await.unwrap();
}

#[tokio::test]
async fn a_process_of_this_machine_is_known_by_its_user_on_the_unix_socket() {
    let uid = Output::of(Command::new("id").arg("-u")).text;
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("[server.tls]", "unix_socket = \"local.sock\"\n\n[server.tls]")
        .edit("uri:urn:muhurdar:client:branch-2", &format!("uid:{}", uid.trim()))
        .start();
    let socket = appliance.dir().join("local.sock");
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let answer = SealServiceClient::new(channel)
        .seal(Branch::request(RSA, invoice(RSA, "")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.result.unwrap().receipt.unwrap().client, "branch-2");
}

/// An answer that is kept for a key is given on the same rights as it was made.
#[tokio::test]
async fn an_answer_of_earlier_days_is_not_given_where_the_right_to_it_was_taken_away() {
    let appliance = Builder::default()
        .taxpayers(1)
        .client("till", "taxpayers = [\"*\"]\ndocuments = [\"invoice\"]")
        .start();
    let mut client = Branch::of(&appliance, "till").connect().await;
    let request = SealRequest {
        idempotency_key: "one".to_owned(),
        ..Branch::request(RSA, invoice(RSA, ""))
    };
    let first = client.seal(request.clone()).await.unwrap().into_inner();
    let again = client.seal(request.clone()).await.unwrap().into_inner();
    assert_eq!(again.answer, first.answer);
    for (documents, allowed) in [("despatch-advice", false), ("invoice", true)] {
        edit(&appliance, |text| {
            let at = text.rfind("documents = [").unwrap();
            format!("{}documents = [\"{documents}\"]\n", &text[..at])
        });
        hang_up(&appliance).await;
        let again = client.seal(request.clone()).await;
        match again {
            Ok(again) if allowed => assert_eq!(again.into_inner().answer, first.answer),
            Err(status) if !allowed => assert_eq!(refused(&status).reason, "ACCESS"),
            other => panic!("{documents}: {other:?}"),
        }
    }
    let denied = "muhurdar_seals_total{document=\"unknown\",outcome=\"ACCESS\"}";
    assert_eq!(appliance.metric(denied), 1.0, "counted like any other");
}
