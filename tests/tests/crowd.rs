//! Many at the door at once: what is too much is refused, what says nothing is let go of, and who is served goes on being
//! served. Each test prints its figures (`--nocapture`), and has its turn: what they take is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use muhurdar_tests::{Appliance, Builder, Memory, Neighbour, frames::Dialer, skipped, turn};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

const CROWD: usize = 10_000;
/// `server.max_connections` where nothing is said.
const MOST: usize = 4096;
const IDLE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(2);
/// Descriptors of this process and of the service beside those of the crowd.
const OTHER_DESCRIPTORS: usize = 500;
/// Connections that are being made at a time: fewer than a listener's backlog, beyond which TCP waits for a second.
const AT_A_TIME: usize = 256;
/// Handshakes under way at a time: each takes this machine's CPU twice.
const HANDSHAKES: usize = 16;

/// One for each test: memory that one has made it ask for and give back is no figure of another's.
fn appliance() -> Appliance {
    Builder::default()
        .taxpayers(1)
        .edit(
            "[server.tls]",
            "handshake_timeout = \"2s\"\nmax_connections_per_client = 2000\n\n[server.tls]",
        )
        .client("idler", "taxpayers = [\"*\"]")
        .start()
}

/// As many of `wanted` connections as descriptors allow here and in the service.
fn as_many_as_may_be(appliance: &Appliance, wanted: usize) -> usize {
    let here = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", appliance.pid())).unwrap();
    let there = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let there = there.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let most = usize::try_from(here.min(there.unwrap_or(u64::MAX))).unwrap();
    let possible = most.saturating_sub(OTHER_DESCRIPTORS).min(wanted);
    if possible < wanted {
        skipped(&format!(
            "{possible} connections in place of {wanted}: {most} descriptors are allowed (ulimit -n)"
        ));
    }
    possible
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn mib(now: u64, before: u64) -> f64 {
    now.saturating_sub(before) as f64 / f64::from(1 << 20)
}

/// Connects from one of a few loopback addresses, so that the ports of none run out, says one byte of a ClientHello and no
/// more, and tells how long it was let. (The byte is for TCP: where a listener's queue was full, only one who has something to
/// say finds out that it was never let in.)
async fn say_little(address: SocketAddr, number: usize, door: &Semaphore) -> Option<Duration> {
    let one_at_a_time = door.acquire().await.unwrap();
    let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number % 4).unwrap());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    let stream = socket.connect(address).await;
    drop(one_at_a_time);
    let since = Instant::now();
    // One that is closed before it is looked at was refused too.
    let Ok(mut stream) = stream else {
        return Some(Duration::ZERO);
    };
    drop(stream.write_all(&[0x16]).await);
    let closed = tokio::time::timeout(PATIENCE * 10, stream.read(&mut [0; 64])).await;
    closed.ok().map(|_| since.elapsed())
}

