//! The load harness against the real service and a token that misbehaves on command: what it says must be true, above all on a
//! bad day.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "harness/relay.rs"]
mod relay;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use muhurdar_tests::{Builder, Output, Prepared, binary, own_address};
use serde_json::Value;

use self::relay::Relay;

/// Figures of one run should not be of another's load.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An appliance's folder whose token misbehaves on command, and the port that its service will listen on.
struct Bench {
    prepared: Prepared,
    endpoint: String,
    out: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let service = own_address();
        let prepared = Builder::default()
            .taxpayers(2)
            .listen(service, own_address())
            // A stall is longer than a call may take otherwise.
            .edit("[[token]]\n", "[[token]]\ncall_budget = \"30s\"\n")
            .prepare();
        let config = prepared.dir().join("muhurdar.toml");
        let text = fs::read_to_string(&config).unwrap();
        let module = text.lines().find_map(|line| line.strip_prefix("module = ")).unwrap();
        let faulty = std::env::current_exe()
            .unwrap()
            .with_file_name("libmuhurdar_faulty_token.so");
        let control = prepared.dir().join("control");
        let text = text
            .replace(
                &format!("module = {module}"),
                &format!("module = {:?}", faulty.display()),
            )
            .replace(
                "environment = { ",
                &format!("environment = {{ FAULTY_TOKEN_MODULE = {module}, FAULTY_TOKEN_CONTROL = {control:?}, "),
            );
        fs::write(&config, text).unwrap();
        Self {
            prepared,
            endpoint: format!("https://{service}"),
            out: tempfile::tempdir().unwrap(),
        }
    }

    /// Most tests need no folder of their own.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Bench> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    fn dir(&self) -> String {
        self.prepared.dir().display().to_string()
    }

    /// `muhurdar-loadtest run`, which starts this service and ends it.
    fn load(&self, service: &Path, arguments: &[&str]) -> Run {
        let config = self.prepared.dir().join("muhurdar.toml");
        let serve = format!("{} serve --config {}", service.display(), config.display());
        let mut all = vec!["--serve", &serve, "--no-ceiling"];
        all.extend(arguments);
        self.run(&all)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_at(&self.endpoint, arguments)
    }

    /// `muhurdar-loadtest run`, with what listens at `endpoint`.
    fn run_at(&self, endpoint: &str, arguments: &[&str]) -> Run {
        let out = self.out.path().display().to_string();
        let mut command = Command::new(binary("muhurdar-loadtest"));
        command.args([
            "run",
            "--dir",
            &self.dir(),
            "--endpoint",
            endpoint,
            "--out",
            &out,
            "--quiet",
        ]);
        // What an earlier run said is no answer to this one.
        let json = self.out.path().join("report.json");
        let _ = fs::remove_file(&json);
        let output = Output::of(command.args(arguments));
        let report = fs::read(json).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        Run {
            code: output.status.code(),
            said: output.text,
            report,
        }
    }

    fn script(&self, text: &str) -> String {
        let file = self.out.path().join("script");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }
}

struct Run {
    code: Option<i32>,
    said: String,
    report: Value,
}

impl Run {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer} in the report; it said:\n{}", self.said))
    }

    /// Exit code 0; or 1, where all that was wrong is that others kept the generator from its CPU, of which it must tell.
    fn is_good(&self) -> bool {
        let problems = self.report["problems"].as_array();
        let busy = |problem: &Value| {
            problem.as_str().is_some_and(|text| {
                [
                    "was late:",
                    "was the bottleneck",
                    "of the time for a CPU",
                    "of the CPU time that it wanted",
                ]
                .iter()
                .any(|words| text.contains(words))
            })
        };
        match self.code {
            Some(0) => true,
            Some(1) => problems.is_some_and(|all| !all.is_empty() && all.iter().all(busy)),
            _ => false,
        }
    }

    fn errors(&self) -> f64 {
        let errors = self.report["errors"].as_object();
        errors.map_or(0.0, |errors| errors.values().filter_map(Value::as_f64).sum())
    }
}

