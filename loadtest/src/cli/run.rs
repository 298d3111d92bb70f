//! `muhurdar-loadtest run`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use muhurdar_proto::seal::v1::{Answer, Priority};
use serde::Deserialize;

use super::Exit;
use crate::{
    agents::{Fleet, FleetError},
    ceiling::CeilingOrder,
    criteria::Criteria,
    driver::{Branch, DriveError, Mode, Setup},
    generator::{self, Given, Kind, SizeMix, Taxpayer, TaxpayerMix, Workload},
    plan::{self, PlanSpec},
    report::{self, Report},
    run::{self, Order, RunError},
    screen::Screen,
    service_config, slo,
    target::{self, Identity, Target},
    timeline::{self, Action, Hands, Needs, Service},
    verify,
};

const TARGET: &str = "Whom to load";
const LOAD: &str = "How much";
const WORK: &str = "With what";
const FAULTS: &str = "What happens meanwhile";
const REPORT: &str = "What comes out";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of `muhurdar dev`: endpoint, certificates, taxpayers, metrics and token are found there
    #[arg(long, value_name = "DIR", help_heading = TARGET)]
    dir: Option<PathBuf>,
    /// Where the service listens: https://host:port
    #[arg(long, value_name = "URL", help_heading = TARGET, required_unless_present = "dir")]
    endpoint: Option<String>,
    /// CA certificates that vouch for the service, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, required_unless_present = "dir")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, requires = "cert")]
    key: Option<PathBuf>,
    /// A branch with its own certificate, instead of --cert: CERT[:KEY][,priority=bulk][,share=3]; a name such as branch-2 is looked up
    /// in clients/ of --dir. Again for each branch
    #[arg(long = "branch", value_name = "BRANCH", help_heading = TARGET, conflicts_with = "cert")]
    branches: Vec<String>,
    /// The server's metrics page: http://host:port/metrics
    #[arg(long, value_name = "URL", help_heading = TARGET)]
    metrics: Option<String>,
    /// Taxpayers to seal for: a taxpayers.json
    #[arg(long, value_name = "FILE", help_heading = TARGET)]
    taxpayers: Option<PathBuf>,
    /// A taxpayer to seal for, VKN or TCKN. Again for each
    #[arg(long = "taxpayer", value_name = "VKN", help_heading = TARGET, conflicts_with = "taxpayers")]
    taxpayer: Vec<String>,
    /// Only taxpayers with such a key: rsa, rsa2048, p384, all. RSA-2048 where the file has any, since that is what a ceiling compares with
    #[arg(long, value_name = "TYPE", help_heading = TARGET)]
    key_type: Option<String>,

    /// Open loop at this many requests a second, whatever the answers do
    #[arg(long, value_name = "N", help_heading = LOAD, conflicts_with_all = ["closed", "plan"])]
    rate: Option<f64>,
    /// Closed loop: every caller waits for its answer. Finds a rate; its latencies hide stalls
    #[arg(long, help_heading = LOAD, conflicts_with = "plan")]
    closed: bool,
    /// Callers of a closed loop
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 32)]
    concurrency: usize,
    /// peak | closed:N | constant:R | poisson:R | steps:A..B/S | ramp:A..B | spikes:BASE,SPIKE/EVERY/LASTING | replay:FILE
    #[arg(long, value_name = "PLAN", help_heading = LOAD, default_value = "peak")]
    plan: PlanSpec,
    /// Search for the highest rate that holds this, such as p99<20ms,errors<0.1%; each rate is tried for --duration
    #[arg(long, value_name = "LIST", help_heading = LOAD, conflicts_with_all = ["rate", "closed", "plan"])]
    slo: Option<Criteria>,
    /// How long to measure
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "15s", value_parser = time)]
    duration: Duration,
    /// Load beforehand that is not counted
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "2s", value_parser = time_or_none)]
    warmup: Duration,
    /// The most requests in flight; what the plan wants beyond is counted as not sent
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 4096)]
    max_in_flight: usize,
    /// Threads of the generator, on each agent
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 1)]
    threads: usize,
    /// Agents that make the load instead of this machine: host or host:port
    #[arg(long, value_name = "HOST,…", help_heading = LOAD, value_delimiter = ',', requires = "agent_keys")]
    agents: Vec<String>,
    /// Folder with ca.crt, controller.crt and controller.key, as `agent-keys` makes them
    #[arg(long, value_name = "DIR", help_heading = LOAD, requires = "agents")]
    agent_keys: Option<PathBuf>,
    /// How far an agent's clock may be from this machine's
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "500ms", value_parser = time)]
    clock_limit: Duration,
    /// How long to wait for the last answers
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "10s", value_parser = time)]
    drain: Duration,

    /// Kinds of documents
    #[arg(long, value_name = "KIND", help_heading = WORK, value_delimiter = ',', default_value = "invoice")]
    kind: Vec<Kind>,
    /// The .xml files of a folder instead of generated documents, each for the taxpayer whom it names
    #[arg(long, value_name = "DIR", help_heading = WORK, conflicts_with_all = ["kind", "size"])]
    documents: Option<PathBuf>,
    /// Size of the documents: 10k, 100k-dense, a mix such as 10k*70,100k*20,260k*10, or season
    #[arg(long, value_name = "SIZE", help_heading = WORK, default_value = "10k")]
    size: SizeMix,
    /// How requests travel
    #[arg(long, value_name = "MODE", help_heading = WORK, default_value = "stream")]
    mode: Mode,
    /// Documents per call with --mode batch
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 16)]
    batch: usize,
    /// Ask for the seal alone instead of the sealed document
    #[arg(long, help_heading = WORK)]
    signature_only: bool,
    /// Priority of every request: interactive, normal, bulk
    #[arg(long, value_name = "PRIORITY", help_heading = WORK, value_parser = priority)]
    priority: Option<Priority>,
    /// The n-th taxpayer is asked for in proportion to 1/n^EXPONENT; 0 treats all alike
    #[arg(long, value_name = "EXPONENT", help_heading = WORK, default_value_t = 0.0)]
    zipf: f64,
    /// The same seed gives the same documents
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 1)]
    seed: u64,
    /// Connections per branch and thread
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 4)]
    connections: usize,
    /// Streams on each connection with --mode stream
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 1)]
    streams: usize,

    /// Do things at times of the load, and draw them over the graphs. A line each: a time and fail LABEL, restore LABEL, stall TIME,
    /// token COMMAND, signal NAME, restart or run COMMAND; such as 30s fail slot-1
    #[arg(long, value_name = "FILE", help_heading = FAULTS)]
    script: Option<PathBuf>,
    /// Run a shell command at a time of the load, and draw it over the graphs: 30s=systemctl reload muhurdar. Again for each
    #[arg(long = "at", value_name = "TIME=COMMAND", help_heading = FAULTS)]
    actions: Vec<Action>,
    /// Start the service by this command, and end it after the run: a script can then signal and restart it
    #[arg(long, value_name = "COMMAND", help_heading = FAULTS)]
    serve: Option<String>,
    /// The service's process, for a script's signals
    #[arg(long, value_name = "PID", help_heading = FAULTS, conflicts_with = "serve")]
    pid: Option<i32>,
    /// Control socket of a token that misbehaves on command; found in muhurdar.toml of --dir where it is in the token's environment
    #[arg(long, value_name = "SOCKET", help_heading = FAULTS)]
    token_control: Option<PathBuf>,

    /// Folder for report.html, report.json and latency.hgrm
    #[arg(long, value_name = "DIR", help_heading = REPORT)]
    out: Option<PathBuf>,
    /// Print the report as JSON instead of a table
    #[arg(long, help_heading = REPORT)]
    json: bool,
    /// Name of the run in the report
    #[arg(long, value_name = "TEXT", help_heading = REPORT)]
    label: Option<String>,
    /// Share of the seals to verify: 1%, 0.5%, all, 0
    #[arg(long, value_name = "SHARE", help_heading = REPORT)]
    verify: Option<String>,
    /// Fail (exit 1) unless this holds: p99<20ms,errors<0.1%,rate>1000
    #[arg(long, value_name = "LIST", help_heading = REPORT)]
    fail_unless: Option<Criteria>,
    /// The server's configuration, for measuring its token by itself
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    token_config: Option<PathBuf>,
    /// Do not measure the token by itself
    #[arg(long, help_heading = REPORT)]
    no_ceiling: bool,
    /// No progress
    #[arg(long, short, help_heading = REPORT)]
    quiet: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    plan::duration(text).ok_or_else(|| format!("'{text}' is not a time: write 15s, 500ms, 2m"))
}