/// A crowd that comes, and is gone when this returns: how long each of it was let, where it was not for ever.
async fn come_and_go(address: SocketAddr, crowd: usize) -> Vec<Option<Duration>> {
    let door = Arc::new(Semaphore::new(AT_A_TIME));
    let mut peers = JoinSet::new();
    for number in 0..crowd {
        let door = Arc::clone(&door);
        peers.spawn(async move { say_little(address, number, &door).await });
    }
    peers.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_who_say_little_are_refused_or_let_go_of_while_a_client_is_served() {
    let _turn = turn().await;
    let appliance = appliance();
    let crowd = as_many_as_may_be(&appliance, CROWD);
    let neighbour = Neighbour::of(&appliance, "branch-1").await;
    let (before, begun) = (appliance.memory().resident, Instant::now());
    let times = come_and_go(appliance.address(), crowd).await;
    let took = begun.elapsed();
    let first = appliance.memory().peak;
    // What the allocator keeps of the first crowd's memory is enough for a second.
    let again = come_and_go(appliance.address(), crowd).await;
    let latencies = neighbour.end().await;
    let Memory { resident, peak, .. } = appliance.memory();

    let refused = |times: &[Option<Duration>]| times.iter().flatten().filter(|time| **time < PATIENCE / 2).count();
    println!(
        "{crowd} connections: {} refused at once, the rest gone after {:.1?} at most, all within {took:.1?}; RSS +{:.1} MiB at \
         the most, after as many again +{:.1} MiB, and +{:.1} MiB in the end; meanwhile {} sealed, p50 {:.1?}, p99 {:.1?}, \
         longest {:.1?}",
        refused(&times),
        times.iter().flatten().max().unwrap(),
        mib(first, before),
        mib(peak, before),
        mib(resident, before),
        latencies.count(),
        latencies.percentile(50),
        latencies.percentile(99),
        latencies.longest(),
    );
    for times in [times, again] {
        let stay = times.iter().filter(|time| time.is_none()).count();
        assert_eq!(stay, 0, "still open after ten times the handshake's time");
        // Places that come free before the last has come are taken anew, so that less than the rest is refused.
        let refused = refused(&times);
        assert!(refused >= crowd.saturating_sub(MOST) / 2, "{refused} refused");
    }
    assert!(mib(first, before) < 160.0, "memory for {MOST} handshakes");
    assert!(
        mib(peak, first) < 40.0,
        "what a crowd has taken is not there for the next"
    );
    assert!(latencies.longest() < PATIENCE * 3, "a client had to wait");
    // Those who come afterwards find the door as it was.
    Neighbour::of(&appliance, "branch-2").await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stalls_in_a_handshake_keeps_nobody_out() {
    const PLACES: usize = 64;
    let _turn = turn().await;
    let appliance = Builder::default()
        .taxpayers(1)
        .edit(
            "[server.tls]",
            &format!("handshake_timeout = \"1h\"\nmax_connections = {PLACES}\n\n[server.tls]"),
        )
        .start();
    let served = Neighbour::of(&appliance, "branch-1").await;
    let mut crowd = Vec::new();
    for _ in 0..2 * PLACES {
        let mut stream = TcpStream::connect(appliance.address()).await.unwrap();
        stream.write_all(&[0x16]).await.unwrap();
        crowd.push(stream);
    }
    // The oldest made room for the youngest, and would for others.
    for stream in &mut crowd[..PLACES] {
        let closed = tokio::time::timeout(PATIENCE * 10, stream.read(&mut [0; 64])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
    let waited = tokio::time::timeout(PATIENCE / 10, crowd[2 * PLACES - 1].read(&mut [0; 64])).await;
    assert!(waited.is_err(), "the youngest is let: {waited:?}");
    let latencies = Neighbour::of(&appliance, "branch-2").await.end().await;
    assert!(latencies.longest() < PATIENCE * 3, "who came last had to wait");
    assert!(
        served.end().await.longest() < PATIENCE * 3,
        "who was served had to wait"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_who_do_nothing_cost_some_memory_and_no_time() {
    let _turn = turn().await;
    let appliance = appliance();
    let idle = as_many_as_may_be(&appliance, IDLE);
    let dialer = Dialer::of(&appliance, "idler");
    let neighbour = Neighbour::of(&appliance, "branch-1").await;
    let before = appliance.memory();
    let door = Arc::new(Semaphore::new(HANDSHAKES));
    let mut opened = JoinSet::new();
    for _ in 0..idle {
        let (dialer, door) = (dialer.clone(), Arc::clone(&door));
        opened.spawn(async move {
            let _one_at_a_time = door.acquire().await.unwrap();
            dialer.open().await.unwrap()
        });
    }
    let connections = opened.join_all().await;
    let open = appliance.memory();
    let cpu = || appliance.metric("muhurdar_cpu_seconds_total");
    let (used, since) = (cpu(), Instant::now());
    let latencies = neighbour.end().await;
    // Nobody works now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = (cpu() - used) / since.elapsed().as_secs_f64();
    let each = mib(open.resident, before.resident) * 1024.0 / f64::from(u32::try_from(connections.len()).unwrap());
    drop(connections);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let closed = appliance.memory();
    println!(
        "{idle} idle clients over mTLS and HTTP/2: {each:.1} KiB resident each, {:.1} MiB together, +{:.1} MiB when they are gone; \
         {:.1} % of a processor; while they came {} sealed, p50 {:.1?}, p99 {:.1?}",
        mib(open.resident, before.resident),
        mib(closed.resident, before.resident),
        busy * 100.0,
        latencies.count(),
        latencies.percentile(50),
        latencies.percentile(99),
    );
    assert!(each < 256.0, "{each} KiB for one who does nothing");
    assert!(busy < 0.5, "who does nothing costs {busy} of a processor");
    Neighbour::of(&appliance, "branch-2").await.end().await;
}