/// Requests come at λ = 100/s for T = 4 s, and for S = 1 s of them no signature is made. A request that is due s seconds into the stall
/// waits for its end and then for those before it, which are made at the token's rate μ: L(s) = S - s·(1 - λ/μ). So L is exceeded by those
/// within the first (S - L) / (1 - λ/μ) seconds of the stall, and the quantile q of all latencies is S - (1 - q)·T·(1 - λ/μ):
/// with μ between 600/s (a busy machine) and infinity, p90 lies between 0.60 s and 0.67 s, p99 between 0.96 s and 0.97 s, the largest at
/// 1 s, and at least 70 % are answered as if nothing had happened. Tolerance: 0.15 s, and upwards what a busy machine added in the same
/// run: how late the generator itself was, and what requests took that no stall touched.
#[test]
fn a_stall_of_the_token_shows_as_arithmetic_says_and_a_closed_loop_hides_it() {
    let _alone = alone();
    let bench = Bench::shared();
    let script = bench.script("2s stall 1s\n");
    let common = [
        "--script",
        &script,
        "--warmup",
        "500ms",
        "--duration",
        "4s",
        "--verify",
        "0",
    ];
    let load = |how: &[&str]| bench.load(&binary("muhurdar"), &[how, &common].concat());

    let open = load(&["--rate", "100"]);
    assert_eq!(open.number("/sealed"), 400.0, "{}", open.said);
    let noise = (open.number("/generator/lag_us/max") + open.number("/latency_us/p50")) / 1e6;
    for (quantile, least, most) in [("p90", 0.60, 0.67), ("p99", 0.96, 0.97), ("max", 1.0, 1.0)] {
        let measured = open.number(&format!("/latency_us/{quantile}")) / 1e6;
        assert!(
            (least - 0.15..most + 0.15 + noise).contains(&measured),
            "{quantile} is {measured} s; {least} to {most} s was to be expected, with {noise} s of noise"
        );
    }
    assert!(
        open.number("/latency_us/p50") < open.number("/latency_us/p90") / 3.0,
        "{}",
        open.said
    );
    let event = &open.report["events"][0];
    assert_eq!(event["what"], "stall 1s");
    assert!((event["until_s"].as_f64().unwrap() - event["at_s"].as_f64().unwrap() - 1.0).abs() < 0.01);

    // Four callers wait, and nobody else is asked: four slow requests among thousands.
    let closed = load(&["--closed", "--concurrency", "4"]);
    assert!(closed.number("/latency_us/max") > 850_000.0, "{}", closed.said);
    assert!(
        closed.number("/latency_us/p99") < open.number("/latency_us/p90") / 3.0,
        "a closed loop is expected to hide the stall: {}",
        closed.said
    );
    assert_eq!(closed.report["latency_loop"], "closed");
    assert!(closed.said.contains("hide stalls"), "{}", closed.said);
}

#[test]
fn a_flipped_bit_of_the_token_is_stopped_by_the_service_and_one_on_the_way_is_found_by_the_sample() {
    let _alone = alone();
    let bench = Bench::shared();
    let load = [
        "--warmup",
        "0",
        "--duration",
        "1500ms",
        "--rate",
        "150",
        "--verify",
        "50%",
    ];
    // As rarely as an only token may be wrong and stay in service.
    let script = bench.script("300ms token rule C_Sign /30 flip\n");
    let checked = bench.load(&binary("muhurdar"), &[&["--script", &script][..], &load].concat());
    assert_eq!(checked.number("/verify_failures"), 0.0, "{}", checked.said);
    assert!(checked.number("/verified") > 50.0, "{}", checked.said);
    assert!(
        checked.errors() + checked.number("/sealed") >= 225.0,
        "{}",
        checked.said
    );

    // Half of 40 wrong seals are in the sample; that none of them is has a chance of one in a million million.
    let mut server = bench.serve();
    let relay = Relay::before(&bench.endpoint, bench.prepared.dir(), own_address(), 45, 40);
    let spoiled = bench.run_at(&relay.endpoint, &[&["--no-ceiling"][..], &load].concat());
    server.end();
    assert_eq!(spoiled.code, Some(1), "{}", spoiled.said);
    let wrong = spoiled.number("/verify_failures");
    assert!((1.0..=40.0).contains(&wrong), "{}", spoiled.said);
    assert_eq!(spoiled.report["valid"], false);
    assert!(
        spoiled.said.contains("of the verified seals are wrong"),
        "{}",
        spoiled.said
    );
    let example = spoiled
        .report
        .pointer("/verification/examples/0")
        .unwrap()
        .as_str()
        .unwrap();
    assert!(example.contains("xmlsec1 finds"), "{example}");
}

