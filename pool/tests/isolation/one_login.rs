//! A PIN is tried once, whoever tries it and however the try ends. Each way to log in, each way for that to go wrong, in processes of their own
//! that live and die as they would; the token counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use muhurdar_pool::admin::{Generate, Module, find_softhsm2};
use muhurdar_pool::{
    Config, InitArgs, Isolation, Latches, Measure, OpenError, Pin, Pool, Select, SignInput, SlotState, TokenConfig,
    exit,
};

use crate::common;

/// The hidden subcommand: this test binary logs in as somebody would.
const SUBCOMMAND: &str = "log-in-as";

const LABEL: &str = "counted";
const WRONG_PIN: &str = "771133";
/// A restart is a new process; as many in one as the loop of a supervisor would make in a minute.
const RESTARTS: usize = 20;
/// As a command: the token did not accept the login, and an operator must act.
const LATCHED: u8 = 77;

/// Who logs in.
const WAYS: [&str; 7] = [
    "service",
    "re-login",
    "isolated",
    "two-names",
    "command",
    "check",
    "harness",
];

/// How it goes wrong, and what the token is told for that.
const DEEDS: [(&str, &str); 5] = [
    ("wrong PIN", ""),
    ("vendor's code", "rule C_Login always answer 0x80000777"),
    ("crash", "rule C_Login always crash"),
    ("hang", "rule C_Login always hang"),
    ("kill", "rule C_Login always hang"),
];

pub(crate) fn each_way_and_each_deed_costs_one_call() {
    make_the_token();
    let cells: Vec<_> = WAYS.iter().flat_map(|way| DEEDS.map(|deed| (*way, deed))).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let mine = cells.iter().skip(worker).step_by(4).copied();
                scope.spawn(move || mine.for_each(|(way, deed)| cell(way, deed)))
            })
            .collect();
        for worker in workers {
            worker.join().expect("a cell of the table failed; it is named above");
        }
    });
}

fn cell(way: &str, (deed, rule): (&str, &str)) {
    let office = Office::new();
    // A login that went well before is the service's own.
    let before = u64::from(way == "re-login");
    office.pin(if deed == "wrong PIN" && way != "re-login" {
        WRONG_PIN
    } else {
        common::PIN
    });
    let first = office.log_in(way, deed, rule);
    let what = format!("{way}, {deed}");
    let (code, expected) = match deed {
        "kill" => (kill(&office, first, before + 1, "KILL"), None),
        // A command waits for the call as long as somebody waits for the command.
        "hang" if matches!(way, "command" | "check" | "harness") => (kill(&office, first, before + 1, "TERM"), None),
        "crash" if way != "isolated" => (end(first), None),
        _ => (end(first), Some(i32::from(LATCHED))),
    };
    assert_eq!((code, office.logins()), (expected, before + 1), "{what}");
    // The PIN is put right meanwhile, and nobody says so.
    office.pin(common::PIN);
    let again = office.log_in("restarts", way, "");
    assert_eq!(end(again), Some(i32::from(LATCHED)), "{what}, again");
    assert_eq!(office.logins(), before + 1, "{what}, after {RESTARTS} restarts");
    // An operator does: one try, and it is the right one. It is known by the name that the service has for it.
    assert!(muhurdar_pool::unlatch(&office.state(), "hsm").unwrap(), "{what}");
    assert_eq!(end(office.log_in("service", "", "")), Some(0), "{what}, unlatched");
    assert_eq!(office.logins(), before + 2, "{what}, unlatched");
}

/// A command beside a service whose login takes its time: it waits, or goes away without a try, and takes it for no crash.
pub(crate) fn a_login_beside_another_is_no_crash() {
    make_the_token();
    let office = Office::new();
    office.pin(common::PIN);
    let first = office.log_in("command", "", "rule C_Login 1 hang");
    office.wait_for(1);
    assert_eq!(
        end(office.log_in("command", "impatient", "")),
        Some(69),
        "it is told to come back"
    );
    let patient = office.log_in("command", "patient", "");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(office.logins(), 1, "one at a time");
    // `release` goes to the socket of whoever hangs.
    muhurdar_faulty_token::send(&office.control("command", ""), "release").unwrap();
    assert_eq!((end(first), end(patient)), (Some(0), Some(0)));
    assert_eq!(office.logins(), 2);
    assert_eq!(fs::read_dir(office.state()).unwrap().count(), 0, "nothing stands");
}

fn make_the_token() {
    static MADE: Once = Once::new();
    MADE.call_once(|| drop(common::token(LABEL, &[Generate::Rsa(2048)])));
}

/// A folder with a state folder, a PIN file and a count of its own, and with a token of its own: SoftHSM2 2.6.1 gives CKR_GENERAL_ERROR now and
/// then where several processes write to the files of one.
struct Office(tempfile::TempDir);

impl Office {
    fn new() -> Self {
        let office = Self(tempfile::tempdir().unwrap());
        let store = office.0.path().join("tokens");
        copy(&common::fixture().dir.path().join("tokens"), &store);
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", store.display());
        fs::write(office.0.path().join("softhsm2.conf"), conf).unwrap();
        office
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn pin(&self, pin: &str) {
        fs::write(self.0.path().join("pin"), pin).unwrap();
    }

    fn control(&self, way: &str, detail: &str) -> PathBuf {
        self.0.path().join(format!("{way}{detail}.sock").replace(' ', "-"))
    }

    /// What the token has counted.
    fn logins(&self) -> u64 {
        fs::metadata(self.0.path().join("logins")).map_or(0, |file| file.len())
    }

    fn wait_for(&self, logins: u64) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.logins() < logins {
            assert!(Instant::now() < end, "nobody calls C_Login");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_in(&self, way: &str, detail: &str, rule: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([SUBCOMMAND, way, detail, rule])
            .arg(self.0.path())
            .env("SOFTHSM2_CONF", self.0.path().join("softhsm2.conf"))
            .env("FAULTY_TOKEN_MODULE", find_softhsm2().unwrap())
            .env("FAULTY_TOKEN_CONTROL", self.control(way, detail))
            .env("FAULTY_TOKEN_LOGINS", self.0.path().join("logins"))
            .stdout(Stdio::null());
        if way != "re-login" {
            command.env("FAULTY_TOKEN_START", rule);
        }
        command.spawn().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).unwrap();
        }
    }
}

