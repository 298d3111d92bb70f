//! What a run found, as others read it.
//!
//! What comes in: the driver's record and what was learnt beside it. What goes out: a [`Report`], and from it a table for the terminal,
//! JSON (the struct's own fields, documented here and in `loadtest/REPORT.md`), an `.hgrm` file and one HTML page. A report holds
//! no document, no path to a key and no certificate.

mod hgrm;
mod html;
pub(crate) mod knee;
mod objective;
mod schema;
mod table;
#[cfg(test)]
pub(crate) mod testing;

use std::{collections::BTreeMap, fs, io, path::Path, path::PathBuf};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::table::{grouped, time};
pub use self::{
    objective::{Slo, SloRate, SloTrial},
    schema::schema,
    table::table,
};
use crate::machine::Machine;

/// The name of this form of report, in the field `schema`.
pub const SCHEMA: &str = "muhurdar-loadtest/1";

/// A run. Times are microseconds where the name ends in `_us`, seconds where it ends in `_s`; rates are per second.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Of the harness.
    pub version: String,
    /// RFC 3339, with the zone of the machine.
    pub started_at: String,
    /// The command line.
    pub command: Vec<String>,
    /// Name of the run, if it was given one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// False where the figures describe the harness or the machine rather than the service; `problems` says why.
    pub valid: bool,
    /// Why the run is not valid.
    pub problems: Vec<String>,
    /// What a reader should know about the figures.
    pub notes: Vec<String>,
    /// Requests per second that the plan asked for in the segment of `rate_segment`.
    pub offered_per_s: f64,
    /// Seals per second in that segment.
    pub achieved_per_s: f64,
    /// The segment with the highest achieved rate.
    pub rate_segment: String,
    /// Seals, all measured segments.
    pub sealed: u64,
    /// Failures by gRPC code, all measured segments.
    pub errors: BTreeMap<String, u64>,
    /// The same by code and reason.
    pub failures: Vec<Failures>,
    /// Requests that could not be sent because `max_in_flight` were.
    pub missed_sends: u64,
    /// From the intended send time to the answer, in the segment of `latency_segment`.
    pub latency_us: Quantiles,
    /// From the actual send time to the answer, same segment.
    pub service_us: Quantiles,
    /// The last measured open segment; the last of all where none is open.
    pub latency_segment: String,
    /// `open` or `closed`: what the latencies are. Those of a closed loop hide stalls.
    pub latency_loop: String,
    /// Seals that were verified, all found good.
    pub verified: u64,
    /// Seals that were verified and are wrong.
    pub verify_failures: u64,
    /// How they were verified.
    pub verification: Verification,
    /// The token's own rate, in the same run.
    pub ceiling: Option<Ceiling>,
    /// `achieved_per_s` / `ceiling.sign_per_s`.
    pub ratio_to_ceiling: Option<f64>,
    /// What the server used, by its own metrics, in the segment of `rate_segment`.
    pub server: Option<Server>,
    /// The harness itself.
    pub generator: Generator,
    /// What was sent.
    pub workload: Workload,
    /// The plan, piece by piece.
    pub segments: Vec<SegmentReport>,
    /// One entry per client certificate.
    pub branches: Vec<BranchReport>,
    /// Percentile curve of `latency_segment`: share of requests, latency and service time.
    pub curve: Vec<CurvePoint>,
    /// The run over time.
    pub series: Series,
    /// Things that were done to the service, or happened to it, on the clock of `series`.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Where a ramp or steps stopped being kept up with; none where they never did, and for other plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee: Option<Knee>,
    /// What `--slo` asked and found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// The machines that made the load, where it was not this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<AgentReport>,
    /// What is set in the service's configuration and bears on its speed, where the configuration is at hand.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Where it ran; with agents, where the controller did.
    pub machine: Machine,
}

impl Report {
    /// Share of the requests that failed or were not sent, 0 to 1.
    pub fn error_share(&self) -> f64 {
        let bad = self.errors.values().sum::<u64>() + self.missed_sends;
        bad as f64 / ((self.sealed + bad) as f64).max(1.0)
    }
}

/// Failures of one code and reason.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Failures {
    /// gRPC code, or UNANSWERED, EMPTY_ANSWER.
    pub code: String,
    /// `ErrorInfo.reason`; CONNECTION where the connection broke.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Message of the first.
    pub example: String,
}

