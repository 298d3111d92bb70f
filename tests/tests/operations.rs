//! What ops see of a running service, and whether the alerts look at what is really there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use muhurdar_tests::{Appliance, Branch, RSA, invoice, muhurdar};

/// An HTTP GET on the admin listener: status line and body.
fn get(path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(Appliance::shared().admin_address()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn the_probes_say_that_it_lives_and_is_ready() {
    assert_eq!(get("/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(get("/readyz").0, "HTTP/1.1 200 OK");
    assert_eq!(get("/elsewhere").0, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn every_metric_that_an_alert_looks_at_is_exported() {
    let mut client = Branch::of(Appliance::shared(), "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
    client.seal(Branch::request(RSA, "<a")).await.unwrap_err();
    let metrics = get("/metrics").1;
    let exported: BTreeSet<_> = metrics
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split(['{', ' ']).next())
        .collect();

    let rules = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/prometheus/muhurdar.rules.yaml"
    ));
    let rules = std::fs::read_to_string(rules).unwrap();
    let expressions = rules.lines().filter(|l| !l.trim_start().starts_with(['#', '-']));
    let words: BTreeSet<_> = expressions
        .flat_map(|l| l.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("muhurdar_"))
        .collect();
    assert!(words.len() >= 6, "{words:?}");
    let missing: Vec<_> = words.iter().filter(|word| !exported.contains(*word)).collect();
    assert!(missing.is_empty(), "no such metric: {missing:?} in {exported:?}");
    assert!(
        metrics.contains("muhurdar_seals_total{document=\"invoice\",outcome=\"sealed\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("outcome=\"XML_MALFORMED\""), "{metrics}");
}

#[test]
fn check_finds_the_appliance_fit() {
    let config = Appliance::shared().dir().join("muhurdar.toml");
    let output = muhurdar(&["check", "--config", config.to_str().unwrap()]);
    assert!(output.status.success(), "{}", output.text);
    assert!(
        output.text.contains("CKM_RSA_PKCS") && output.text.contains("<- the knee"),
        "{}",
        output.text
    );
    let output = muhurdar(&[
        "check",
        "--json",
        "--measure",
        "50ms",
        "--config",
        config.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", output.text);
    let report: serde_json::Value = serde_json::from_str(&output.text).unwrap();
    let found = &report["tokens"][0]["qualification"];
    assert_eq!((&report["ok"], &found["fit"]), (&true.into(), &true.into()), "{report}");
    assert_eq!(found["rsa_mechanism"], "pkcs", "{found}");
    assert_eq!(found["rates"][0]["sessions"], 1, "{found}");
    for key in found["keys"].as_array().unwrap() {
        assert_eq!(
            (&key["sensitive"], &key["extractable"]),
            (&true.into(), &false.into()),
            "{key}"
        );
    }
}

/// Keys that others can copy are no seal.
#[test]
fn check_names_a_key_that_can_leave_its_token() {
    let prepared = muhurdar_tests::Builder::default().taxpayers(1).prepare();
    let config = prepared.dir().join("muhurdar.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let module = text.lines().find_map(|line| line.strip_prefix("module = ")).unwrap();
    let made = std::process::Command::new("pkcs11-tool")
        .env("SOFTHSM2_CONF", prepared.dir().join("token/softhsm2.conf"))
        .args(["--module", module.trim_matches('"')])
        .args([
            "--login",
            "--pin",
            std::fs::read_to_string(prepared.dir().join("token/pin"))
                .unwrap()
                .trim(),
        ])
        .args([
            "--token-label",
            "muhurdar-dev",
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--id",
            "77",
            "--label",
            "open",
        ])
        .arg("--extractable")
        .output();
    match made {
        Ok(made) if made.status.success() => {}
        other => {
            println!("SKIPPED: pkcs11-tool (apt-get install opensc) did not make a key: {other:?}");
            return;
        }
    }
    let output = muhurdar(&["check", "--measure", "0s", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", output.text);
    assert!(
        output.text.contains("\"open\"") && output.text.contains("CKA_EXTRACTABLE"),
        "{}",
        output.text
    );
}

#[test]
fn a_slip_in_the_configuration_is_said_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(Appliance::shared().dir().join("muhurdar.toml")).unwrap();
    let path = folder.path().join("muhurdar.toml");
    std::fs::write(&path, good.replace("pin_file", "pinfile")).unwrap();
    for command in ["check", "serve"] {
        let output = muhurdar(&[command, "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(64), "{}", output.text);
        assert!(
            output.text.contains("pinfile") && output.text.contains("line"),
            "{}",
            output.text
        );
    }
}

#[test]
fn a_wrong_pin_is_tried_once_and_said() {
    let prepared = muhurdar_tests::Builder::default().taxpayers(0).prepare();
    std::fs::write(prepared.dir().join("token/pin"), "48151623").unwrap();
    let config = prepared.dir().join("muhurdar.toml");
    let output = muhurdar(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", output.text);
    assert!(
        output.text.contains("PIN") && !output.text.contains("48151623"),
        "{}",
        output.text
    );
    // A supervisor that restarts the service must not spend the PIN's tries: the unit's RestartPreventExitStatus has 77.
    let output = muhurdar(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(77), "{}", output.text);
}