fn time_or_none(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") {
        Ok(Duration::ZERO)
    } else {
        time(text)
    }
}

fn priority(text: &str) -> Result<Priority, String> {
    Priority::from_str_name(&format!("PRIORITY_{}", text.to_ascii_uppercase()))
        .ok_or_else(|| format!("'{text}' is not a priority: interactive, normal, bulk"))
}

/// What of `muhurdar.toml` is of use here.
#[derive(Debug, Deserialize)]
struct ServerToml {
    server: Option<ServerSection>,
    #[serde(default)]
    token: Vec<TokenSection>,
}

#[derive(Debug, Deserialize)]
struct TokenSection {
    #[serde(default)]
    environment: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct ServerSection {
    admin_listen: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let screen = Screen::new(args.quiet);
    let (json, out) = (args.json, args.out.clone());
    let mut order = order(args)?;
    // From here on: the service that was started for the run ends with it.
    order.hands = hands(args, &order)?;
    let order = order;
    let found = match &args.slo {
        Some(criteria) => slo::search(&order, criteria, args.duration, args.warmup, args.concurrency, &screen),
        None => run::run(&order, &screen),
    };
    let (report, latency) = found.map_err(|error| match error {
        RunError::Drive(DriveError::Connect(error)) => Exit::unavailable(error),
        RunError::Drive(DriveError::Interrupted) => Exit::interrupted(),
        RunError::Drive(DriveError::Target(error)) => Exit::usage(error),
        RunError::Drive(error @ DriveError::Certificate(..)) => Exit::usage(error),
        RunError::NoVerifier => Exit::unavailable(verify::missing()),
        other => Exit::unavailable(other),
    })?;
    let written = match &out {
        Some(folder) => Some(
            report::write(&report, &latency, folder)
                .map_err(|error| Exit::failed(format!("cannot write the report into {}: {error}", folder.display())))?,
        ),
        None => None,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(Exit::failed)?);
    } else {
        print!("{}", report::table(&report, written.as_ref()));
    }
    verdict(&report, args.fail_unless.as_ref())
}

