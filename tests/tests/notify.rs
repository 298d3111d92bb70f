//! What a service manager hears: a real datagram socket stands where systemd's would be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice};
use tempfile::TempDir;

/// Everything here happens within a second; the machine may have other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("notify")
    }

    /// The next message, as its lines; none where nothing comes in this time.
    fn hear(&self, patience: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    }

    /// The next message with this line, past all others.
    fn hear_of(&self, line: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.hear(left.max(Duration::from_millis(1))) {
                Some(lines) if lines.iter().any(|l| l == line) => return lines,
                Some(_) => {}
                None => break,
            }
        }
        panic!("the service never says {line}");
    }

    /// What lies there now is of the past.
    fn forget(&self) {
        while self.hear(Duration::from_millis(1)).is_some() {}
    }
}

fn status(lines: &[String]) -> &str {
    lines.iter().find_map(|l| l.strip_prefix("STATUS=")).unwrap()
}

/// When the manager is told that the reload began, on the clock that it compares with.
fn begun(lines: &[String]) -> Duration {
    let usec = lines.iter().find_map(|l| l.strip_prefix("MONOTONIC_USEC=")).unwrap();
    Duration::from_micros(usec.parse().unwrap())
}

fn change(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn the_manager_hears_ready_when_the_service_can_seal_then_of_reloads_and_of_the_end() {
    let manager = Manager::new();
    let appliance = Builder::default().env("NOTIFY_SOCKET", manager.path()).start();
    let lines = manager.hear_of("READY=1");
    assert_eq!(status(&lines), "ready: 1 of 1 tokens sign, for 3 taxpayers");
    // It was no promise: the next moment it seals.
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();

    let before = Instant::now();
    appliance.signal("HUP");
    let first = begun(&manager.hear_of("RELOADING=1"));
    assert_eq!(manager.hear(PATIENCE).unwrap(), ["READY=1"], "the reload is over");

    // One that is refused is over too: the service goes on with what it had.
    change(&appliance.dir().join("muhurdar.toml"), "[[token]]", "[[taken]]");
    appliance.signal("HUP");
    let second = begun(&manager.hear_of("RELOADING=1"));
    assert!(
        second > first && second - first <= before.elapsed(),
        "{first:?}, {second:?}"
    );
    assert_eq!(manager.hear(PATIENCE).unwrap(), ["READY=1"]);
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();

    appliance.signal("TERM");
    let lines = manager.hear_of("STOPPING=1");
    assert_eq!(status(&lines), "draining: 0 calls are to be answered");
    assert_eq!(appliance.exit_code_within(PATIENCE), Some(0));
    while let Some(lines) = manager.hear(Duration::from_millis(1)) {
        assert!(!lines.iter().any(|l| l == "READY=1"), "ready after the end: {lines:?}");
    }
}

#[tokio::test]
async fn the_manager_hears_a_sign_of_life_twice_in_its_time_also_while_a_token_hangs_and_none_of_a_stopped_process() {
    const LIMIT: Duration = Duration::from_secs(2);
    let manager = Manager::new();
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(1, Duration::from_millis(1))
        .edit("[[token]]\n", "[[token]]\ncall_budget = \"500ms\"\n")
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", LIMIT.as_micros().to_string())
        .start();
    manager.hear_of("READY=1");
    // A busy machine may be late for one, and must not be for the second.
    let begun = Instant::now();
    for _ in 0..3 {
        manager.hear_of("WATCHDOG=1");
    }
    assert!(
        begun.elapsed() < 3 * LIMIT,
        "{:?} for three signs of life",
        begun.elapsed()
    );

    // The token hangs for ever in a call. That is what the service is there for, and no reason to kill it.
    appliance.token("rule C_Sign always hang");
    let client = Branch::of(&appliance, "branch-1").connect().await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                loop {
                    // Refused, each of them.
                    drop(client.seal(Branch::request(RSA, invoice(RSA, ""))).await);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    let waiting = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut not_ready = false;
        let mut signs = 0;
        while !(not_ready && signs >= 2) && begun.elapsed() < PATIENCE {
            let Some(lines) = manager.hear(PATIENCE) else { break };
            not_ready |= lines.iter().any(|l| l.starts_with("STATUS=not ready"));
            signs += usize::from(not_ready && lines == ["WATCHDOG=1"]);
        }
        assert!(
            not_ready && signs >= 2,
            "not ready: {not_ready}, then {signs} signs of life"
        );
        manager
    });
    let manager = waiting.await.unwrap();
    callers.iter().for_each(tokio::task::JoinHandle::abort);

    // Neither can a process that does not run say that it lives.
    appliance.signal("STOP");
    std::thread::sleep(Duration::from_millis(100));
    manager.forget();
    assert_eq!(manager.hear(2 * LIMIT), None);
    appliance.signal("CONT");
    manager.hear_of("WATCHDOG=1");
}

#[test]
fn without_a_manager_nothing_is_said_and_nothing_is_missing() {
    let appliance = Appliance::shared();
    assert_eq!(appliance.get("/readyz").0, "HTTP/1.1 200 OK");
    assert!(!appliance.log().contains("NOTIFY_SOCKET"), "{}", appliance.log());
}
