//! Commands, and the binaries of this workspace.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use tokio::sync::{Mutex, MutexGuard};

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, then standard error.
    pub text: String,
}

impl Output {
    /// Runs a command to its end.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Self {
            status: output.status,
            text,
        }
    }
}

/// An address to listen on that is known before anything listens there, and that nothing else takes: on a loopback address
/// of this process alone (127.0.0.0/8 is all loopback on Linux), where neither another test nor the port of somebody's
/// outgoing connection can be.
#[must_use]
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(7000);
    // A process id has 22 bits at most.
    let host = Ipv4Addr::from(0x7f40_0000 | (std::process::id() & 0x3f_ffff));
    (host, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// One at a time in a process: for tests that are in each other's way.
pub async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// `muhurdar` with these arguments.
#[must_use]
pub fn muhurdar(arguments: &[&str]) -> Output {
    Output::of(Command::new(binary("muhurdar")).args(arguments))
}

/// A binary of this workspace, built: the one named by `MUHURDAR_BIN` (`MUHURDAR_LOADTEST_BIN`), else by cargo, in the
/// profile of the tests.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        let path = PathBuf::from(path);
        assert!(path.exists(), "{variable} names {}, which is not there", path.display());
        return path;
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = own_folder();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--locked",
            "--package",
            "muhurdar",
            "--package",
            "muhurdar-loadtest",
            "--bins",
        ]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let output = Output::of(cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")));
        assert!(output.status.success(), "cargo build: {}", output.text);
        folder
    });
    folder.join(name)
}

/// target/PROFILE of the test that runs.
pub(crate) fn own_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/<test>
    let folder = own.ancestors().nth(2);
    folder.expect("tests lie in target/<profile>/deps").to_owned()
}