/// Exit 1 where the figures are not valid, a criterion is broken, or no rate holds the objective.
fn verdict(report: &Report, criteria: Option<&Criteria>) -> Result<(), Exit> {
    if !report.valid {
        return Err(Exit::failed(format!(
            "the run is not valid: {}",
            report.problems.join("; ")
        )));
    }
    if let Some(slo) = report.slo.as_ref().filter(|slo| slo.holds_per_s.is_none()) {
        return Err(Exit::failed(format!("no rate that was tried holds {}", slo.asked)));
    }
    let broken = criteria.map(|criteria| criteria.broken(report)).unwrap_or_default();
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Exit::failed(broken.join("; ")))
    }
}

/// From what was asked to what is to be done; every file is read here.
fn order(args: &Args) -> Result<Order, Exit> {
    let dir = args.dir.as_deref();
    let client = match dir {
        Some(dir) => Some(target::read_client_file(&dir.join("client.toml")).map_err(Exit::usage)?),
        None => None,
    };
    let endpoint = args
        .endpoint
        .clone()
        .or_else(|| client.as_ref().map(|c| c.endpoint.clone()))
        .unwrap_or_default();
    let ca = args
        .ca
        .clone()
        .or_else(|| client.as_ref().map(|c| c.ca.clone()))
        .unwrap_or_default();
    let target = Target::open(&endpoint, &ca).map_err(Exit::usage)?;
    let branches = branches(args, client.map(|client| client.identity))?;
    let taxpayers = taxpayers(args)?;
    let ceiling = match (args.no_ceiling, args.token_config.clone(), dir) {
        (true, ..) => None,
        (false, Some(config), _) => Some(config),
        (false, None, Some(dir)) => Some(dir.join("muhurdar.toml")),
        (false, None, None) => None,
    }
    .map(|config| CeilingOrder {
        config,
        token: None,
        certificate: taxpayers
            .first()
            .and_then(|taxpayer| taxpayer.certificate.as_ref().map(|der| der.to_vec())),
        sessions: None,
        duration: Duration::from_millis(1500),
    });
    let given = match &args.documents {
        Some(folder) => Some(documents(folder, &taxpayers)?),
        None => None,
    };
    let mix = TaxpayerMix::new(taxpayers, args.zipf).ok_or_else(|| {
        Exit::usage("no taxpayer to seal for: --taxpayer VKN, --taxpayers FILE, or another --key-type")
    })?;
    let share = match &args.verify {
        Some(text) => {
            verify::share(text).ok_or_else(|| Exit::usage(format!("--verify '{text}': write 1%, all or 0")))?
        }
        None => 0.01,
    };
    for (name, value) in [
        ("--connections", args.connections),
        ("--streams", args.streams),
        ("--threads", args.threads),
        ("--concurrency", args.concurrency),
        ("--max-in-flight", args.max_in_flight),
        ("--batch", args.batch),
    ] {
        if value == 0 || value > 1_000_000 {
            return Err(Exit::usage(format!("{name} must be at least 1 and at most 1000000")));
        }
    }
    let spec = match (args.rate, args.closed) {
        (Some(rate), _) if rate > 0.0 && rate <= 1e7 => PlanSpec::Constant(rate),
        (Some(rate), _) => {
            return Err(Exit::usage(format!(
                "--rate {rate}: a rate is above 0 and at most 10000000"
            )));
        }
        (None, true) => PlanSpec::Closed(args.concurrency),
        (None, false) => args.plan.clone(),
    };
    let plan = spec
        .plan(args.duration, args.warmup, args.concurrency)
        .map_err(Exit::usage)?;
    Ok(Order {
        setup: Setup {
            target,
            branches,
            workload: Workload {
                kinds: args.kind.clone(),
                sizes: args.size.clone(),
                taxpayers: mix,
                seed: args.seed,
                issue_date: jiff::Zoned::now().date(),
                given,
            },
            mode: args.mode,
            answer: if args.signature_only {
                Answer::SignatureOnly
            } else {
                Answer::SealedDocument
            },
            connections: args.connections,
            streams: args.streams,
            batch: args.batch,
            workers: args.threads,
            max_in_flight: args.max_in_flight,
            sample: share,
            sample_bytes: 256 << 20,
            drain: args.drain,
        },
        plan,
        metrics: metrics(args)?,
        ceiling,
        verify: (share, args.verify.is_some()),
        config: args
            .token_config
            .clone()
            .or_else(|| Some(dir?.join("muhurdar.toml")))
            .map(|file| service_config::read(&file))
            .unwrap_or_default(),
        command: std::env::args().collect(),
        label: args.label.clone(),
        actions: actions(args)?,
        hands: Hands::default(),
        fleet: fleet(args)?,
        interrupted: interrupted(),
    })
}

