//! A PIN is tried once, whoever tries it: the service, each command that logs in, and the harness. The token counts, over all processes; the
//! ways for a login to go wrong are all tried on each of them. (The service's own later logins, isolated modules and two names of one token
//! are in the pool's tests, with the same table.)

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muhurdar_tests::{Builder, Output, Prepared, binary, copy, faulty_token, muhurdar};

const LATCHED: i32 = 77;

/// Who logs in, and what it answers where the PIN is latched.
const WAYS: [(&str, i32); 7] = [
    ("serve", LATCHED),
    ("token list", LATCHED),
    ("token keygen --type p256 --label next", LATCHED),
    (
        "token csr --label 1234567890SIGN0 --taxpayer 1234567890 --title Deneme",
        LATCHED,
    ),
    ("token import CERTIFICATE", LATCHED),
    // It checks, and this is a check that fails.
    ("check --measure 0s", 1),
    ("ceiling", LATCHED),
];

/// How it goes wrong, and what the token is told for that.
const DEEDS: [(&str, &str); 5] = [
    ("wrong PIN", ""),
    ("vendor's code", "rule C_Login always answer 0x80000777"),
    ("crash", "rule C_Login always crash"),
    ("hang", "rule C_Login always hang"),
    ("kill", "rule C_Login always hang"),
];

/// A configuration with a PIN file, a state folder and a count of its own, and a copy of the token: SoftHSM2 2.6.1 gives CKR_GENERAL_ERROR now
/// and then where several processes write to the files of one.
struct Office {
    dir: PathBuf,
    softhsm: PathBuf,
    config: PathBuf,
    pin: PathBuf,
    right: String,
    logins: PathBuf,
}

impl Office {
    fn new(appliance: &Prepared, name: &str) -> Self {
        let dir = appliance.dir();
        let own = |suffix: &str| dir.join(format!("{name}{suffix}"));
        let token = own(".token");
        copy(&dir.join("token"), &token);
        let softhsm = token.join("softhsm2.conf");
        let moved = fs::read_to_string(&softhsm).unwrap().replace(
            &format!("{}/", dir.join("token").display()),
            &format!("{}/", token.display()),
        );
        fs::write(&softhsm, moved).unwrap();
        let office = Self {
            config: own(".toml"),
            pin: own(".pin"),
            right: fs::read_to_string(dir.join("token/pin")).unwrap(),
            logins: own(".logins"),
            softhsm,
            dir: dir.to_owned(),
        };
        let text = fs::read_to_string(dir.join("muhurdar.toml")).unwrap();
        let state = format!("[server]\nstate_dir = \"{name}.state\"\n");
        let text = text
            .replace("[server]\n", &state)
            .replace("\"token/pin\"", &format!("\"{name}.pin\""));
        let text: String = text
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some(("module", _)) => format!(
                    "module = {:?}\ncall_budget = \"400ms\"\n",
                    faulty_token().display().to_string()
                ),
                Some(("environment", _)) => format!(
                    "environment = {{ SOFTHSM2_CONF = {:?} }}\n",
                    office.softhsm.display().to_string()
                ),
                _ => format!("{line}\n"),
            })
            .collect();
        fs::write(&office.config, text).unwrap();
        fs::write(&office.pin, &office.right).unwrap();
        office
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} in {text}");
        fs::write(&self.config, text.replacen(from, to, 1)).unwrap();
    }

    fn logins(&self) -> u64 {
        fs::metadata(&self.logins).map_or(0, |file| file.len())
    }

    fn command(&self, way: &str, rule: &str) -> Command {
        let config = self.config.to_str().unwrap();
        let dir = self.dir.as_path();
        let mut command = if way == "ceiling" {
            let mut command = Command::new(binary("muhurdar-loadtest"));
            command.args([
                "ceiling",
                "--in-process",
                "--sessions",
                "1",
                "--duration",
                "50ms",
                "--token-config",
                config,
            ]);
            command
        } else {
            let certificate = dir.join("certificates").join(the_certificate(dir));
            let way = way.replace("CERTIFICATE", certificate.to_str().unwrap());
            let mut command = Command::new(binary("muhurdar"));
            command.args(way.split(' ')).args(["--config", config]);
            command
        };
        let module = fs::read_to_string(dir.join("muhurdar.toml")).unwrap();
        let module = module.lines().find_map(|line| line.strip_prefix("module = ")).unwrap();
        command
            .env("SOFTHSM2_CONF", &self.softhsm)
            .env("FAULTY_TOKEN_MODULE", module.trim_matches('"'))
            .env("FAULTY_TOKEN_LOGINS", &self.logins)
            .env("FAULTY_TOKEN_START", rule);
        command
    }

    fn run(&self, way: &str, rule: &str) -> Output {
        Output::of(&mut self.command(way, rule))
    }

    /// Has it inside `C_Login`, and ends it there.
    fn kill(&self, way: &str, rule: &str, signal: &str) {
        let before = self.logins();
        let mut command = self.command(way, rule);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while self.logins() == before {
            assert!(Instant::now() < end, "{way} does not log in");
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill")
            .args(["-s", signal, &process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        process.wait().unwrap();
    }
}

fn the_certificate(dir: &Path) -> String {
    let names = fs::read_dir(dir.join("certificates")).unwrap().flatten();
    let mut names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.find(|name| name.ends_with("SIGN0.crt")).unwrap()
}

#[test]
fn each_command_and_each_way_for_a_login_to_go_wrong_costs_one_call() {
    let cells: Vec<_> = (0..WAYS.len())
        .flat_map(|way| DEEDS.map(|deed| (way, deed)))
        .enumerate()
        .collect();
    let appliance = Builder::default().taxpayers(1).prepare();
    let appliance = &appliance;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let mine = cells.iter().skip(worker).step_by(4).copied();
                scope.spawn(move || mine.for_each(|(at, (way, deed))| cell(appliance, at, way, deed)))
            })
            .collect();
        for worker in workers {
            worker.join().expect("a cell of the table failed; it is named above");
        }
    });
}

