//! Peers that mean no good, or do not know better: they are let go of, and nobody else notices. A crowd is in everybody's way
//! until it is let go, so each test has its turn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::ListSealsRequest;
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, turn};

const PATIENCE: Duration = Duration::from_secs(1);

fn appliance() -> &'static Appliance {
    static SHARED: OnceLock<Appliance> = OnceLock::new();
    SHARED.get_or_init(|| {
        Builder::default()
            .taxpayers(1)
            .edit(
                "[server.tls]",
                "handshake_timeout = \"1s\"\nmax_connections = 100\nmax_connections_per_client = 5\n\n[server.tls]",
            )
            .client("crowd", "taxpayers = [\"*\"]")
            .start()
    })
}

async fn it_still_seals() {
    it_seals(appliance()).await;
}

async fn it_seals(appliance: &Appliance) {
    let mut client = Branch::of(appliance, "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
}

/// Waits until the other end has closed, and says how long that took.
fn time_until_closed(stream: &mut TcpStream) -> Duration {
    let since = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut sink = [0; 1024];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return since.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return since.elapsed(),
            Err(error) => panic!("still open after {:?}: {error}", since.elapsed()),
        }
    }
}

#[tokio::test]
async fn one_who_says_nothing_or_drips_is_let_go_after_the_handshake_time() {
    let _turn = turn().await;
    let address = appliance().address();
    let silent = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        time_until_closed(&mut stream)
    });
    let dripping = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        // The first bytes of a ClientHello, one at a time.
        std::thread::spawn(move || {
            for byte in [0x16, 0x03, 0x01, 0x02, 0x00]
                .iter()
                .chain(std::iter::repeat_n(&1, 100))
            {
                if writer.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        time_until_closed(&mut stream)
    });
    for time in [silent.await.unwrap(), dripping.await.unwrap()] {
        assert!(time < PATIENCE * 5, "{time:?}");
    }
    it_still_seals().await;
}