/// Points of a distribution, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// Largest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
}

impl Quantiles {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// How answers were verified.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Share of the answers that were to be verified.
    pub share: f64,
    /// The verifier and its version; empty where there was none.
    pub by: String,
    /// Answers kept and not verified, for want of memory or of a verifier.
    pub skipped: u64,
    /// What was wrong with the first wrong seals.
    pub examples: Vec<String>,
}

/// What the token does by itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ceiling {
    /// Signatures per second: the mean of the measurements around the load.
    pub sign_per_s: f64,
    /// Each measurement.
    pub measured_per_s: Vec<f64>,
    /// CPU of this machine inside the token's calls, per signature.
    #[serde(default)]
    pub cpu_us_per_sign: f64,
    /// Sessions that signed at once.
    pub sessions: usize,
    /// Token, as its configuration names it.
    pub token: String,
}

/// The server's own account.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// CPU per seal, user and system.
    pub cpu_us_per_seal: Option<f64>,
    /// Of that, inside the token's calls.
    pub token_cpu_us_per_seal: Option<f64>,
    /// Largest resident set seen.
    pub rss_bytes: Option<u64>,
    /// CPU over time: seconds since the run began, CPUs used, CPUs used inside the token.
    pub cpu: Vec<(f64, f64, f64)>,
}

/// The harness's account of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Generator {
    /// Threads, on all machines.
    pub workers: usize,
    /// CPU per request, all measured segments.
    pub cpu_us_per_request: f64,
    /// Share of a CPU that its busiest thread used, in the segment where that was most.
    pub busiest_thread: f64,
    /// How late it was against its own plan, open segments.
    pub lag_us: Quantiles,
    /// Share of the time that its threads waited for a CPU that others had, in the segment where that was most.
    pub waited: f64,
    /// Answers to nothing that was asked.
    pub strays: u64,
}

/// A machine that made a part of the load.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentReport {
    /// `host:port`.
    pub name: String,
    /// Its wall clock less the controller's, microseconds.
    pub clock_offset_us: f64,
    /// What that may be wrong by, and by how much it may have begun too early or too late.
    pub clock_bound_us: f64,
    /// How far its clock and the controller's parted in the run, beyond what the comparisons may be wrong by.
    pub clock_drift_us: f64,
    /// Requests asked of it, measured segments.
    pub offered: u64,
    /// Seals.
    pub sealed: u64,
    /// Failures.
    pub failed: u64,
    /// Not sent.
    pub missed: u64,
    /// Its account of itself.
    pub generator: Generator,
    /// What it ran on.
    pub machine: Machine,
}

/// What was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// `host:port`.
    pub endpoint: String,
    /// `stream`, `unary`, `batch`, `hash-only`.
    pub mode: String,
    /// `sealed_document`, `signature_only`, or `signature_value` in hash-only mode.
    pub answer: String,
    /// Kinds of documents.
    pub kinds: Vec<String>,
    /// As `--size` spelled it.
    pub size: String,
    /// Documents of the user's own, instead of generated ones of `kinds` and `size`.
    #[serde(default)]
    pub given_documents: usize,
    /// Mean bytes of a request's document.
    pub request_bytes: f64,
    /// Mean bytes of an answer's document or seal.
    pub answer_bytes: f64,
    /// How many taxpayers.
    pub taxpayers: usize,
    /// Zipf exponent over them.
    pub zipf: f64,
    /// Of the documents.
    pub seed: u64,
    /// Connections per branch and worker.
    pub connections: usize,
    /// Streams per connection; 0 where calls travel one by one.
    #[serde(default)]
    pub streams: usize,
    /// The most requests in flight.
    pub max_in_flight: usize,
}

