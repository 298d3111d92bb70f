//! What changes by itself while the service runs: certificates end and their successors begin, lists run out, tokens come back,
//! a key ceremony brings something new. Nobody restarts anything here, and where not said nobody asks for anything to be
//! read again.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1::{
    GetSealRequest, SealLargeHeader, SealLargeRequest, SealState, SealStreamRequest, get_seal_request,
    seal_large_request::Part as Ask, seal_large_response::Part, seal_service_client::SealServiceClient,
    seal_stream_response::Outcome,
};
use muhurdar_tests::{
    Appliance, Branch, Builder, RSA, certify_for, invoice, muhurdar, new_seal, refused, refused_item, revoke_for,
    successor,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

use super::{all_reloads, edit, hang_up};

type Client = SealServiceClient<Channel>;

/// The serial number of the certificate that seals for the taxpayer now, by what the service says of it and by what it does.
async fn serial(client: &mut Client, taxpayer: &str) -> String {
    let shown = Branch::seal_of(client, taxpayer).await;
    assert!(
        shown.state() == SealState::Usable && shown.chosen,
        "{}",
        shown.state_detail
    );
    let sealed = client.seal(Branch::request(taxpayer, invoice(taxpayer, ""))).await;
    let sealed = sealed.unwrap().into_inner().result.unwrap().certificate_serial_number;
    assert_eq!(sealed, shown.certificate_serial_number, "what is shown is what seals");
    sealed
}

/// An appliance with a folder of certificates beside its token.
fn with_a_folder() -> Appliance {
    let prepared = Builder::default()
        .taxpayers(1)
        .edit("[sealing]", "[sealing]\ncertificates = \"seals\"")
        .prepare();
    fs::create_dir(prepared.dir().join("seals")).unwrap();
    prepared.start()
}

/// Brings a certificate that was issued after the one on the token and ends soon. Answers when, and its serial number; it is longer
/// where the machine is so slow that it had ended before anything was sealed with it.
async fn one_that_ends_soon(appliance: &Appliance, client: &mut Client) -> (SystemTime, String) {
    let first = serial(client, RSA).await;
    for seconds in [3, 10, 30] {
        let now = SystemTime::now();
        let end = now + Duration::from_secs(seconds);
        let certificate = successor(appliance.dir(), RSA, &(now - Duration::from_secs(60)..end));
        let (new, path) = (appliance.dir().join("new.crt"), appliance.dir().join("seals/soon.crt"));
        fs::write(&new, certificate).unwrap();
        fs::rename(new, path).unwrap();
        hang_up(appliance).await;
        let soon = serial(client, RSA).await;
        if soon != first {
            return (end, soon);
        }
    }
    panic!("a certificate that was issued later is not used:\n{}", appliance.log());
}

async fn until_past(end: SystemTime) {
    // Certificates end with a second.
    while SystemTime::now() < end + Duration::from_millis(1100) {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn when_a_certificate_ends_the_other_one_seals_without_being_asked() {
    let appliance = with_a_folder();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let first = serial(&mut client, RSA).await;
    let (end, _) = one_that_ends_soon(&appliance, &mut client).await;
    let reloads = all_reloads(&appliance);
    until_past(end).await;
    assert_eq!(serial(&mut client, RSA).await, first);
    assert!(appliance.metric("muhurdar_seal_expiry_days{which=\"soonest\"}") > 300.0);
    let (_, report) = appliance.get("/status.json");
    assert!(report.contains("\"unusable\":0"), "{report}");
    assert_eq!(all_reloads(&appliance), reloads, "nothing was read again");
}

#[tokio::test]
async fn a_large_document_is_sealed_by_what_is_valid_when_it_has_arrived() {
    let appliance = with_a_folder();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let first = serial(&mut client, RSA).await;
    let (end, _) = one_that_ends_soon(&appliance, &mut client).await;
    let (send, requests) = mpsc::channel(4);
    let part = |part| SealLargeRequest { part: Some(part) };
    let header = SealLargeHeader {
        taxpayer: RSA.to_owned(),
        ..SealLargeHeader::default()
    };
    let mut document = Bytes::from(invoice(RSA, ""));
    send.send(part(Ask::Header(header))).await.unwrap();
    send.send(part(Ask::Chunk(document.split_to(100)))).await.unwrap();
    let mut answers = client
        .seal_large(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    until_past(end).await;
    send.send(part(Ask::Chunk(document))).await.unwrap();
    drop(send);
    let Some(Part::Result(result)) = answers.message().await.unwrap().unwrap().part else {
        panic!("the result comes first");
    };
    let result = result.result.unwrap();
    assert_eq!(result.certificate_serial_number, first);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(&result.signing_time));
    assert!(time > end, "sealed at {}", result.signing_time);
}

/// Seconds since 1970 of a time as XML writes it, by date(1).
fn seconds(time: &str) -> u64 {
    let mut date = std::process::Command::new("date");
    let said = muhurdar_tests::Output::of(date.args(["-d", time, "+%s"])).text;
    said.trim().parse().unwrap_or_else(|_| panic!("{time}: {said}"))
}

#[tokio::test]
async fn a_client_certificate_that_ends_ends_its_open_connection_too() {
    let appliance = Builder::default()
        .taxpayers(1)
        .client("till", "taxpayers = [\"*\"]")
        .start();
    let now = SystemTime::now();
    let end = now + Duration::from_secs(3);
    let (certificate, key) = certify_for(
        appliance.dir(),
        appliance.dir(),
        "till",
        &(now - Duration::from_secs(60)..end),
    );
    let mut client = Branch::nobody(&appliance).with(&certificate, &key).connect().await;
    let (send, requests) = mpsc::channel(1);
    let mut answers = client
        .seal_stream(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    let request = || Branch::request(RSA, invoice(RSA, ""));
    let item = || SealStreamRequest {
        id: String::new(),
        request: Some(request()),
    };
    send.send(item()).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap().outcome.unwrap();
    assert!(matches!(answer, Outcome::Response(_)), "while it holds");
    until_past(end).await;
    let status = client.seal(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(refused(&status).message.contains("holds now"), "{status:?}");
    send.send(item()).await.unwrap();
    match answers.message().await.unwrap().unwrap().outcome.unwrap() {
        Outcome::Error(error) => assert_eq!(refused_item(&error).code, Code::Unauthenticated),
        other => panic!("a stream outlives its certificate: {other:?}"),
    }
    let mut other = Branch::of(&appliance, "branch-1").connect().await;
    other.seal(request()).await.expect("another is not touched");
}

#[tokio::test]
async fn a_revocation_list_that_runs_out_is_told_once_and_still_holds() {
    let appliance = Builder::default().taxpayers(1).start();
    let mut stays = Branch::of(&appliance, "branch-1").connect().await;
    let mut goes = Branch::of(&appliance, "branch-2").connect().await;
    let request = || Branch::request(RSA, invoice(RSA, ""));
    goes.seal(request()).await.unwrap();
    let certificate = appliance.dir().join("clients/branch-2.crt");
    let list = appliance.dir().join("revoked.crl");
    revoke_for(appliance.dir(), &[&certificate], &list, Duration::from_secs(4));
    let ca = "client_ca = \"ca.crt\"";
    edit(&appliance, |config| {
        config.replace(ca, &format!("{ca}\ncrl = \"revoked.crl\""))
    });
    hang_up(&appliance).await;
    let told = || appliance.log().matches("past its nextUpdate").count();
    let end = Instant::now() + Duration::from_secs(30);
    while told() == 0 {
        assert!(Instant::now() < end, "{}", appliance.log());
        sleep(Duration::from_millis(50)).await;
    }
    assert!(appliance.metric("muhurdar_client_crl_expiry_days") < 0.0);
    assert!(appliance.metric("muhurdar_server_certificate_expiry_days") > 300.0);
    stays.seal(request()).await.unwrap();
    assert_eq!(goes.seal(request()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut another = Branch::of(&appliance, "branch-1").connect().await;
    another.seal(request()).await.expect("it shuts nobody out");
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(told(), 1, "{}", appliance.log());
}

/// Waits until a taxpayer's document is sealed.
async fn until_sealed(appliance: &Appliance, client: &mut Client, taxpayer: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(status) = client.seal(Branch::request(taxpayer, invoice(taxpayer, ""))).await {
        assert!(Instant::now() < end, "{status:?}\n{}", appliance.log());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_brought_to_a_token_beside_the_service_is_used_and_told() {
    const NEW: &str = "2222222222";
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("[server.tls]", "state_dir = \"state\"\n\n[server.tls]")
        .start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let first = serial(&mut client, RSA).await;
    let status = client.seal(Branch::request(NEW, invoice(NEW, ""))).await.unwrap_err();
    assert_eq!(refused(&status).reason, "SEAL_UNKNOWN");
    let dir = appliance.dir();
    let config = dir.join("muhurdar.toml");
    let import = |config: &Path, file: &Path, more: &[&str]| {
        let [config, file] = [config, file].map(|path| path.to_str().unwrap());
        let said = muhurdar(&[&["token", "import", "--config", config, file], more].concat());
        assert!(said.status.success(), "{}", said.text);
        assert!(said.text.contains("a running service"), "{}", said.text);
    };

    // It is announced, and nobody has to ask.
    let (p12, password) = new_seal(dir, NEW);
    import(&config, &p12, &["--password-file", password.to_str().unwrap()]);
    until_sealed(&appliance, &mut client, NEW).await;
    let log = appliance.log();
    assert!(log.contains(&format!("\"new_keys\":\"{NEW}SIGN0\"")), "{log}");
    assert!(log.contains(&format!("\"new\":\"{NEW} (")), "{log}");

    // Where it is announced elsewhere, SIGHUP is what asks.
    let other = dir.join("other.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &other,
        text.replace("state_dir = \"state\"", "state_dir = \"elsewhere\""),
    )
    .unwrap();
    let now = SystemTime::now();
    let validity = now - Duration::from_secs(60)..now + Duration::from_secs(86_400);
    let file = dir.join("successor.crt");
    fs::write(&file, successor(dir, RSA, &validity)).unwrap();
    import(&other, &file, &["--label", "successor"]);
    assert_eq!(serial(&mut client, RSA).await, first, "nobody has asked");
    hang_up(&appliance).await;
    assert_ne!(serial(&mut client, RSA).await, first, "it was issued later");
}

#[tokio::test]
async fn the_taxpayers_of_a_token_that_was_down_at_the_start_are_there_when_it_is() {
    const ITS_OWN: &str = "2222222222";
    let prepared = Builder::default()
        .taxpayers(1)
        .hsm(2, Duration::from_millis(1))
        .twins()
        .prepare();
    let path = prepared.dir().join("muhurdar.toml");
    let (p12, password) = new_seal(prepared.dir(), ITS_OWN);
    let [config, p12, password] = [&path, &p12, &password].map(|path| path.to_str().unwrap());
    let import = [
        "token",
        "import",
        "--config",
        config,
        "--token",
        "twin",
        "--password-file",
        password,
        p12,
    ];
    let said = muhurdar(&import);
    assert!(said.status.success(), "{}", said.text);
    // The twin begins without its token.
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.rsplit_once("latency 1000").unwrap();
    fs::write(&path, format!("{before}latency 1000;remove muhurdar-dev{after}")).unwrap();
    let appliance = prepared.start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    serial(&mut client, RSA).await;
    for anybody in [ITS_OWN, "3333333333"] {
        let status = client
            .seal(Branch::request(anybody, invoice(anybody, "")))
            .await
            .unwrap_err();
        let refused = refused(&status);
        assert_eq!(
            (status.code(), &*refused.reason),
            (Code::Unavailable, "TOKEN_UNAVAILABLE"),
            "{status:?}"
        );
        assert!(refused.details.retry_info().is_some(), "{status:?}");
        let told = |line: &str| line.contains("no token can sign") && line.contains("twin");
        assert!(appliance.log().lines().any(told), "{}", appliance.log());
        let taxpayer = anybody.to_owned();
        let status = client
            .get_seal(GetSealRequest {
                seal: Some(get_seal_request::Seal::Taxpayer(taxpayer)),
            })
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    // Where the pool starts its process anew meanwhile, it begins without its token again.
    let returns = async {
        loop {
            drop(muhurdar_faulty_token::send(
                &appliance.dir().join("twin.sock"),
                "return muhurdar-dev",
            ));
            sleep(Duration::from_secs(4)).await;
        }
    };
    tokio::select! {
        () = until_sealed(&appliance, &mut client, ITS_OWN) => {}
        () = returns => {}
    }
    let nobody = "3333333333";
    let status = client
        .seal(Branch::request(nobody, invoice(nobody, "")))
        .await
        .unwrap_err();
    assert_eq!(refused(&status).reason, "SEAL_UNKNOWN", "now it is known");
    assert_eq!(all_reloads(&appliance), 0.0);
}