/// A folder's documents, each with the taxpayer whom it names: one whose seal can be asked for.
fn documents(folder: &Path, taxpayers: &[Taxpayer]) -> Result<Arc<[Given]>, Exit> {
    // Whom a document names is asked of the engine that a branch would prepare it with; any certificate does for that.
    let certificate = taxpayers.iter().find_map(|taxpayer| {
        let der = taxpayer.certificate.as_deref()?;
        muhurdar_xades::Certificate::from_der(der).ok()
    });
    let sealer = |document: &[u8]| {
        let Some(certificate) = &certificate else {
            return Ok(None);
        };
        let sealing = muhurdar_xades::Sealing {
            certificate,
            policy: &muhurdar_xades::Policy::default(),
            limits: &muhurdar_xades::Limits::default(),
            signing_time: jiff::Timestamp::now(),
            expect: None,
        };
        let prepared = muhurdar_xades::prepare(document, &sealing).map_err(|refusal| refusal.to_string())?;
        match prepared.sealer().taxpayer() {
            Some(named) if taxpayers.iter().all(|taxpayer| *taxpayer.number != *named) => Err(format!(
                "it names {named}, for whom no seal can be asked here (--taxpayers, --taxpayer, --key-type; muhurdar dev --taxpayer {named})"
            )),
            named => Ok(named.map(str::to_owned)),
        }
    };
    generator::read_folder(folder, sealer).map_err(Exit::usage)
}