#[test]
fn a_token_fails_and_returns_and_the_service_restarts_as_the_script_says_and_every_request_is_accounted_for() {
    let _alone = alone();
    let bench = Bench::shared();
    let script = bench.script("500ms fail muhurdar-dev\n1s restore muhurdar-dev\n2s restart\n3s run true\n");
    let run = bench.load(
        &binary("muhurdar"),
        &[
            "--script",
            &script,
            "--warmup",
            "0",
            "--duration",
            "4s",
            "--rate",
            "100",
            "--verify",
            "all",
        ],
    );
    assert!(run.is_good(), "{}", run.said);
    let (sealed, failed, missed) = (run.number("/sealed"), run.errors(), run.number("/missed_sends"));
    assert_eq!(sealed + failed + missed, 400.0, "{}", run.said);
    assert!(failed > 0.0 && sealed > 200.0, "{}", run.said);
    assert_eq!(run.number("/verified"), sealed, "{}", run.said);
    let events = run.report["events"].as_array().unwrap();
    let said: Vec<&str> = events.iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(said, ["fail muhurdar-dev", "restore muhurdar-dev", "restart", "true"]);
    let at = |event: &Value, name: &str| event[name].as_f64().unwrap();
    assert_eq!(
        at(&events[0], "until_s"),
        at(&events[1], "at_s"),
        "it is out until it is back"
    );
    let restarted = at(&events[2], "until_s");
    assert!(restarted > 2.0, "{restarted}");
    // Seals before, between and after.
    let slice = run.number("/series/slice_s");
    let sealed_in = |from: f64, to: f64| -> f64 {
        let all = run.report["series"]["sealed"].as_array().unwrap();
        let starts = std::iter::successors(Some(0.0), |start| Some(start + slice));
        let part = all
            .iter()
            .zip(starts)
            .filter(|(_, start)| from <= *start && start + slice <= to);
        part.filter_map(|(sealed, _)| sealed.as_f64()).sum()
    };
    assert!(
        sealed_in(0.0, 0.5) > 20.0 && sealed_in(1.5, 2.0) + sealed_in(restarted, 4.0) > 20.0,
        "{}",
        run.said
    );

    // What a script needs and nobody gave is said before any load.
    let run = bench.run(&["--script", &script, "--no-ceiling"]);
    assert_eq!(run.code, Some(64), "{}", run.said);
    assert!(run.said.contains("'restart' needs --serve COMMAND"), "{}", run.said);
    let script = bench.script("1s fail dev\n");
    let run = bench.run(&["--script", &script, "--no-ceiling"]);
    assert!(
        run.code == Some(64) && run.said.contains("no token has the label 'dev'"),
        "{}",
        run.said
    );
    // No service runs, and so no token either.
    let script = bench.script("1s stall 1s\n");
    let run = bench.run(&["--script", &script, "--no-ceiling"]);
    assert!(
        run.code == Some(69) && run.said.contains("none answers at"),
        "{}",
        run.said
    );
}

#[test]
fn the_search_ends_at_a_rate_that_holds_the_objective_and_thresholds_decide_the_exit_code() {
    let _alone = alone();
    let bench = Bench::shared();
    let search = [
        "--slo",
        "p99<60ms,errors<1%",
        "--duration",
        "500ms",
        "--warmup",
        "200ms",
        "--verify",
        "2%",
    ];
    let run = bench.load(
        &binary("muhurdar"),
        &[&search[..], &["--fail-unless", "rate>1"]].concat(),
    );
    let slo = &run.report["slo"];
    let tried = slo["tried"].as_array().unwrap();
    let rates = slo["rates"].as_array().unwrap();
    let count = |rate: &Value, name: &str| rate[name].as_u64().unwrap();
    let tries: u64 = rates
        .iter()
        .flat_map(|rate| ["held", "failed", "untold"].map(|name| count(rate, name)))
        .sum();
    assert!(usize::try_from(tries).unwrap() == tried.len() && tries <= 30, "{slo}");
    let closed = run.number("/slo/closed_loop_per_s");
    let doubts = slo["doubts"].as_array().unwrap();
    if let Some(holds) = slo["holds_per_s"].as_f64() {
        assert!(
            run.is_good() && run.said.contains("holds up to") && run.said.contains("how sure"),
            "{}",
            run.said
        );
        let tally = rates
            .iter()
            .find(|rate| rate["rate_per_s"].as_f64() == Some(holds))
            .unwrap();
        assert!(count(tally, "held") > count(tally, "failed"), "{slo}");
        let offered = run.number("/offered_per_s");
        assert!(
            (offered / holds - 1.0).abs() < 0.05,
            "the report is that of the knee: {}",
            run.said
        );
        assert!(
            holds >= closed / 2.0
                || doubts
                    .iter()
                    .any(|doubt| doubt.as_str().unwrap().contains("closed loop")),
            "far below {closed}/s, and nobody says so: {slo}"
        );
    } else {
        // On a machine that is busy enough nothing holds; then that is what must be said.
        eprintln!("no rate held the objective: this machine is busy");
        assert!(
            run.code == Some(1) && !doubts.is_empty() && run.said.contains("no rate that was tried holds"),
            "{}",
            run.said
        );
    }

    let short = ["--rate", "50", "--duration", "300ms", "--warmup", "0", "--verify", "0"];
    let run = bench.load(
        &binary("muhurdar"),
        &[&short[..], &["--fail-unless", "rate>100000"]].concat(),
    );
    assert_eq!(run.code, Some(1), "{}", run.said);
    assert!(run.said.contains("rate>100000") || run.is_good(), "{}", run.said);
}

