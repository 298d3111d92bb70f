//! What ops see of a running service, and what `check` tells them of one that does not run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "operations/one_login.rs"]
mod one_login;

use std::time::{Duration, Instant};

use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, muhurdar, refused};

fn get(path: &str) -> (String, String) {
    Appliance::shared().get(path)
}

#[test]
fn the_probes_say_that_it_lives_and_is_ready() {
    assert_eq!(get("/healthz").0, "HTTP/1.1 200 OK");
    assert_eq!(get("/readyz").0, "HTTP/1.1 200 OK");
    assert_eq!(get("/elsewhere").0, "HTTP/1.1 404 Not Found");
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
    let prepared = Builder::default().taxpayers(1).prepare();
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
    let prepared = Builder::default().taxpayers(0).prepare();
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

/// A module that takes no locks, as some of one session are: the ceremony has to initialise it as the service does.
#[test]
fn the_commands_on_tokens_initialise_a_module_as_configured() {
    let prepared = Builder::default().taxpayers(1).hsm(1, Duration::ZERO).prepare();
    let path = prepared.dir().join("muhurdar.toml");
    let config = path.to_str().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let strict = text.replace("engines 1;", "no-locks on;engines 1;");
    assert_ne!(strict, text);
    std::fs::write(&path, &strict).unwrap();
    let output = muhurdar(&["token", "list", "--config", config]);
    assert!(
        !output.status.success() && output.text.contains("CKR_CANT_LOCK"),
        "{}",
        output.text
    );
    let fitting = strict.replace(
        "[[token]]\n",
        "[[token]]\ninit_args = \"none\"\nsingle_session = true\n",
    );
    std::fs::write(&path, fitting).unwrap();
    for command in [
        vec!["token", "list", "--config", config],
        vec![
            "token", "keygen", "--type", "p256", "--label", "next", "--config", config,
        ],
    ] {
        let output = muhurdar(&command);
        assert!(output.status.success(), "{command:?}: {}", output.text);
    }
}

async fn until_metric(appliance: &Appliance, name: &str, least: f64) {
    let end = Instant::now() + Duration::from_secs(20);
    while appliance.metric(name) < least {
        assert!(Instant::now() < end, "{name} is {}", appliance.metric(name));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_token_suffers_is_told_by_its_name() {
    const FAILED: &str = "muhurdar_token_failures_total{ckr=\"CKR_FUNCTION_FAILED\",token=\"dev\"}";
    const GIVEN_UP: &str = "muhurdar_token_calls_given_up_total{token=\"dev\"}";
    const WRONG: &str = "muhurdar_wrong_signatures_total{token=\"dev\"}";
    const LOGINS: &str = "muhurdar_token_recoveries_total{rung=\"login\",token=\"dev\"}";
    const LATCHED: &str = "muhurdar_token_latched{token=\"dev\"}";
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(2, Duration::from_millis(1))
        .edit("[[token]]\n", "[[token]]\ncall_budget = \"500ms\"\n")
        .start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let request = Branch::request(RSA, invoice(RSA, ""));
    client.seal(request.clone()).await.unwrap();
    for metric in [FAILED, GIVEN_UP, WRONG, LOGINS, LATCHED] {
        assert!(
            appliance.get("/metrics").1.contains(&format!("\n{metric} 0\n")),
            "{metric} is there from the beginning"
        );
    }
    // Each costs the token something, and its caller nothing.
    for (command, metric) in [
        ("rule C_Sign 1 answer 0x6", FAILED),
        ("rule C_Sign 1 flip", WRONG),
        ("rule C_Sign 1 hang", GIVEN_UP),
        ("forget-login", LOGINS),
    ] {
        appliance.token(command);
        client.seal(request.clone()).await.unwrap();
        until_metric(&appliance, metric, 1.0).await;
        appliance.token("clear");
    }
    // A PIN that is refused is not tried again.
    appliance.token("rule C_Login 1 answer 0xa0");
    appliance.token("forget-login");
    let status = client.seal(request).await.unwrap_err();
    assert_eq!(refused(&status).reason, "TOKEN_UNAVAILABLE");
    until_metric(&appliance, LATCHED, 1.0).await;
    assert_eq!(appliance.get("/readyz").0, "HTTP/1.1 503 Service Unavailable");
}

#[test]
fn as_many_threads_serve_connections_as_the_configuration_says() {
    const THREADS: usize = 9;
    let appliance = Builder::default()
        .taxpayers(1)
        .edit("[server.tls]", &format!("network_threads = {THREADS}\n\n[server.tls]"))
        .start();
    // The runtime's others, for what blocks, have the same name; there are a few of them.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", appliance.pid())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    let threads = names.filter(|name| name.starts_with("tokio-rt-worker")).count();
    assert!((THREADS..2 * THREADS).contains(&threads), "{threads}");
}

/// None of its signatures is right: nothing leaves, and nobody counts on it, until it tells the truth again.
#[tokio::test]
async fn the_only_token_is_out_of_service_while_it_lies_and_comes_back_by_itself() {
    const DISTRUSTED: &str = "muhurdar_token_distrusted{token=\"dev\"}";
    const SIGNATURES: &str = "muhurdar_token_signatures_total{token=\"dev\"}";
    let appliance = Builder::default().taxpayers(1).hsm(2, Duration::from_millis(1)).start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let request = Branch::request(RSA, invoice(RSA, ""));
    client.seal(request.clone()).await.unwrap();
    let signatures = appliance.metric(SIGNATURES);
    assert!(appliance.get("/metrics").1.contains(&format!("\n{DISTRUSTED} 0\n")));

    appliance.token("rule C_Sign always flip");
    let status = client.seal(request.clone()).await.unwrap_err();
    assert_eq!(refused(&status).reason, "TOKEN_UNAVAILABLE");
    until_metric(&appliance, DISTRUSTED, 1.0).await;
    let end = Instant::now() + Duration::from_secs(20);
    while appliance.get("/readyz").0 != "HTTP/1.1 503 Service Unavailable" {
        assert!(Instant::now() < end, "{}", appliance.get("/status.json").1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = client.seal(request.clone()).await.unwrap_err();
    let said = refused(&status);
    assert_eq!(said.reason, "TOKEN_UNAVAILABLE");
    let told = |line: &str| line.contains("no token can sign") && line.contains("did not verify");
    assert!(appliance.log().lines().any(told), "{}", appliance.log());
    let page: serde_json::Value = serde_json::from_str(&appliance.get("/status.json").1).unwrap();
    let token = &page["tokens"][0];
    assert!(token["wrong"].as_u64().unwrap() >= 3, "{token}");
    assert!(token["why"].as_str().unwrap().contains("do not verify"), "{token}");
    assert_eq!(appliance.metric(SIGNATURES), signatures, "a wrong one is no signature");

    appliance.token("clear");
    let end = Instant::now() + Duration::from_secs(20);
    while appliance.get("/readyz").0 != "HTTP/1.1 200 OK" {
        assert!(Instant::now() < end, "{}", appliance.get("/status.json").1);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(appliance.metric(DISTRUSTED), 0.0);
    client.seal(request).await.unwrap();
}
