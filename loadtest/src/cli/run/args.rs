//! What `muhurdar-loadtest run` is asked on its command line.

use std::{path::PathBuf, time::Duration};

use muhurdar_proto::seal::v1::Priority;

use crate::{
    criteria::Criteria,
    driver::Mode,
    generator::{Kind, SizeMix},
    plan::{self, PlanSpec},
    timeline::Action,
};

const TARGET: &str = "Whom to load";
const LOAD: &str = "How much";
const WORK: &str = "With what";
const FAULTS: &str = "What happens meanwhile";
const REPORT: &str = "What comes out";

/// Of what a script can do, this needs more than a service.
const A_TOKEN_TO_FAIL: &str = "\
A token that misbehaves on command, for fail, restore, stall and token in a --script: a PKCS#11 module that stands before the real one.
  cargo build --release --package muhurdar-faulty-token    makes target/release/libmuhurdar_faulty_token.so
In DIR/muhurdar.toml of `muhurdar dev`, under [[token]] (paths are absolute):
  module = \".../target/release/libmuhurdar_faulty_token.so\"
  environment = { SOFTHSM2_CONF = \"as it was\", FAULTY_TOKEN_MODULE = \"what module was\", FAULTY_TOKEN_CONTROL = \"/tmp/token.sock\" }
Start the service anew; with --dir DIR the socket is found there. LABEL is the label of [[token]], muhurdar-dev there, and not its name.
The same goes for any configuration with a test token. Never put it before a token with a real seal.";

#[derive(Debug, clap::Args)]
#[command(after_long_help = A_TOKEN_TO_FAIL)]
pub(in crate::cli) struct Args {
    /// Folder of `muhurdar dev`: endpoint, certificates, taxpayers, metrics and token are found there
    #[arg(long, value_name = "DIR", help_heading = TARGET)]
    pub(super) dir: Option<PathBuf>,
    /// Where the service listens: https://host:port
    #[arg(long, value_name = "URL", help_heading = TARGET, required_unless_present = "dir")]
    pub(super) endpoint: Option<String>,
    /// CA certificates that vouch for the service, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, required_unless_present = "dir")]
    pub(super) ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = TARGET, requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// A branch with its own certificate, instead of --cert: CERT[:KEY][,priority=bulk][,share=3]; a name such as branch-2 is looked up
    /// in clients/ of --dir. Again for each branch
    #[arg(long = "branch", value_name = "BRANCH", help_heading = TARGET, conflicts_with = "cert")]
    pub(super) branches: Vec<String>,
    /// The server's metrics page: http://host:port/metrics
    #[arg(long, value_name = "URL", help_heading = TARGET)]
    pub(super) metrics: Option<String>,
    /// Taxpayers to seal for: a taxpayers.json
    #[arg(long, value_name = "FILE", help_heading = TARGET)]
    pub(super) taxpayers: Option<PathBuf>,
    /// A taxpayer to seal for, VKN or TCKN. Again for each
    #[arg(long = "taxpayer", value_name = "VKN", help_heading = TARGET, conflicts_with = "taxpayers")]
    pub(super) taxpayer: Vec<String>,
    /// Only taxpayers with such a key: rsa, rsa2048, p384, all. RSA-2048 where the file has any, since that is what a ceiling compares with
    #[arg(long, value_name = "TYPE", help_heading = TARGET)]
    pub(super) key_type: Option<String>,

    /// Open loop at this many requests a second, whatever the answers do
    #[arg(long, value_name = "N", help_heading = LOAD, conflicts_with_all = ["closed", "plan"])]
    pub(super) rate: Option<f64>,
    /// Closed loop: every caller waits for its answer. Finds a rate; its latencies hide stalls
    #[arg(long, help_heading = LOAD, conflicts_with = "plan")]
    pub(super) closed: bool,
    /// Callers of a closed loop
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 32)]
    pub(super) concurrency: usize,
    /// peak | closed:N | constant:R | poisson:R | steps:A..B/S | ramp:A..B | spikes:BASE,SPIKE/EVERY/LASTING | replay:FILE
    #[arg(long, value_name = "PLAN", help_heading = LOAD, default_value = "peak")]
    pub(super) plan: PlanSpec,
    /// Search for the highest rate that holds this, such as p99<20ms,errors<0.1%. Each try takes --duration; rates are tried again until
    /// tries agree, 30 in all at most
    #[arg(long, value_name = "LIST", help_heading = LOAD, conflicts_with_all = ["rate", "closed", "plan"])]
    pub(super) slo: Option<Criteria>,
    /// How long to measure
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "15s", value_parser = time)]
    pub(super) duration: Duration,
    /// Load beforehand that is not counted
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "2s", value_parser = time_or_none)]
    pub(super) warmup: Duration,
    /// The most requests in flight; what the plan wants beyond is counted as not sent
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 4096)]
    pub(super) max_in_flight: usize,
    /// Threads of the generator, on each agent
    #[arg(long, value_name = "N", help_heading = LOAD, default_value_t = 1)]
    pub(super) threads: usize,
    /// Agents that make the load instead of this machine: host or host:port
    #[arg(long, value_name = "HOST,…", help_heading = LOAD, value_delimiter = ',', requires = "agent_keys")]
    pub(super) agents: Vec<String>,
    /// Folder with ca.crt, controller.crt and controller.key, as `agent-keys` makes them
    #[arg(long, value_name = "DIR", help_heading = LOAD, requires = "agents")]
    pub(super) agent_keys: Option<PathBuf>,
    /// How far an agent's clock may be from this machine's
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "500ms", value_parser = time)]
    pub(super) clock_limit: Duration,
    /// How long to wait for the last answers
    #[arg(long, value_name = "TIME", help_heading = LOAD, default_value = "10s", value_parser = time)]
    pub(super) drain: Duration,

    /// Kinds of documents
    #[arg(long, value_name = "KIND", help_heading = WORK, value_delimiter = ',', default_value = "invoice")]
    pub(super) kind: Vec<Kind>,
    /// The .xml files of a folder instead of generated documents, each for the taxpayer whom it names
    #[arg(long, value_name = "DIR", help_heading = WORK, conflicts_with_all = ["kind", "size"])]
    pub(super) documents: Option<PathBuf>,
    /// Size of the documents: 10k, 100k-dense, a mix such as 10k*70,100k*20,260k*10, or season
    #[arg(long, value_name = "SIZE", help_heading = WORK, default_value = "10k")]
    pub(super) size: SizeMix,
    /// How requests travel
    #[arg(long, value_name = "MODE", help_heading = WORK, default_value = "stream")]
    pub(super) mode: Mode,
    /// Documents per call with --mode batch
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 16)]
    pub(super) batch: usize,
    /// Ask for the seal alone instead of the sealed document
    #[arg(long, help_heading = WORK)]
    pub(super) signature_only: bool,
    /// Priority of every request: interactive, normal, bulk
    #[arg(long, value_name = "PRIORITY", help_heading = WORK, value_parser = priority)]
    pub(super) priority: Option<Priority>,
    /// The n-th taxpayer is asked for in proportion to 1/n^EXPONENT; 0 treats all alike
    #[arg(long, value_name = "EXPONENT", help_heading = WORK, default_value_t = 0.0)]
    pub(super) zipf: f64,
    /// The same seed gives the same documents
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 1)]
    pub(super) seed: u64,
    /// Connections per branch and thread
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 4)]
    pub(super) connections: usize,
    /// Streams on each connection with --mode stream
    #[arg(long, value_name = "N", help_heading = WORK, default_value_t = 1)]
    pub(super) streams: usize,

    /// Do things at times of the load, and draw them over the graphs. A line each: a time and fail LABEL, restore LABEL, stall TIME,
    /// token COMMAND, signal NAME, restart or run COMMAND; such as 30s fail muhurdar-dev. fail, restore, stall and token need a token
    /// that misbehaves on command: see below
    #[arg(long, value_name = "FILE", help_heading = FAULTS)]
    pub(super) script: Option<PathBuf>,
    /// Run a shell command at a time of the load, and draw it over the graphs: 30s=systemctl reload muhurdar. Again for each
    #[arg(long = "at", value_name = "TIME=COMMAND", help_heading = FAULTS)]
    pub(super) actions: Vec<Action>,
    /// Start the service by this command, and end it after the run: a script can then signal and restart it
    #[arg(long, value_name = "COMMAND", help_heading = FAULTS)]
    pub(super) serve: Option<String>,
    /// The service's process, for a script's signals
    #[arg(long, value_name = "PID", help_heading = FAULTS, conflicts_with = "serve")]
    pub(super) pid: Option<i32>,
    /// Control socket of a token that misbehaves on command; found in muhurdar.toml of --dir where it is in the token's environment
    #[arg(long, value_name = "SOCKET", help_heading = FAULTS)]
    pub(super) token_control: Option<PathBuf>,

    /// Folder for report.html, report.json and latency.hgrm
    #[arg(long, value_name = "DIR", help_heading = REPORT)]
    pub(super) out: Option<PathBuf>,
    /// Print the report as JSON instead of a table
    #[arg(long, help_heading = REPORT)]
    pub(super) json: bool,
    /// Name of the run in the report
    #[arg(long, value_name = "TEXT", help_heading = REPORT)]
    pub(super) label: Option<String>,
    /// Share of the seals to verify: 1%, 0.5%, all, 0
    #[arg(long, value_name = "SHARE", help_heading = REPORT)]
    pub(super) verify: Option<String>,
    /// Fail (exit 1) unless this holds: p99<20ms,errors<0.1%,rate>1000
    #[arg(long, value_name = "LIST", help_heading = REPORT)]
    pub(super) fail_unless: Option<Criteria>,
    /// The server's configuration, for measuring its token by itself
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub(super) token_config: Option<PathBuf>,
    /// Do not measure the token by itself
    #[arg(long, help_heading = REPORT)]
    pub(super) no_ceiling: bool,
    /// No progress
    #[arg(long, short, help_heading = REPORT)]
    pub(super) quiet: bool,
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

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    Priority::from_str_name(&format!("PRIORITY_{}", text.to_ascii_uppercase()))
        .ok_or_else(|| format!("'{text}' is not a priority: interactive, normal, bulk"))
}