/// A piece of the plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SegmentReport {
    /// As the plan names it.
    pub name: String,
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub loop_: String,
    /// False for a warm-up.
    pub measured: bool,
    /// Seconds since the run began.
    pub start_s: f64,
    /// How long.
    pub duration_s: f64,
    /// Callers of a closed loop.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub concurrency: Option<usize>,
    /// Requests per second that the plan asked for.
    pub offered_per_s: f64,
    /// Seals per second while it lasted.
    pub achieved_per_s: f64,
    /// Seals.
    pub sealed: u64,
    /// Failures.
    pub failed: u64,
    /// Not sent.
    pub missed: u64,
    /// From the intended send time.
    pub latency_us: Quantiles,
    /// From the actual send time.
    pub service_us: Quantiles,
    /// CPU per seal, by the server's metrics.
    pub server_cpu_us_per_seal: Option<f64>,
    /// Of that, inside the token's calls.
    pub token_cpu_us_per_seal: Option<f64>,
}

/// A branch.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BranchReport {
    /// As its certificate's file is called.
    pub name: String,
    /// `interactive`, `normal`, `bulk`, `unspecified`.
    pub priority: String,
    /// Share of the requests.
    pub share: f64,
    /// Requests asked of it.
    pub offered: u64,
    /// Seals.
    pub sealed: u64,
    /// Failures.
    pub failed: u64,
    /// Not sent.
    pub missed: u64,
    /// From the intended send time, all measured segments.
    pub latency_us: Quantiles,
}

/// A point of the percentile curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// Share of the requests at or below.
    pub quantile: f64,
    /// From the intended send time.
    pub latency_us: u64,
    /// From the actual send time.
    pub service_us: u64,
}

/// The run in slices of equal length.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Length of a slice.
    pub slice_s: f64,
    /// Requests asked for, by intended time.
    pub offered: Vec<u32>,
    /// Seals, by time of answer.
    pub sealed: Vec<u32>,
    /// Failures, by time of answer, and missed sends.
    pub failed: Vec<u32>,
    /// Median latency by intended time, within 9 %; null where nothing came.
    pub p50_us: Vec<Option<u64>>,
    /// 99 %.
    pub p99_us: Vec<Option<u64>>,
    /// Lower end of each row of `heat`.
    pub heat_us: Vec<f64>,
    /// Seals by slice and row.
    pub heat: Vec<Vec<u32>>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Seconds since the run began.
    pub at_s: f64,
    /// When it was over, where it lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<f64>,
    /// What.
    pub what: String,
}

/// Where a growing load stopped being kept up with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Knee {
    /// The highest rate that was; none where not even the lowest was.
    pub held_per_s: Option<f64>,
    /// The next that was tried.
    pub lost_per_s: f64,
}

/// Where a report was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// `report.html`.
    pub html: PathBuf,
    /// `report.json`.
    pub json: PathBuf,
    /// `latency.hgrm`.
    pub hgrm: PathBuf,
}

/// Writes all forms of a report into a folder, which is made if it is missing.
pub fn write(report: &Report, latency: &Histogram<u64>, folder: &Path) -> io::Result<Written> {
    fs::create_dir_all(folder)?;
    let written = Written {
        html: folder.join("report.html"),
        json: folder.join("report.json"),
        hgrm: folder.join("latency.hgrm"),
    };
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    let html = html::page(report).map_err(io::Error::other)?;
    whole(&written.json, &(json + "\n"))?;
    whole(&written.html, &html)?;
    whole(&written.hgrm, &hgrm::text(latency))?;
    Ok(written)
}

/// Writes a file that has its name when it is whole: `compare` and a browser never see half of one.
fn whole(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut part = tempfile::Builder::new()
        .prefix(".muhurdar-")
        // As any other file: less what the umask takes.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut part, text.as_bytes())?;
    part.persist(path)?;
    Ok(())
}

/// Points for a percentile curve, closer together the nearer they come to 1.
pub(crate) fn curve(latency: &Histogram<u64>, service: &Histogram<u64>) -> Vec<CurvePoint> {
    if latency.is_empty() {
        return Vec::new();
    }
    let finest = 1.0 / latency.len() as f64;
    let mut points = Vec::new();
    let mut distance = 1.0_f64;
    while distance >= finest {
        let quantile = 1.0 - distance;
        points.push(CurvePoint {
            quantile,
            latency_us: latency.value_at_quantile(quantile),
            service_us: service.value_at_quantile(quantile),
        });
        // Eight points for each halving of what is left.
        distance *= 0.5_f64.powf(0.125);
    }
    points.push(CurvePoint {
        quantile: 1.0,
        latency_us: latency.max(),
        service_us: service.max(),
    });
    points
}
