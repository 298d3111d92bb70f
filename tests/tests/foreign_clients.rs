//! Callers that nobody here wrote, in other languages, with the published proto: grpcio in Python, @grpc/grpc-js in Node, grpc-go,
//! grpc-java.
//!
//! Each program of tests/interop/clients knows the same phases (calls, errors, token, drain, stream), prints a line for each thing that
//! held, and ends with 1 at the first that did not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use muhurdar_tests::{Appliance, Builder, Output, muhurdar, new_seal_for, skipped};

#[path = "foreign_clients/go.rs"]
mod go;
#[path = "foreign_clients/java.rs"]
mod java;
#[path = "foreign_clients/node.rs"]
mod node;
#[path = "foreign_clients/python.rs"]
mod python;
#[path = "foreign_clients/streams.rs"]
mod streams;

use go::Go;
use java::Java;
use node::Node;
use python::Python;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A taxpayer whose certificate has ended.
const ENDED: &str = "2222222222";

/// Small enough to be overloaded by sixty calls at once.
fn appliance() -> Appliance {
    let prepared = Builder::default()
        .taxpayers(2)
        .hsm(2, Duration::from_millis(50))
        .limits("queue = 8")
        .client(
            "few",
            "taxpayers = [\"*\"]\n[client.quota]\ndocuments_per_second = 1\nburst = 2",
        )
        .prepare();
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    let (p12, password) = new_seal_for(prepared.dir(), ENDED, &(now - 2 * hour..now - hour));
    let config = prepared.dir().join("muhurdar.toml");
    let [config, password, p12] = [&config, &password, &p12].map(|path| path.to_str().unwrap());
    let output = muhurdar(&["token", "import", "--config", config, "--password-file", password, p12]);
    assert!(output.status.success(), "{}", output.text);
    prepared.start()
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

/// The folder of what a setup script has built. None, and a line that says so, where it could not have what that takes.
///
/// # Panics
/// Where it could, and what is ours does not build.
fn built(folder: &str) -> Option<PathBuf> {
    let broken = Path::new(ROOT).join("target").join(folder).join("broken");
    if let Ok(why) = fs::read_to_string(&broken) {
        panic!("{}: {why}", broken.display());
    }
    let made = ready(&format!("{folder}/ready"))?;
    made.parent().map(Path::to_owned)
}

/// What each program finds in its environment.
fn for_a_client(command: &mut Command, appliance: &Appliance) {
    command.env("MUHURDAR_HOME", appliance.dir());
    command.env("MUHURDAR_ADDRESS", appliance.address().to_string());
    command.env("MUHURDAR_PID", appliance.pid());
}

/// Runs a phase to its end, and counts what has held.
fn held(mut command: Command, appliance: &Appliance, phase: &str) -> usize {
    for_a_client(&mut command, appliance);
    command.arg(phase).env("MUHURDAR_ENDED", ENDED);
    let output = Output::of(&mut command);
    assert!(output.status.success(), "{phase}: {}", output.text);
    output.text.lines().filter(|line| line.starts_with("held: ")).count()
}

/// All phases but the streams: so many calls are answered.
fn is_answered_and_refused(client: impl Fn() -> Command, calls: usize) {
    let appliance = appliance();
    assert_eq!(held(client(), &appliance, "calls"), calls);
    assert_eq!(held(client(), &appliance, "errors"), 20);
    appliance.token("rule C_Sign always answer 0x30");
    assert_eq!(held(client(), &appliance, "token"), 1);
    drop(appliance);

    let appliance = self::appliance();
    appliance.token("latency 4000000");
    assert_eq!(held(client(), &appliance, "drain"), 2);
    assert_eq!(appliance.exit_code_within(Duration::from_secs(40)), Some(0));
}

#[test]
fn a_python_client_is_answered_and_refused_as_the_contract_says() {
    let Some(python) = Python::ready() else { return };
    is_answered_and_refused(|| python.command(), 19);
}

#[test]
fn a_node_client_is_answered_and_refused_as_the_contract_says() {
    let Some(node) = Node::ready() else { return };
    is_answered_and_refused(|| node.command(), 18);
}

#[test]
fn a_go_client_is_answered_and_refused_as_the_contract_says() {
    let Some(go) = Go::ready() else { return };
    is_answered_and_refused(|| go.command(), 18);
}

#[test]
fn a_java_client_is_answered_and_refused_as_the_contract_says() {
    let Some(java) = Java::ready() else { return };
    is_answered_and_refused(|| java.command(), 18);
}

#[test]
fn a_stream_in_go_outlives_a_service_that_is_ended() {
    let Some(go) = Go::ready() else { return };
    streams::outlive_a_service_that_is_ended(go.command());
}

#[test]
fn a_stream_in_go_outlives_a_service_that_is_killed() {
    let Some(go) = Go::ready() else { return };
    streams::outlive_a_service_that_is_killed(go.command());
}

#[test]
fn a_stream_in_java_outlives_a_service_that_is_ended() {
    let Some(java) = Java::ready() else { return };
    streams::outlive_a_service_that_is_ended(java.command());
}

#[test]
fn a_stream_in_java_outlives_a_service_that_is_killed() {
    let Some(java) = Java::ready() else { return };
    streams::outlive_a_service_that_is_killed(java.command());
}

#[test]
fn a_stream_in_python_outlives_a_service_that_is_ended() {
    let Some(python) = Python::ready() else { return };
    streams::outlive_a_service_that_is_ended(python.command());
}

#[test]
fn a_stream_in_python_outlives_a_service_that_is_killed() {
    let Some(python) = Python::ready() else { return };
    streams::outlive_a_service_that_is_killed(python.command());
}

#[test]
fn a_stream_in_node_outlives_a_service_that_is_ended() {
    let Some(node) = Node::ready() else { return };
    streams::outlive_a_service_that_is_ended(node.command());
}

#[test]
fn a_stream_in_node_outlives_a_service_that_is_killed() {
    let Some(node) = Node::ready() else { return };
    streams::outlive_a_service_that_is_killed(node.command());
}
