//! What an operator types: files that come out of commands, signals, and what is said of tokens and of certificates that are
//! refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use muhurdar_tests::{
    Appliance, Branch, Builder, Output, Prepared, RSA, authority, binary, certify, certify_for, invoice, muhurdar,
    revoke,
};

/// The longest that anything here may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// `muhurdar seal` of the shared appliance, for a taxpayer of it.
fn seal(arguments: &[&Path]) -> Output {
    let client = Appliance::shared().dir().join("client.toml");
    let mut command = Command::new(binary("muhurdar"));
    command.args(["seal", "--taxpayer", RSA, "--config"]).arg(client);
    Output::of(command.args(arguments))
}

#[test]
fn files_that_would_become_one_are_refused_before_the_first_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("x.xml"), invoice(RSA, "")).unwrap();
    }
    let (a, b, out) = (at("a/x.xml"), at("b/x.xml"), at("out"));
    for more in [&[][..], &["--hash-only"], &["--signature-only"]] {
        let more = more.iter().map(Path::new);
        let arguments: Vec<_> = [&a, &b].map(PathBuf::as_path).into_iter().chain(more).collect();
        let output = seal(&[&arguments[..], &[Path::new("--out"), &out]].concat());
        assert_eq!(output.status.code(), Some(64), "{}", output.text);
        for named in [&a, &b] {
            assert!(output.text.contains(named.to_str().unwrap()), "{}", output.text);
        }
        assert!(!out.exists(), "nothing is done: {}", output.text);
    }
    // Without --out the names are derived too.
    fs::copy(&a, at("a/x.html")).unwrap();
    let output = seal(&[&a, &at("a/x.html")]);
    assert_eq!(output.status.code(), Some(64), "{}", output.text);
    // What is sealed is never written over: neither itself nor another.
    let original = fs::read(&a).unwrap();
    fs::copy(&a, at("a/x.sealed.xml")).unwrap();
    for arguments in [
        vec![a.as_path(), Path::new("--out"), &at("a")],
        vec![a.as_path(), &at("a/x.sealed.xml")],
    ] {
        let output = seal(&arguments);
        assert_eq!(output.status.code(), Some(64), "{}", output.text);
        assert!(output.text.contains("written over"), "{}", output.text);
    }
    assert_eq!(fs::read(&a).unwrap(), original);
    assert_eq!(fs::read(at("a/x.sealed.xml")).unwrap(), original);
    // Each by itself is as good as ever.
    let output = seal(&[&b, Path::new("--out"), &out]);
    assert!(output.status.success(), "{}", output.text);
    assert_eq!(names(&out), ["x.xml"]);
}

#[test]
fn a_full_disk_leaves_nothing_under_the_final_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (small, large, out) = (at("small.xml"), at("large.xml"), at("out"));
    fs::write(&small, invoice(RSA, "")).unwrap();
    let note = format!("<cbc:Note>{}</cbc:Note>", "n".repeat(9 << 20));
    fs::write(&large, invoice(RSA, &note)).unwrap();
    fs::create_dir(&out).unwrap();
    let client = Appliance::shared().dir().join("client.toml");
    // No file may have more than 2 KiB.
    let full = |arguments: &[&Path]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 4; trap '' XFSZ; exec \"$@\"", "sh"]);
        Output::of(command.arg(binary("muhurdar")).args(arguments))
    };
    for file in [&small, &large] {
        let arguments = ["seal", "--taxpayer", RSA, "--config"].map(Path::new);
        let rest = [&client, file, Path::new("--out"), &out];
        let output = full(&[&arguments[..], &rest].concat());
        assert!(!output.status.success(), "{}", output.text);
        assert!(output.text.contains("File too large"), "{}", output.text);
        assert_eq!(names(&out), [""; 0], "{}", output.text);
    }
}

/// The service by `serve`, with its module hanging in a call of the start.
struct Starting {
    child: Child,
    prepared: Prepared,
}

