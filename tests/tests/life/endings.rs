//! How processes end that have a token's module inside: nothing is in the module any more when its destructors run. The module is one that
//! is slow in every call, and that aborts the process where somebody is in it, or ends a thread that was, while its destructors run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use muhurdar_tests::{Builder, Output, Prepared, binary, muhurdar};

/// How often each end is tried. The trap makes a single one enough; more are for a look from time to time.
fn ends() -> usize {
    std::env::var("MUHURDAR_ENDS").map_or(2, |ends| ends.parse().unwrap())
}

/// An appliance's folder whose token begins with these commands.
fn appliance(commands: &str) -> Prepared {
    let prepared = Builder::default().taxpayers(1).hsm(3, Duration::ZERO).prepare();
    edit(&prepared, "engines 3;latency 0", commands);
    prepared
}

fn edit(prepared: &Prepared, from: &str, to: &str) {
    let path = prepared.dir().join("muhurdar.toml");
    let config = fs::read_to_string(&path).unwrap();
    assert_eq!(config.matches(from).count(), 1, "{from:?} in\n{config}");
    fs::write(path, config.replace(from, to)).unwrap();
}

const TRAP: &str = "trap 60;slow * 4";

fn config(prepared: &Prepared) -> String {
    prepared.dir().join("muhurdar.toml").display().to_string()
}

/// `muhurdar serve`, once it serves. Dropped, it is killed.
struct Service {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Service {
    fn start(prepared: &Prepared) -> Self {
        let mut command = Command::new(binary("muhurdar"));
        command.args(["serve", "--config", &config(prepared)]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut service = Self { child, log };
        let mut before = String::new();
        loop {
            let from = before.len();
            assert!(
                service.log.read_line(&mut before).unwrap() > 0,
                "it does not serve: {before}"
            );
            if before[from..].contains("serving") {
                return service;
            }
        }
    }

    /// SIGTERM, and what comes of it.
    fn end(&mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut said = String::new();
        self.log.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Where it has ended there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serve_ends_after_its_threads() {
    let prepared = appliance(TRAP);
    for _ in 0..ends() {
        let (status, said) = Service::start(&prepared).end();
        assert_eq!(status.code(), Some(0), "{status} {said}");
        assert!(!said.contains("TRAPPED") && said.contains("drained"), "{said}");
    }
}

#[test]
fn serve_ends_where_a_call_never_returns_and_runs_no_destructors_then() {
    let prepared = appliance("trap 60");
    let mut service = Service::start(&prepared);
    muhurdar_faulty_token::send(&prepared.dir().join("token.sock"), "rule C_CloseSession always hang").unwrap();
    let (status, said) = service.end();
    assert_eq!(status.code(), Some(0), "{status} {said}");
    assert!(!said.contains("TRAPPED") && said.contains("drained"), "{said}");
    assert!(said.contains("without running its destructors"), "it says why: {said}");
}

#[test]
fn a_start_that_fails_ends_after_the_threads_of_its_pool() {
    let prepared = appliance(TRAP);
    // Looked at when the tokens are open already.
    let nowhere = prepared.dir().join("nowhere");
    edit(&prepared, "[server]\n", &format!("[server]\nspool_dir = {nowhere:?}\n"));
    for _ in 0..ends() {
        let output = muhurdar(&["serve", "--config", &config(&prepared)]);
        assert_eq!(output.status.code(), Some(64), "{}", output.text);
        assert!(
            output.text.contains("spool_dir") && !output.text.contains("TRAPPED"),
            "{}",
            output.text
        );
    }
}

#[test]
fn commands_end_after_the_threads_that_they_started() {
    let prepared = appliance(TRAP);
    let config = config(&prepared);
    let dir = prepared.dir().display().to_string();
    let commands: [&[&str]; 5] = [
        &["check", "--config", &config, "--measure", "5ms"],
        &["token", "list", "--config", &config],
        &["token", "keygen", "--config", &config, "--type", "p256", "--label", "a"],
        &[
            "token", "keygen", "--config", &config, "--type", "p256", "--label", "a", "--id", "zz",
        ],
        &["dev", "--dir", &dir, "--taxpayers", "2", "--prepare-only"],
    ];
    for _ in 0..ends() {
        for command in commands {
            let output = muhurdar(command);
            assert!(
                output.status.code().is_some() && !output.text.contains("TRAPPED"),
                "{command:?}: {} {}",
                output.status,
                output.text
            );
        }
    }
}

#[test]
fn the_harness_ends_after_the_threads_that_measured() {
    let prepared = appliance(TRAP);
    let config = config(&prepared);
    for _ in 0..ends() {
        let mut command = Command::new(binary("muhurdar-loadtest"));
        command.args([
            "ceiling",
            "--token-config",
            &config,
            "--sessions",
            "3",
            "--duration",
            "20ms",
        ]);
        let output = Output::of(&mut command);
        assert!(
            output.status.success() && !output.text.contains("TRAPPED"),
            "{} {}",
            output.status,
            output.text
        );
    }
    assert!(Path::new(&config).exists());
}
