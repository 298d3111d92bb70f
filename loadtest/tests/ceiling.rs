//! The token alone, measured for real: SoftHSM2 with a key that `pkcs11-tool` made.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PLACES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// A folder with a token and the server configuration that names it; None, and why, where the tools are missing.
fn token() -> Result<tempfile::TempDir, String> {
    let module = PLACES
        .iter()
        .find(|place| Path::new(place).exists())
        .ok_or("SoftHSM2 is not installed (apt-get install softhsm2)")?;
    let folder = tempfile::tempdir().unwrap();
    let (tokens, conf) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
    fs::create_dir(&tokens).unwrap();
    fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    let tool = |name: &str, arguments: &[&str]| -> Result<(), String> {
        let output = Command::new(name)
            .args(arguments)
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .map_err(|_| format!("{name} is not installed (apt-get install softhsm2 opensc)"))?;
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    tool(
        "softhsm2-util",
        &[
            "--init-token",
            "--free",
            "--label",
            "test",
            "--so-pin",
            "5678",
            "--pin",
            "1234",
        ],
    )?;
    let login = ["--module", module, "--token-label", "test", "--login", "--pin", "1234"];
    tool(
        "pkcs11-tool",
        &[
            &login[..],
            &[
                "--keypairgen",
                "--key-type",
                "rsa:2048",
                "--id",
                "01",
                "--label",
                "seal",
            ],
        ]
        .concat(),
    )?;
    fs::write(folder.path().join("pin"), "1234\n").unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[[token]]\nname = \"soft\"\nmodule = \"{module}\"\nlabel = \"test\"\npin_file = \"pin\"\n\
         sessions = 2\nenvironment = {{ SOFTHSM2_CONF = \"{}\" }}\n",
        conf.display()
    );
    fs::write(folder.path().join("muhurdar.toml"), config).unwrap();
    Ok(folder)
}

fn ceiling(config: PathBuf, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muhurdar-loadtest"))
        .args(["ceiling", "--json", "--duration", "200ms", "--token-config"])
        .arg(config)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_token_is_measured_by_itself_with_as_many_sessions_as_asked() {
    let folder = match token() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED the_token_is_measured_by_itself_with_as_many_sessions_as_asked: {why}"),
    };
    let output = ceiling(folder.path().join("muhurdar.toml"), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sessions: Vec<u64> = measured
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["sessions"].as_u64().unwrap())
        .collect();
    assert_eq!(sessions, [1, 2]);
    // An RSA-2048 signature takes SoftHSM2 some 600 µs; no machine makes it a thousand times faster or slower.
    for measured in measured.as_array().unwrap() {
        assert!(
            (5.0..1e6).contains(&measured["sign_per_s"].as_f64().unwrap()),
            "{measured}"
        );
        assert!(
            (20.0..50_000.0).contains(&measured["cpu_us_per_sign"].as_f64().unwrap()),
            "{measured}"
        );
    }
}

#[test]
fn a_wrong_pin_is_told_with_its_cause_and_without_the_pin() {
    let folder = match token() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED a_wrong_pin_is_told_with_its_cause_and_without_the_pin: {why}"),
    };
    fs::write(folder.path().join("pin"), "987654321\n").unwrap();
    let output = ceiling(folder.path().join("muhurdar.toml"), &["--sessions", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(
        said.contains("CKR_PIN_INCORRECT") && !said.contains("987654321"),
        "{said}"
    );
}

#[test]
fn a_configuration_without_such_a_token_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muhurdar.toml");
    fs::write(&file, "[server]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let output = ceiling(file, &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("names no [[token]]"));
}

#[test]
fn what_the_configuration_lacks_is_named_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muhurdar.toml");
    let module = folder.path().join("vendor.so");
    fs::write(&module, "").unwrap();
    let token = format!("[[token]]\nname = \"hsm\"\nmodule = {:?}\n", module.display());
    let pin = folder.path().join("pin");
    fs::write(&pin, "1234\n").unwrap();
    for (text, arguments, code, said) in [
        (
            String::new(),
            &[][..],
            64,
            "write its name, module, label (or serial, or slot) and pin_file",
        ),
        (
            token.clone(),
            &["--token", "other"],
            64,
            "names no token 'other'; it names hsm",
        ),
        (
            token.clone(),
            &[],
            69,
            "token hsm names no pin_file: a file whose first line is its user PIN",
        ),
        (
            format!("{token}pin_file = \"no-pin\"\n"),
            &[],
            69,
            "pin_file of token hsm",
        ),
        (
            format!("{}pin_file = \"pin\"\n", token.replace("vendor.so", "absent.so")),
            &[],
            69,
            "module of token hsm",
        ),
    ] {
        fs::write(&file, &text).unwrap();
        let output = ceiling(file.clone(), arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && error.contains(said),
            "{said}: {error}"
        );
    }
}

#[test]
fn a_token_or_a_key_that_is_not_there_is_told_with_how_it_was_chosen() {
    let folder = match token() {
        Ok(folder) => folder,
        Err(why) => {
            return eprintln!("SKIPPED a_token_or_a_key_that_is_not_there_is_told_with_how_it_was_chosen: {why}");
        }
    };
    let file = folder.path().join("muhurdar.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("label = \"test\"", "label = \"absent\"")).unwrap();
    let output = ceiling(file, &["--sessions", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(69) && said.contains("absent") && said.contains("chosen by label, serial or slot"),
        "{said}"
    );
}

#[test]
fn without_a_token_it_says_how_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display().to_string();
    for (arguments, said) in [
        (vec![], "--token-config FILE, a service's"),
        (vec!["--dir", &dir], "no muhurdar.toml in it"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_muhurdar-loadtest"))
            .arg("ceiling")
            .args(&arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && error.contains(said), "{error}");
    }
}

#[test]
fn the_help_says_what_a_measurement_needs() {
    let output = Command::new(env!("CARGO_BIN_EXE_muhurdar-loadtest"))
        .args(["ceiling", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    for words in ["[[token]]", "module ", "label ", "pin_file ", "CKA_SIGN", "unlatch"] {
        assert!(help.contains(words), "{words}:\n{help}");
    }
}