impl Starting {
    fn hanging() -> Self {
        let prepared = Builder::default().taxpayers(1).hsm(1, Duration::ZERO).prepare();
        let path = prepared.dir().join("muhurdar.toml");
        let config = fs::read_to_string(&path).unwrap();
        let hangs = config.replace("engines 1;", "rule C_FindObjectsInit 1 hang;engines 1;");
        assert_ne!(hangs, config);
        fs::write(&path, hangs).unwrap();
        let log = File::create(prepared.dir().join("log")).unwrap();
        let child = Command::new(binary("muhurdar"))
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let starting = Self { child, prepared };
        until("the module hangs", || {
            starting.token("stat").is_ok_and(|said| said.contains("hanging=1"))
        });
        starting
    }

    fn token(&self, command: &str) -> std::io::Result<String> {
        muhurdar_faulty_token::send(&self.prepared.dir().join("token.sock"), command)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.prepared.dir().join("log")).unwrap()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_hangup_during_the_start_is_a_reload_after_it() {
    let mut starting = Starting::hanging();
    starting.signal("HUP");
    starting.token("release").unwrap();
    until("the service reloads", || {
        let ended = starting.child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", starting.log());
        let log = starting.log();
        let (serving, reloading) = (
            log.find("\"serving\""),
            log.find("SIGHUP: reading the tokens and the configuration"),
        );
        assert!(reloading.is_none() || serving < reloading, "{log}");
        reloading.is_some()
    });
    starting.signal("TERM");
    until("it ends", || starting.child.try_wait().unwrap().is_some());
}

#[test]
fn a_start_that_hangs_ends_when_it_is_asked_to() {
    for signal in ["TERM", "INT"] {
        let mut starting = Starting::hanging();
        starting.signal(signal);
        // The call that hangs is never released.
        until("it ends", || starting.child.try_wait().unwrap().is_some());
        let ended = starting.child.wait().unwrap();
        assert_eq!(ended.code(), Some(0), "as an orderly end: {}", starting.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_drain_at_once() {
    for (first, second, code) in [("TERM", "TERM", 143), ("TERM", "INT", 130)] {
        let appliance = Builder::default()
            .taxpayers(1)
            .hsm(1, Duration::ZERO)
            .edit("[server.tls]", "drain_timeout = \"1h\"\n\n[server.tls]")
            .edit("[[token]]\n", "[[token]]\ncall_budget = \"1h\"\n")
            .start();
        let mut client = Branch::of(&appliance, "branch-1").connect().await;
        appliance.token("rule C_Sign always hang");
        let asked = tokio::spawn(async move { client.seal(Branch::request(RSA, invoice(RSA, ""))).await });
        until("it signs", || !appliance.token("stat").contains("hanging=0"));
        appliance.signal(first);
        until("it drains", || appliance.log().contains("draining"));
        assert_eq!(appliance.exit_code_within(Duration::from_millis(300)), None, "it waits");
        appliance.signal(second);
        assert_eq!(appliance.exit_code_within(PATIENCE), Some(code), "{}", appliance.log());
        assert!(asked.await.unwrap().is_err());
    }
}

#[test]
fn a_client_certificate_that_is_refused_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let prepared = Builder::default()
        .taxpayers(1)
        .edit(
            "client_ca = \"ca.crt\"",
            "client_ca = \"ca.crt\"\ncrl = \"revoked.crl\"",
        )
        .prepare();
    let dir = prepared.dir().to_owned();
    let hour = Duration::from_secs(3600);
    let past = SystemTime::now() - 2 * hour..SystemTime::now() - hour;
    let expired = certify_for(&dir, folder.path(), "expired", &past);
    let revoked = certify(&dir, folder.path(), "revoked");
    revoke(&dir, &[&revoked.0], &dir.join("revoked.crl"));
    let elsewhere = tempfile::tempdir().unwrap();
    authority(elsewhere.path());
    let foreign = certify(elsewhere.path(), folder.path(), "foreign");
    let good = certify(&dir, folder.path(), "branch-1");
    let appliance = prepared.start();
    let document = folder.path().join("x.xml");
    fs::write(&document, invoice(RSA, "")).unwrap();
    let seal = |(certificate, key): &(PathBuf, PathBuf)| {
        let mut command = Command::new(binary("muhurdar"));
        command.args([
            "seal",
            "--taxpayer",
            RSA,
            "--endpoint",
            &format!("https://{}", appliance.address()),
        ]);
        command.arg("--ca").arg(appliance.dir().join("ca.crt"));
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
        Output::of(command.arg(&document))
    };
    for (refused, reason) in [
        (&foreign, "UnknownCA"),
        (&revoked, "CertificateRevoked"),
        (&expired, "CertificateExpired"),
    ] {
        let output = seal(refused);
        assert_eq!(output.status.code(), Some(77), "{reason}: {}", output.text);
        let named = output.text.contains(refused.0.to_str().unwrap());
        assert!(named && output.text.contains(reason), "{reason}: {}", output.text);
    }
    let output = seal(&good);
    assert!(output.status.success(), "{}", output.text);
}

fn check(config: &Path) -> Output {
    muhurdar(&["check", "--measure", "0s", "--config", config.to_str().unwrap()])
}

fn token_list(config: &Path) -> Output {
    muhurdar(&["token", "list", "--config", config.to_str().unwrap()])
}

/// Two tokens of one library, each in a process of its own with an environment of its own.
#[test]
fn tokens_in_processes_of_their_own_are_looked_at_as_they_are_served() {
    let prepared = Builder::default().taxpayers(1).hsm(1, Duration::ZERO).twins().prepare();
    let config = prepared.dir().join("muhurdar.toml");
    let checked = check(&config);
    assert!(checked.status.success(), "{}", checked.text);
    let listed = token_list(&config);
    assert!(listed.status.success(), "{}", listed.text);
    for token in ["dev", "twin"] {
        let (_, of) = listed
            .text
            .split_once(&format!("token {token}\n"))
            .expect("it is listed");
        assert!(of.contains(&format!("seals for {RSA}")), "{}", listed.text);
    }
    // A token that does not answer keeps nobody from seeing the other.
    let text = fs::read_to_string(&config).unwrap();
    let broken = text.replacen("label = \"muhurdar-dev\"", "label = \"another\"", 1);
    assert_ne!(broken, text);
    fs::write(&config, broken).unwrap();
    let listed = token_list(&config);
    assert_eq!(listed.status.code(), Some(64), "{}", listed.text);
    assert!(listed.text.contains("token twin\n"), "{}", listed.text);
}

/// `pkcs11-tool` on the token of an appliance.
fn pkcs11_tool(dir: &Path, arguments: &[&str]) -> bool {
    let text = fs::read_to_string(dir.join("muhurdar.toml")).unwrap();
    let module = text.lines().find_map(|line| line.strip_prefix("module = ")).unwrap();
    let pin = fs::read_to_string(dir.join("token/pin")).unwrap();
    let made = Command::new("pkcs11-tool")
        .env("SOFTHSM2_CONF", dir.join("token/softhsm2.conf"))
        .args(["--module", module.trim_matches('"'), "--login", "--pin", pin.trim()])
        .args(["--token-label", "muhurdar-dev"])
        .args(arguments)
        .output();
    match made {
        Ok(made) if made.status.success() => true,
        other => {
            println!("SKIPPED: pkcs11-tool (apt-get install opensc): {other:?}");
            false
        }
    }
}

#[test]
fn log_check_and_list_agree_on_what_cannot_sign() {
    let prepared = Builder::default().taxpayers(1).prepare();
    let dir = prepared.dir().to_owned();
    let make = |label: &str, id: &str, kind: &str| {
        pkcs11_tool(
            &dir,
            &["--keypairgen", "--key-type", kind, "--label", label, "--id", id],
        )
    };
    let made = make("too-short", "72", "rsa:1024")
        && make("alone", "73", "EC:prime256v1")
        && pkcs11_tool(&dir, &["--delete-object", "--type", "pubkey", "--id", "73"]);
    if !made {
        return;
    }
    let config = dir.join("muhurdar.toml");
    let (checked, listed) = (check(&config), token_list(&config));
    assert!(listed.status.success(), "{}", listed.text);
    let appliance = prepared.start();
    for (label, why) in [
        ("too-short", "1024 bits"),
        ("alone", "no public key or certificate on the token verifies"),
    ] {
        for (who, said) in [
            ("check", &checked.text),
            ("list", &listed.text),
            ("log", &appliance.log()),
        ] {
            let told = said.lines().any(|line| line.contains(label) && line.contains(why));
            assert!(told, "{who} does not say of {label} that {why}:\n{said}");
        }
    }
}
