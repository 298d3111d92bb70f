//! Handshakes that fail: the client is told by an alert, the operator by a line of the log and a metric, each in its own words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use muhurdar_proto::seal::v1::ListSealsRequest;
use muhurdar_tests::{
    Appliance, Branch, Builder, Output, authority, certify, certify_for, frames::Dialer, revoke, turn,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

/// One with a list of those who are revoked.
fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        let ca = "client_ca = \"ca.crt\"";
        let prepared = Builder::default()
            .taxpayers(0)
            .edit(
                "[server.tls]",
                "handshake_timeout = \"1s\"\nmax_connections_per_client = 1\n\n[server.tls]",
            )
            .edit(ca, &format!("{ca}\ncrl = \"revoked.crl\""))
            .prepare();
        let (revoked, _) = certify(prepared.dir(), &prepared.dir().join("clients"), "revoked");
        revoke(prepared.dir(), &[&revoked], &prepared.dir().join("revoked.crl"));
        prepared.start()
    })
}

fn counted(reason: &str) -> f64 {
    appliance().metric(&format!("muhurdar_handshakes_failed_total{{reason=\"{reason}\"}}"))
}

/// Has one handshake fail, and sees it counted under this reason and told in these words.
fn fails(reason: &str, words: &str, attempt: impl FnOnce()) {
    let before = counted(reason);
    let told = |log: &str| log.lines().filter(|line| line.contains(words)).count();
    let lines = told(&appliance().log());
    attempt();
    let end = Instant::now() + PATIENCE;
    while counted(reason) < before + 1.0 || told(&appliance().log()) == lines {
        assert!(
            Instant::now() < end,
            "{reason}: {} counted; {}",
            counted(reason),
            appliance().log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(counted(reason) < before + 1.5, "{reason} is counted once");
}

/// What openssl says that connects with this certificate: of alerts, the number (RFC 8446, section 6).
fn openssl((certificate, key): &(PathBuf, PathBuf), more: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-connect", &appliance().address().to_string()]);
    openssl.arg("-cert").arg(certificate).arg("-key").arg(key).args(more);
    Output::of(&mut openssl).text
}

fn of(name: &str) -> (PathBuf, PathBuf) {
    let clients = appliance().dir().join("clients");
    (clients.join(format!("{name}.crt")), clients.join(format!("{name}.key")))
}

/// A certificate of the appliance's CA that holds from then until then, in days from now.
fn holds(name: &str, days: std::ops::Range<i32>) -> (PathBuf, PathBuf) {
    let at = |days: i32| match u32::try_from(days) {
        Ok(days) => SystemTime::now() + DAY * days,
        Err(_) => SystemTime::now() - DAY * days.unsigned_abs(),
    };
    let dir = appliance().dir();
    certify_for(dir, &dir.join("clients"), name, &(at(days.start)..at(days.end)))
}

#[tokio::test]
async fn a_client_certificate_that_does_not_do_is_refused_with_the_alert_that_says_why() {
    let _turn = turn().await;
    let elsewhere = tempfile::tempdir().unwrap();
    authority(elsewhere.path());
    let unknown = certify(elsewhere.path(), elsewhere.path(), "branch-1");
    for (reason, words, alert, client) in [
        ("certificate_expired", "has ended at 2", 45, holds("late", -3..-1)),
        (
            "certificate_not_yet_valid",
            "not valid before 2",
            45,
            holds("early", 1..3),
        ),
        ("certificate_revoked", "is revoked (server.tls.crl)", 44, of("revoked")),
        ("unknown_authority", "by nobody in server.tls.client_ca", 48, unknown),
    ] {
        fails(reason, words, || {
            let said = openssl(&client, &["-alpn", "h2"]);
            assert!(said.contains(&format!("alert number {alert}")), "{reason}: {said}");
        });
    }
}

/// With TLS 1.3 a client may speak before its certificate was looked at: what it says must not cost it the alert.
#[tokio::test]
async fn one_who_speaks_at_once_reads_the_alert_all_the_same() {
    let _turn = turn().await;
    holds("hasty", -3..-1);
    let mut stream = Dialer::of(appliance(), "hasty").dial().await.unwrap();
    for _ in 0..3 {
        stream.write_all(&[b'x'; 1000]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = stream.read(&mut [0; 1]).await.unwrap_err();
    assert!(said.to_string().contains("CertificateExpired"), "{said:?}");
}

#[tokio::test]
async fn one_who_has_nothing_in_common_with_the_service_is_told_so() {
    let _turn = turn().await;
    fails(
        "no_common_version",
        "TLS 1.2 only, which is taken where server.tls.allow_tls12",
        || {
            let said = openssl(&of("branch-1"), &["-tls1_2"]);
            assert!(said.contains("alert number 70"), "{said}");
        },
    );
    fails("no_common_parameters", "nothing in common", || {
        let said = openssl(&of("branch-1"), &["-alpn", "http/1.1"]);
        assert!(said.contains("alert number 120"), "{said}");
    });
    fails("not_tls", "does not speak TLS", || {
        let mut stream = TcpStream::connect(appliance().address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).unwrap();
        assert_eq!(alert.first(), Some(&21), "a TLS alert: {alert:?}");
    });
}

#[tokio::test]
async fn one_who_does_not_take_the_servers_certificate_is_told_from_one_who_goes_away() {
    let _turn = turn().await;
    let elsewhere = tempfile::tempdir().unwrap();
    authority(elsewhere.path());
    let other = elsewhere.path().join("ca.crt");
    fails(
        "server_untrusted",
        "does not take the server's certificate: it does not know the authority",
        || {
            let said = openssl(
                &of("branch-1"),
                &["-verify_return_error", "-CAfile", other.to_str().unwrap()],
            );
            assert!(
                said.contains("verify failed") || said.contains("verify error"),
                "{said}"
            );
        },
    );
    fails("closed", "the client closed the connection", || {
        drop(TcpStream::connect(appliance().address()).unwrap());
    });
    fails("timed_out", "longer than 1s (server.handshake_timeout)", || {
        let mut stream = TcpStream::connect(appliance().address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    });
}

#[tokio::test]
async fn one_for_whom_there_is_no_place_is_counted_too() {
    let _turn = turn().await;
    let mut first = Branch::of(appliance(), "branch-1").connect().await;
    first.list_seals(ListSealsRequest::default()).await.unwrap();
    tokio::task::spawn_blocking(|| {
        fails("turned_away", "as many as one client may have", || {
            drop(openssl(&of("branch-1"), &["-alpn", "h2"]));
        });
    })
    .await
    .unwrap();
    first.list_seals(ListSealsRequest::default()).await.unwrap();
}

#[test]
fn every_reason_is_there_from_the_start() {
    let appliance = Builder::default().taxpayers(0).start();
    let metrics = appliance.get("/metrics").1;
    let reasons = metrics
        .lines()
        .filter(|line| line.starts_with("muhurdar_handshakes_failed_total{"));
    assert!(reasons.clone().all(|line| line.ends_with(" 0")), "{metrics}");
    assert_eq!(reasons.count(), 14);
}