/// From the script and from `--at`.
fn actions(args: &Args) -> Result<Vec<Action>, Exit> {
    let mut actions = match &args.script {
        Some(file) => timeline::read_script(file).map_err(Exit::usage)?,
        None => Vec::new(),
    };
    actions.extend(args.actions.iter().cloned());
    Ok(actions)
}

fn fleet(args: &Args) -> Result<Option<Arc<Fleet>>, Exit> {
    match &args.agent_keys {
        Some(keys) => match Fleet::connect(&args.agents, keys, args.clock_limit) {
            Ok(fleet) => Ok(Some(Arc::new(fleet))),
            Err(error @ FleetError::Keys(_)) => Err(Exit::usage(error)),
            Err(error) => Err(Exit::unavailable(error)),
        },
        None => Ok(None),
    }
}

/// What the actions need; a missing piece is told before any load.
fn hands(args: &Args, order: &Order) -> Result<Hands, Exit> {
    let needed = |needs: Needs| order.actions.iter().find(|action| action.deed.needs() == needs);
    let from_file = || {
        let tokens = server_toml(args.dir.as_deref()?).ok()??.token;
        let socket = tokens
            .iter()
            .find_map(|token| token.environment.get("FAULTY_TOKEN_CONTROL"))?;
        Some(PathBuf::from(socket))
    };
    let token = args.token_control.clone().or_else(from_file);
    if let (Some(action), None) = (needed(Needs::TokenControl), &token) {
        return Err(Exit::usage(format!("'{}' needs --token-control SOCKET", action.deed)));
    }
    let reachable = |has: bool, needs, by: &str| match needed(needs) {
        Some(action) if !has => Err(Exit::usage(format!("'{}' needs {by}", action.deed))),
        _ => Ok(()),
    };
    reachable(args.serve.is_some(), Needs::Start, "--serve COMMAND")?;
    reachable(
        args.serve.is_some() || args.pid.is_some(),
        Needs::Process,
        "--pid PID or --serve COMMAND",
    )?;
    let service = match (&args.serve, args.pid) {
        (Some(command), _) => {
            let log = args.out.as_ref().map(|folder| folder.join("service.log"));
            if let Some(folder) = &args.out {
                std::fs::create_dir_all(folder)
                    .map_err(|error| Exit::usage(format!("{}: {error}", folder.display())))?;
            }
            let address = order.setup.target.address();
            Some(Service::start(command, address, log.as_deref()).map_err(Exit::unavailable)?)
        }
        (None, Some(pid)) => {
            Some(Service::of(pid).ok_or_else(|| Exit::usage(format!("--pid {pid} is no process of a service")))?)
        }
        (None, None) => None,
    };
    Ok(Hands {
        token,
        service: service.map(|service| Arc::new(Mutex::new(service))),
    })
}

/// `muhurdar.toml` of a folder, if it has one.
fn server_toml(dir: &Path) -> Result<Option<ServerToml>, Exit> {
    let Ok(text) = std::fs::read_to_string(dir.join("muhurdar.toml")) else {
        return Ok(None);
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|error| Exit::usage(format!("{}/muhurdar.toml: {error}", dir.display())))
}

