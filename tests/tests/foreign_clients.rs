//! Callers that nobody here wrote, in other languages, with the published proto: grpcio in Python, @grpc/grpc-js in Node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muhurdar_tests::{Appliance, Builder, Output, skipped};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Small enough to be overloaded by sixty calls at once.
fn appliance() -> Appliance {
    Builder::default()
        .taxpayers(2)
        .hsm(2, Duration::from_millis(50))
        .limits("queue = 8")
        .client(
            "few",
            "taxpayers = [\"*\"]\n[client.quota]\ndocuments_per_second = 1\nburst = 2",
        )
        .start()
}

/// What tests/interop/setup.sh has made ready. None, and a line that says so, where it has not.
fn ready(path: &str) -> Option<PathBuf> {
    let path = Path::new(ROOT).join("target").join(path);
    if path.exists() {
        return Some(path.canonicalize().unwrap());
    }
    skipped(&format!(
        "there is no {}; tests/interop/setup.sh makes it",
        path.display()
    ));
    None
}

/// The interpreter of the virtual environment, where it has the gRPC packages. Not resolved: where it lies is what makes it that.
fn python() -> Option<PathBuf> {
    ready("interop-venv/grpc-ready").map(|marker| marker.with_file_name("bin").join("python"))
}

fn python_client(python: &Path, appliance: &Appliance, phase: &str) -> String {
    let mut command = Command::new(python);
    command.arg(Path::new(ROOT).join("tests/interop/clients/client.py"));
    command.arg(Path::new(ROOT).join("proto")).arg(appliance.dir());
    command.args([&appliance.address().to_string(), appliance.pid(), phase]);
    let output = Output::of(&mut command);
    assert!(output.status.success(), "{phase}: {}", output.text);
    output.text
}

fn held(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("held: ")).count()
}

#[test]
fn a_python_client_is_answered_and_refused_as_the_contract_says() {
    let Some(python) = python() else { return };
    let appliance = appliance();
    let said = python_client(&python, &appliance, "calls");
    assert_eq!(held(&said), 21, "{said}");

    appliance.token("rule C_Sign always answer 0x30");
    assert_eq!(held(&python_client(&python, &appliance, "token")), 1);
    appliance.token("clear");

    let appliance = self::appliance();
    appliance.token("latency 2000000");
    assert_eq!(held(&python_client(&python, &appliance, "drain")), 2);
    assert_eq!(appliance.exit_code_within(Duration::from_secs(40)), Some(0));
}

#[test]
fn a_node_client_is_answered_and_refused_as_the_contract_says() {
    let (Some(modules), Some(python)) = (ready("interop-node"), python()) else {
        return;
    };
    // The definitions of Google's error details come with the Python packages.
    let find = "import google.rpc, pathlib; print(pathlib.Path(list(google.rpc.__path__)[0]).parents[1])";
    let google = Output::of(Command::new(python).args(["-c", find])).text;
    let appliance = appliance();
    let mut command = Command::new("node");
    command.arg(Path::new(ROOT).join("tests/interop/clients/node/client.js"));
    command
        .arg(modules)
        .arg(Path::new(ROOT).join("proto"))
        .arg(google.trim());
    command.arg(appliance.dir()).arg(appliance.address().to_string());
    let output = Output::of(&mut command);
    assert!(output.status.success(), "{}", output.text);
    assert_eq!(held(&output.text), 15, "{}", output.text);
}