/// Ends a process that is inside `C_Login`.
fn kill(office: &Office, mut process: Child, logins: u64, signal: &str) -> Option<i32> {
    office.wait_for(logins);
    let sent = Command::new("kill")
        .args(["-s", signal, &process.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let code = process.wait().unwrap().code();
    // The child of an isolated module is an orphan that still hangs.
    for entry in fs::read_dir(office.0.path()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "sock") {
            // Whose process has ended, nobody listens.
            let _ = muhurdar_faulty_token::send(&entry.path(), "release");
        }
    }
    code
}

fn end(mut process: Child) -> Option<i32> {
    process.wait().unwrap().code()
}

/// Where this process is one that logs in, it does, and ends; its exit code says how that went.
pub(crate) fn is_one() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == SUBCOMMAND) {
        // A thread may hang in the module, and is not waited for.
        exit::now(log_in_once(arguments));
    }
}

fn log_in_once(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    let mut text = || arguments.next().unwrap().into_string().unwrap();
    let (way, detail, rule, dir) = (text(), text(), text(), PathBuf::from(text()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let outcome = if way == "restarts" {
        let ways = ["service", "command", "check", "harness", "service", detail.as_str()];
        (0..RESTARTS).map(|at| ways[at % ways.len()]).try_for_each(|way| {
            // A service that has its login already does not start any more.
            let way = if way == "re-login" { "service" } else { way };
            match runtime.block_on(log_in(way, "", "", &dir)) {
                Err(OpenError::Latched { .. }) => Ok(()),
                other => Err(other),
            }
        })
    } else {
        Err(runtime.block_on(log_in(&way, &detail, &rule, &dir)))
    };
    let code = match outcome {
        Ok(()) | Err(Err(OpenError::Latched { .. })) => LATCHED,
        Err(Ok(())) => 0,
        Err(Err(OpenError::Busy { .. })) => 69,
        Err(Err(error)) => {
            eprintln!("{way}: {error}");
            1
        }
    };
    runtime.shutdown_background();
    code
}

async fn log_in(way: &str, deed: &str, rule: &str, dir: &Path) -> Result<(), OpenError> {
    let module = std::env::current_exe()
        .unwrap()
        .with_file_name("libmuhurdar_faulty_token.so");
    // Of another name than the service's, as a command of another configuration may have.
    let name = if matches!(way, "command" | "harness") {
        "another name"
    } else {
        "hsm"
    };
    let pin = Pin::file(dir.join("pin"));
    let mut token = TokenConfig::new(name, module, Select::Label(LABEL.into()), pin);
    token.sessions = 1;
    token.call_budget = Duration::from_millis(match (way, deed) {
        // Who is killed must not give up before.
        (_, "kill" | "patient") => 30_000,
        (_, "impatient") => 50,
        // A busy machine takes its time for a healthy call.
        _ => 400,
    });
    let latches = Latches::at(dir.join("state"));
    let mut config = Config::new(vec![token.clone()]);
    config.state_dir = Some(dir.join("state"));
    match way {
        "service" | "isolated" | "two-names" | "re-login" => {
            if way == "isolated" {
                config.tokens[0].isolation = Isolation::Process;
            }
            if way == "two-names" {
                token.name = "the same by another name".into();
                config.tokens.push(token);
            }
            let pool = Pool::open(config).await?;
            let outcome = if way == "re-login" {
                lose_the_login(&pool, deed, rule, dir).await
            } else {
                Ok(())
            };
            pool.close().await;
            outcome
        }
        "command" => Module::open(&token.module, InitArgs::OsLocking)?
            .log_in(&token, &latches)
            .map(drop),
        "check" => {
            let measure = Measure {
                sessions: 1,
                each: Duration::ZERO,
            };
            muhurdar_pool::qualify(&token, &latches, measure).map(drop)
        }
        "harness" => muhurdar_pool::ceiling(&token, &latches, None, 1, Duration::from_millis(1)).map(drop),
        other => panic!("{other:?}"),
    }
}

/// The HSM forgets a login, and what comes next goes wrong.
async fn lose_the_login(pool: &Pool, deed: &str, rule: &str, dir: &Path) -> Result<(), OpenError> {
    let control = PathBuf::from(std::env::var_os("FAULTY_TOKEN_CONTROL").unwrap());
    if deed == "wrong PIN" {
        fs::write(dir.join("pin"), WRONG_PIN).unwrap();
        // SoftHSM2 itself has not forgotten it, and would not look at the PIN.
        muhurdar_faulty_token::send(&control, "rule C_Login always answer 0xa0").unwrap();
    } else {
        muhurdar_faulty_token::send(&control, rule).unwrap();
    }
    muhurdar_faulty_token::send(&control, "forget-login").unwrap();
    let key = pool.keys()[0].clone();
    loop {
        if let SlotState::Latched { reason } = pool.status().tokens[0].state.clone() {
            return Err(OpenError::Latched {
                token: String::new(),
                reason,
                way_back: String::new(),
            });
        }
        let _ = pool
            .sign(key.id, SignInput::message(key.kind.default_hash(), *b"x"), None)
            .await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