fn cell(appliance: &Prepared, at: usize, way: usize, (deed, rule): (&str, &str)) {
    let office = Office::new(appliance, &format!("cell-{at}"));
    let (name, code) = WAYS[way];
    let what = format!("{name}, {deed}");
    if deed == "wrong PIN" {
        fs::write(&office.pin, "48151623").unwrap();
    }
    match deed {
        "kill" => {
            office.edit("call_budget = \"400ms\"", "call_budget = \"30s\"");
            office.kill(name, rule, "KILL");
        }
        // The service gives the call up; a command waits as long as somebody waits for the command.
        "hang" if name != "serve" && !name.starts_with("check") => office.kill(name, rule, "TERM"),
        _ => {
            let output = office.run(name, rule);
            let expected = (deed != "crash").then_some(code);
            assert_eq!(output.status.code(), expected, "{what}: {}", output.text);
            assert!(!output.text.contains("48151623"), "{what}: {}", output.text);
        }
    }
    assert_eq!(office.logins(), 1, "{what}");
    // The PIN is put right, and nobody says so: another command, then the service, are refused without a try.
    fs::write(&office.pin, &office.right).unwrap();
    let (next, next_code) = WAYS[(way + 1 + at) % WAYS.len()];
    let restarts = if name == "serve" && deed == "vendor's code" {
        20
    } else {
        1
    };
    for (way, code) in std::iter::once((next, next_code)).chain(std::iter::repeat_n(("serve", LATCHED), restarts)) {
        let output = office.run(way, "");
        assert_eq!(output.status.code(), Some(code), "{what}, then {way}: {}", output.text);
        let config = office.config.display();
        assert!(
            output
                .text
                .contains(&format!("`muhurdar token unlatch --config {config} --token dev`"))
                && output.text.contains("never with the PUK"),
            "{what}, then {way}: {}",
            output.text
        );
    }
    assert_eq!(office.logins(), 1, "{what}, again");
    // What the message says is the way back.
    let config = office.config.to_str().unwrap();
    let output = muhurdar(&["token", "unlatch", "--config", config, "--token", "dev"]);
    assert!(output.status.success(), "{what}: {}", output.text);
    let output = office.run("token list", "");
    assert!(output.status.success(), "{what}, unlatched: {}", output.text);
    assert_eq!(office.logins(), 2, "{what}, unlatched");
}

#[test]
fn a_latched_token_decides_the_exit_code_whatever_another_suffers_from() {
    let appliance = Builder::default().taxpayers(1).prepare();
    let office = Office::new(&appliance, "two-tokens");
    fs::write(&office.pin, "48151623").unwrap();
    let text = fs::read_to_string(&office.config).unwrap();
    let begin = text.find("[[token]]").unwrap();
    let end = begin + text[begin..].find("[[client]]").unwrap();
    let away = text[begin..end]
        .replace("name = \"dev\"", "name = \"away\"")
        .replace("label = \"", "label = \"not ");
    office.edit("[[token]]", &format!("{away}[[token]]"));
    let output = office.run("serve", "");
    assert_eq!(
        (output.status.code(), office.logins()),
        (Some(LATCHED), 1),
        "{}",
        output.text
    );
}

#[test]
fn where_the_latch_cannot_be_written_no_pin_is_tried() {
    let appliance = Builder::default().taxpayers(1).prepare();
    let office = Office::new(&appliance, "unwritable");
    office.edit(
        "state_dir = \"unwritable.state\"",
        "state_dir = \"unwritable.toml/state\"",
    );
    for way in ["serve", "token list"] {
        let output = office.run(way, "");
        assert_eq!(
            (output.status.code(), office.logins()),
            (Some(64), 0),
            "{}",
            output.text
        );
        assert!(output.text.contains("server.state_dir"), "{}", output.text);
    }
}

#[test]
fn a_byte_order_mark_in_a_pin_file_costs_no_try() {
    let appliance = Builder::default().taxpayers(1).prepare();
    let office = Office::new(&appliance, "marked");
    fs::write(&office.pin, format!("\u{feff}{}", office.right)).unwrap();
    let output = office.run("serve", "");
    assert_eq!(
        (output.status.code(), office.logins()),
        (Some(LATCHED), 0),
        "{}",
        output.text
    );
    assert!(output.text.contains("byte order mark"), "{}", output.text);
    fs::write(&office.pin, &office.right).unwrap();
    let output = office.run("token list", "");
    assert!(output.status.success(), "nothing is latched: {}", output.text);
}