/// `openssl s_client` with branch-1's certificate, whose input is ours.
fn tls_client() -> Child {
    let dir = appliance().dir();
    Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-alpn",
            "h2",
            "-connect",
            &appliance().address().to_string(),
        ])
        .arg("-cert")
        .arg(dir.join("clients/branch-2.crt"))
        .arg("-key")
        .arg(dir.join("clients/branch-2.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn time_until_ended(mut child: Child) -> Duration {
    let since = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return since.elapsed();
        }
        if since.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("its connection stays open");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn one_who_has_a_certificate_and_speaks_no_http2_is_let_go_too() {
    let _turn = turn().await;
    let silent = tls_client();
    let mut half = tls_client();
    half.stdin.as_mut().unwrap().write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    let mut malformed = tls_client();
    malformed.stdin.as_mut().unwrap().write_all(&[b'x'; 4096]).unwrap();
    for child in [silent, half, malformed] {
        let time = tokio::task::spawn_blocking(move || time_until_ended(child))
            .await
            .unwrap();
        assert!(time < PATIENCE * 5, "{time:?}");
    }
    it_still_seals().await;
}

#[tokio::test]
async fn one_client_cannot_take_the_connections_of_all() {
    let _turn = turn().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = Branch::of(appliance(), "crowd").connect().await;
        client.list_seals(ListSealsRequest::default()).await.unwrap();
        held.push(client);
    }
    let mut refused = 0;
    for _ in 0..3 {
        let more = Branch::of(appliance(), "crowd").try_connect().await;
        let served = match more {
            Err(_) => false,
            Ok(channel) => {
                let mut client = muhurdar_proto::seal::v1::seal_service_client::SealServiceClient::new(channel);
                client.list_seals(ListSealsRequest::default()).await.is_ok()
            }
        };
        refused += usize::from(!served);
    }
    assert_eq!(refused, 3);
    it_still_seals().await;
    held.pop();
    // The place is free once the server has seen the connection end.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let channel = Branch::of(appliance(), "crowd").try_connect().await;
        if let Ok(channel) = channel {
            let mut client = muhurdar_proto::seal::v1::seal_service_client::SealServiceClient::new(channel);
            if client.list_seals(ListSealsRequest::default()).await.is_ok() {
                break;
            }
        }
        assert!(Instant::now() < end, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_crowd_at_the_door_is_turned_away_and_leaves_no_trace() {
    let _turn = turn().await;
    let address = appliance().address();
    // More than max_connections, none of whom says anything.
    let crowd: Vec<_> = (0..300).filter_map(|_| TcpStream::connect(address).ok()).collect();
    assert!(crowd.len() > 200);
    tokio::time::sleep(PATIENCE * 2).await;
    it_still_seals().await;
    drop(crowd);
}

/// What the admin listener answers to a GET by this name; nothing where it does not answer for long.
fn admin(appliance: &Appliance, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(appliance.admin_address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    drop(stream.write_all(request.as_bytes()));
    drop(stream.read_to_string(&mut answer));
    answer
}

#[tokio::test]
async fn idle_connections_leave_descriptors_for_the_service_and_its_probes() {
    let _turn = turn().await;
    let appliance = Builder::default()
        .taxpayers(1)
        .limit("-n 400")
        .edit("[server.tls]", "handshake_timeout = \"1s\"\n\n[server.tls]")
        .start();
    let open = |address, count| -> Vec<_> { (0..count).filter_map(|_| TcpStream::connect(address).ok()).collect() };
    // Each crowd alone is more than there are descriptors.
    let at_the_admin_listener = open(appliance.admin_address(), 450);
    assert!(admin(&appliance, "/healthz", "localhost").starts_with("HTTP/1.1 200"));
    it_seals(&appliance).await;
    let at_the_service = open(appliance.address(), 450);
    assert!(admin(&appliance, "/metrics", "localhost").starts_with("HTTP/1.1 200"));
    it_seals(&appliance).await;
    for mut stream in at_the_admin_listener {
        time_until_closed(&mut stream);
    }
    drop(at_the_service);
    let log = appliance.log();
    assert!(log.contains("leave room for"), "{log}");
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[tokio::test]
async fn who_was_led_to_the_admin_listener_by_another_name_reads_nothing() {
    let _turn = turn().await;
    for path in ["/", "/status.json", "/metrics"] {
        let answer = admin(appliance(), path, "evil.example");
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert!(
            answer.contains("server.admin_hosts") && !answer.contains("muhurdar_"),
            "{answer}"
        );
        let address = appliance().admin_address().to_string();
        assert!(admin(appliance(), path, &address).starts_with("HTTP/1.1 200"));
    }
    assert!(admin(appliance(), "/readyz", "whatever.the.prober.calls.it").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn strangers_do_not_fill_the_log_and_what_was_left_out_is_counted() {
    const STRANGERS: usize = 400;
    let _turn = turn().await;
    let appliance = Builder::default().taxpayers(1).start();
    for _ in 0..STRANGERS {
        let mut stream = TcpStream::connect(appliance.address()).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        time_until_closed(&mut stream);
    }
    it_seals(&appliance).await;
    appliance.signal("TERM");
    assert_eq!(appliance.exit_code_within(Duration::from_secs(30)), Some(0));
    let log = appliance.log();
    let lines = log.lines().filter(|line| line.contains("TLS handshake failed"));
    let (told, each): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains("left out"));
    // Sixty a minute, and one of these minutes may have ended meanwhile.
    assert!(each.len() == 60 || each.len() == 120, "{} lines", each.len());
    let count = |line: &str| -> usize {
        let (_, rest) = line.split_once("count").unwrap();
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(
        told.iter().map(|line| count(line)).sum::<usize>(),
        STRANGERS - each.len(),
        "{told:?}"
    );
}