/// True once SIGINT or SIGTERM came.
fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    // A thread of its own, so that a signal is heard whatever the run is busy with. A second one ends the process at once.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            for first in [true, false] {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                if first {
                    set.store(true, Ordering::Relaxed);
                } else {
                    std::process::exit(130);
                }
            }
        });
    });
    flag
}

fn branches(args: &Args, from_file: Option<Identity>) -> Result<Vec<Branch>, Exit> {
    let default = args.priority.unwrap_or(Priority::Unspecified);
    if args.branches.is_empty() {
        let identity = match (&args.cert, &args.key, from_file) {
            (Some(certificate), Some(key), _) => Identity::read(certificate, key).map_err(Exit::usage)?,
            (_, _, Some(identity)) => identity,
            _ => return Err(Exit::usage("who is the client? --cert FILE --key FILE, or --dir DIR")),
        };
        return Ok(vec![Branch {
            identity,
            share: 1.0,
            priority: default,
        }]);
    }
    args.branches
        .iter()
        .map(|text| {
            let mut parts = text.split(',');
            let who = parts.next().unwrap_or_default();
            let (certificate, key) = match (who.split_once(':'), &args.dir) {
                (Some((certificate, key)), _) => (PathBuf::from(certificate), PathBuf::from(key)),
                (None, Some(dir)) if !who.contains('/') && !who.contains('.') => (
                    dir.join("clients").join(format!("{who}.crt")),
                    dir.join("clients").join(format!("{who}.key")),
                ),
                (None, _) => (PathBuf::from(who), Path::new(who).with_extension("key")),
            };
            let mut branch = Branch {
                identity: Identity::read(&certificate, &key).map_err(Exit::usage)?,
                share: 1.0,
                priority: default,
            };
            for part in parts {
                let bad = || Exit::usage(format!("--branch {text}: '{part}' is not priority=… or share=…"));
                match part.split_once('=').ok_or_else(bad)? {
                    ("priority", name) => branch.priority = priority(name).map_err(Exit::usage)?,
                    ("share", share) => {
                        branch.share = share
                            .parse()
                            .ok()
                            .filter(|share| *share > 0.0 && *share <= 1e6)
                            .ok_or_else(bad)?;
                    }
                    _ => return Err(bad()),
                }
            }
            Ok(branch)
        })
        .collect()
}

fn taxpayers(args: &Args) -> Result<Vec<Taxpayer>, Exit> {
    let file = args
        .taxpayers
        .clone()
        .or_else(|| args.dir.as_ref().map(|dir| dir.join("taxpayers.json")));
    let known = |key_type: Option<&str>| match &file {
        Some(file) => target::read_taxpayers(file, key_type).map_err(Exit::usage),
        None => Ok(Vec::new()),
    };
    if !args.taxpayer.is_empty() {
        let known = known(None).unwrap_or_default();
        return args
            .taxpayer
            .iter()
            .map(|number| {
                let certificate = known
                    .iter()
                    .find(|taxpayer| *taxpayer.number == **number)
                    .and_then(|t| t.certificate.clone());
                target::taxpayer(number, certificate).ok_or_else(|| Exit::usage(target::not_a_number(number)))
            })
            .collect();
    }
    match args.key_type.as_deref() {
        Some("all") => known(None),
        Some(wanted) => known(Some(wanted)),
        None => {
            let rsa = known(Some("rsa2048"))?;
            if rsa.is_empty() { known(None) } else { Ok(rsa) }
        }
    }
}

fn metrics(args: &Args) -> Result<Option<http::Uri>, Exit> {
    let url = match (&args.metrics, &args.dir) {
        (Some(url), _) => url.clone(),
        (None, Some(dir)) => {
            let server = server_toml(dir)?.and_then(|parsed| parsed.server);
            match server.and_then(|server| server.admin_listen) {
                Some(listen) => format!("http://{listen}/metrics"),
                None => return Ok(None),
            }
        }
        (None, None) => return Ok(None),
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| Exit::usage(format!("--metrics '{url}' is not a URL")))?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() {
        Ok(Some(uri))
    } else {
        Err(Exit::usage(format!(
            "--metrics '{url}': write http://host:port/metrics"
        )))
    }
}