#[test]
fn documents_travel_in_every_way_and_every_seal_is_verified_by_somebody_else() {
    let _alone = alone();
    let bench = Bench::shared();
    let samples = tempfile::tempdir().unwrap();
    // Of the project's own samples those that name a taxpayer of this appliance.
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples");
    let mut copied = 0;
    for file in muhurdar_tests::files(Path::new(own), "xml") {
        let document = fs::read(&file).unwrap();
        if muhurdar_tests::sealer_of(&document).is_some_and(|sealer| sealer == muhurdar_tests::RSA) {
            fs::copy(&file, samples.path().join(file.file_name().unwrap())).unwrap();
            copied += 1;
        }
    }
    assert!(copied > 1, "{own}");
    let folder = samples.path().display().to_string();
    let mixed = [
        "--kind",
        "invoice,earsiv,credit-note,despatch,receipt,response",
        "--size",
        "6k*3,60k,20k-dense",
    ];
    let branches = [
        "--branch",
        "branch-1,priority=interactive",
        "--branch",
        "branch-2,priority=bulk,share=3",
    ];
    let mut server = bench.serve();
    for way in [
        &["--mode", "stream", "--streams", "3"][..],
        &["--mode", "unary"],
        &["--mode", "batch", "--batch", "7"],
        &["--mode", "stream", "--signature-only"],
        &["--mode", "hash-only"],
        &[&mixed[..], &["--key-type", "all", "--zipf", "1"]].concat(),
        &[&mixed[..], &["--key-type", "all", "--mode", "hash-only"]].concat(),
        &branches,
        &["--documents", &folder],
        &["--documents", &folder, "--mode", "hash-only"],
    ] {
        let common = [
            "--rate",
            "60",
            "--duration",
            "500ms",
            "--warmup",
            "0",
            "--verify",
            "all",
            "--no-ceiling",
        ];
        let run = bench.run(&[way, &common].concat());
        assert!(run.is_good(), "{way:?}: {}", run.said);
        assert_eq!(run.number("/sealed"), 30.0, "{way:?}: {}", run.said);
        assert_eq!(run.number("/verified"), 30.0, "{way:?}: {}", run.said);
        if way.len() == 4 && way[0] == "--branch" {
            let share = |n: usize| run.number(&format!("/branches/{n}/sealed"));
            assert!(share(0) + share(1) == 30.0 && share(1) > share(0), "{}", run.said);
            assert_eq!(run.report["branches"][1]["priority"], "bulk");
        }
    }
    // Two agents do the same together, each a process that ends by itself.
    bench.two_agents();
    server.end();
}

/// A process that is ended with the test.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

impl Bench {
    /// The service, once it listens.
    fn serve(&self) -> Ended {
        let config = self.prepared.dir().join("muhurdar.toml");
        let server = Command::new(binary("muhurdar"))
            .args(["serve", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Ended)
            .unwrap();
        self.wait_for_service();
        server
    }

    fn wait_for_service(&self) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let address = self.endpoint.trim_start_matches("https://");
        while std::net::TcpStream::connect(address).is_err() {
            assert!(std::time::Instant::now() < end, "the service does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn two_agents(&self) {
        let keys = self.out.path().join("keys");
        let keys = keys.to_str().unwrap();
        let made = Output::of(Command::new(binary("muhurdar-loadtest")).args(["agent-keys", keys]));
        assert!(
            made.status.success() && made.text.contains("agent --keys"),
            "{}",
            made.text
        );
        let hosts = [own_address(), own_address()].map(|host| host.to_string());
        let agents = hosts.each_ref().map(|host| {
            let mut command = Command::new(binary("muhurdar-loadtest"));
            command.args(["agent", "--keys", keys, "--listen", host]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let mut agent = command.spawn().map(Ended).unwrap();
            // It says where it listens before anything else.
            let mut said = String::new();
            let mut lines = std::io::BufReader::new(agent.0.stderr.take().unwrap());
            std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
            assert!(said.contains("agent listens on"), "{said}");
            (agent, lines)
        });
        let run = self.run(&[
            "--agents",
            &hosts.join(","),
            "--agent-keys",
            keys,
            "--rate",
            "60",
            "--duration",
            "500ms",
            "--warmup",
            "0",
            "--verify",
            "all",
            "--no-ceiling",
            "--mode",
            "hash-only",
        ]);
        assert!(run.is_good(), "{}", run.said);
        assert_eq!(
            (run.number("/sealed"), run.number("/verified")),
            (30.0, 30.0),
            "{}",
            run.said
        );
        assert_eq!(
            (run.number("/agents/0/sealed"), run.number("/agents/1/sealed")),
            (15.0, 15.0)
        );
        for (mut agent, _lines) in agents {
            assert!(
                agent.0.wait().unwrap().success(),
                "an agent ends when its controller has gone"
            );
        }
    }
}
