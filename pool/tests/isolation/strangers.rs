//! Parents and children that are not what the other expects: replaced, of another version, half dead, gone.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muhurdar_pool::admin::{Generate, find_softhsm2};
use muhurdar_pool::isolation::{self, SUBCOMMAND};
use muhurdar_pool::{Config, Isolation, OpenError, Pin, Pool, Select, SignInput, TokenConfig, exit};

use crate::{children, close, common, faulty, isolated, until};

const CHILD: &str = "MUHURDAR_TEST_CHILD";
const UPGRADED: &str = "MUHURDAR_TEST_UPGRADED";

/// A child or a parent that a test has started, where this process is one.
pub(crate) fn is_one() {
    if let Ok(what) = std::env::var(CHILD) {
        exit::run(|| {
            poor_child(&what);
            0
        })
    }
    if std::env::var_os(UPGRADED).is_some() && std::env::args_os().nth(1).is_none_or(|first| first != SUBCOMMAND) {
        exit::run(upgraded)
    }
}

/// The first frame, as every version has it.
fn greeting(version: u32) -> Vec<u8> {
    frame(&[b"MUHURDAR".as_slice(), &version.to_le_bytes()].concat())
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A child that understands its parent's first words and then does this.
fn poor_child(what: &str) {
    let mut control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut greeted = [0; 16];
    control.read_exact(&mut greeted).unwrap();
    if what == "is newer" {
        control.write_all(&greeting(u32::MAX)).unwrap();
    } else {
        // Of the same version, whatever that is.
        control.write_all(&greeted).unwrap();
        let mut order = [0; 4 + 7];
        control.read_exact(&mut order).unwrap();
        assert_eq!(&order[4..], b"\"Start\"");
        control.write_all(&frame(b"\"Done\"")[..7]).unwrap();
    }
    if what != "dies" {
        // Until the parent has had enough.
        let _ = control.read_to_end(&mut Vec::new());
    }
}

fn poor(what: &str) -> TokenConfig {
    let mut config = TokenConfig::new("poor", "/nowhere.so", Select::Only, Pin::value("1"));
    config.isolation = Isolation::Process;
    config.call_budget = Duration::from_millis(40);
    config.environment = vec![(CHILD.into(), what.into())];
    config
}

pub(crate) async fn halves() {
    for what in ["hangs", "dies"] {
        let refused = Pool::open(Config::new(vec![poor(what)])).await.unwrap_err().to_string();
        assert!(refused.contains("CKR_DEVICE_ERROR"), "{what}: {refused}");
        let begun = Instant::now();
        while !children().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: none is left");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) async fn another_version() {
    let refused = Pool::open(Config::new(vec![poor("is newer")])).await.unwrap_err();
    assert!(matches!(refused, OpenError::Child { .. }), "{refused:?}");
    let refused = refused.to_string();
    assert!(
        refused.contains("4294967295") && refused.contains("Restart the service"),
        "{refused}"
    );
    assert!(children().is_empty(), "it is not left running");
}

/// A child of the test's own, greeted, whose module begins with these commands.
fn child(commands: &str) -> (Child, UnixStream) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let faulty = std::env::current_exe()
        .unwrap()
        .with_file_name("libmuhurdar_faulty_token.so");
    let child = isolation::own_program()
        .unwrap()
        .arg(SUBCOMMAND)
        .arg(faulty)
        .arg("os-locking")
        .env("FAULTY_TOKEN_MODULE", find_softhsm2().unwrap())
        .env("FAULTY_TOKEN_START", commands)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut greeted = [0; 16];
    // Either may speak first.
    ours.read_exact(&mut greeted).unwrap();
    ours.write_all(&greeted).unwrap();
    ours.write_all(&frame(b"\"Start\"")).unwrap();
    let mut answer = [0; 4 + 6];
    ours.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[4..], b"\"Done\"");
    (child, ours)
}

fn ends(mut child: Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it has not ended");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a parent leaves behind that is killed: a socket that is shut.
pub(crate) fn a_child_alone() {
    let (idle, socket) = child("trap 20");
    drop(socket);
    assert_eq!(ends(idle), Some(0), "between calls");

    let (half, mut socket) = child("trap 20");
    socket.write_all(&frame(b"\"Tokens\"")[..6]).unwrap();
    drop(socket);
    assert_eq!(ends(half), Some(0), "in the middle of a frame");

    let (busy, mut socket) = child("trap 20;rule C_GetSlotList always hang");
    socket.write_all(&frame(b"\"Tokens\"")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(socket);
    assert_eq!(ends(busy), Some(0), "inside a call that does not return");
}

pub(crate) async fn signals_to_the_child() {
    let pool = common::open(vec![isolated("signalled", &[Generate::Rsa(2048)])]).await;
    let key = pool.keys()[0].clone();
    let [child] = children()[..] else { panic!("one child") };
    for signal in ["INT", "TERM", "HUP"] {
        let sent = Command::new("kill").args(["-s", signal, &child.to_string()]).status();
        assert!(sent.unwrap().success());
        let input = SignInput::message(key.kind.default_hash(), *b"what was admitted");
        pool.sign(key.id, input, None).await.unwrap();
    }
    assert_eq!(children(), [child], "it is the same one");
    pool.close().await;
    assert!(children().is_empty());
}

/// Runs a copy of this program, which replaces its own file.
pub(crate) fn an_upgrade() {
    let (config, _) = faulty("upgraded");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(&program)
        .env(UPGRADED, &config.module)
        .env("FAULTY_TOKEN_MODULE", find_softhsm2().unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn upgraded() -> u8 {
    let own = std::env::current_exe().unwrap();
    // Only the first of them: a child that took itself for another parent would have children without end.
    if std::fs::File::create_new(own.with_extension("begun")).is_err() {
        return 1;
    }
    let module = std::env::var_os(UPGRADED).unwrap();
    let mut config = TokenConfig::new(
        "upgraded",
        module,
        Select::Label("upgraded".into()),
        Pin::value(common::PIN),
    );
    config.isolation = Isolation::Process;
    config.backoff_min = Duration::from_millis(20);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pool = Arc::new(Pool::open(Config::new(vec![config])).await.unwrap());
        let key = pool.keys()[0].clone();
        let [child] = children()[..] else { panic!("one child") };
        // People who look for the service find its children by the same name.
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap();
        assert_eq!(name.trim(), "program");

        // The package manager's way: another file takes the place.
        let new = own.with_extension("new");
        std::fs::copy(Path::new("/bin/false"), &new).unwrap();
        std::fs::rename(&new, &own).unwrap();
        let killed = Command::new("kill").args(["-s", "KILL", &child.to_string()]).status();
        assert!(killed.unwrap().success());

        let input = SignInput::message(key.kind.default_hash(), *b"after the upgrade");
        let _ = pool.sign(key.id, input.clone(), None).await;
        until(&pool, "the child comes back", |pool| pool.status().is_ready()).await;
        pool.sign(key.id, input, None).await.unwrap();
        close(pool).await;
    });
    0
}
