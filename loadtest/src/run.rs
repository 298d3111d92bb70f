//! A run from beginning to end: the token alone, the load, the token alone again, verification, report.
//!
//! What comes in: an [`Order`] from the command line. What goes out: a [`Report`], the histogram behind it, and lines on the terminal
//! through [`Screen`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    agents::{AgentState, Fleet},
    ceiling::{self, CeilingOrder},
    driver::{DriveError, Driven, Driver, Mode, Progress, Setup},
    judge,
    machine::{self, CpuTimes, Machine},
    metrics::Watch,
    plan::{Load, Plan, Segment},
    recorder,
    report::{self, Report},
    screen::Screen,
    timeline::{Action, Hands, Timeline},
    verify::{self, Verified, Xmlsec1},
};

/// All that a run needs.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whom to load, and with what.
    pub setup: Setup,
    /// When.
    pub plan: Plan,
    /// The server's metrics page.
    pub metrics: Option<http::Uri>,
    /// How to measure the token alone.
    pub ceiling: Option<CeilingOrder>,
    /// Share of the answers to verify, and whether to refuse to run without a verifier.
    pub verify: (f64, bool),
    /// Set keys of the service's configuration, kept in the report.
    pub config: std::collections::BTreeMap<String, String>,
    /// Kept in the report.
    pub command: Vec<String>,
    /// Kept in the report.
    pub label: Option<String>,
    /// What to do to the service meanwhile, and with what.
    pub actions: Vec<Action>,
    /// What the actions reach with.
    pub hands: Hands,
    /// Who makes the load, if not this machine.
    pub fleet: Option<Arc<Fleet>>,
    /// Set by a signal: the run stops at the next tick.
    pub interrupted: Arc<AtomicBool>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The load could not be driven.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The token could not be measured.
    #[error("{0}; --no-ceiling runs without")]
    Ceiling(#[from] ceiling::CeilingError),
    /// A verifier was asked for and is not there.
    #[error("{}", verify::missing())]
    NoVerifier,
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Carries out an order.
///
/// # Errors
/// Where no connection stands at the start, the token cannot be measured, or the run is interrupted.
pub fn run(order: &Order, screen: &Screen) -> Result<(Report, Histogram<u64>), RunError> {
    let verifier = if order.verify.0 > 0.0 { Xmlsec1::find() } else { None };
    if verifier.is_none() && order.verify.0 > 0.0 && order.verify.1 {
        return Err(RunError::NoVerifier);
    }
    let started_at = jiff::Zoned::now();
    let machine = Machine::read();
    let mut ceilings = Vec::new();
    if let Some(order) = &order.ceiling {
        screen.stage("measuring the token by itself");
        ceilings.push(ceiling::measure(order)?);
    }
    let mut setup = order.setup.clone();
    if verifier.is_none() {
        setup.sample = 0.0;
    }
    let progress = Arc::new(Progress::default());
    let mut watch = order.metrics.clone().map(Watch::new).transpose()?;
    let fleet = order.fleet.as_deref();
    let driver = Driver::start(&setup, order.plan.clone(), &progress, fleet)?;
    let total: Duration = order.plan.segments.iter().map(|segment| segment.duration).sum();
    screen.begin(total);
    let timeline = Timeline::begin(&order.actions, &order.hands, Instant::now())?;
    let cpu_before = CpuTimes::read();
    let driven = driver.run(|_, segment: &Segment| {
        if let Some(watch) = &mut watch {
            watch.look(Duration::from_millis(900));
        }
        screen.tick(&segment.name, &progress);
        !order.interrupted.load(Ordering::Relaxed)
    });
    // One more look, so that the last stretch has one on both sides.
    if let Some(watch) = &mut watch {
        watch.look(Duration::ZERO);
    }
    let stolen = CpuTimes::read()
        .zip(cpu_before)
        .and_then(|(after, before)| after.stolen_since(before));
    screen.end();
    let driven = driven?;
    let events = timeline.end(driven.recorder.origin);
    let agents = fleet.map(Fleet::states).unwrap_or_default();
    if let Some(order) = &order.ceiling {
        screen.stage("measuring the token by itself, again");
        ceilings.push(ceiling::measure(order)?);
    }
    let verified = match &verifier {
        Some(xmlsec1) => {
            let count = driven.samples.len();
            screen.stage(&format!("verifying {count} of the seals"));
            xmlsec1.verify(&driven.samples, setup.workload.taxpayers.taxpayers(), |_| {})?
        }
        None => Verified::default(),
    };
    screen.stage("");
    let mut report = assemble(order, &setup, &driven, &verified, &ceilings, watch.as_ref());
    report.events = events;
    report.agents = agent_reports(&setup, &driven, agents);
    report.started_at = started_at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    report.machine = Machine {
        load_after: machine::load_average(),
        stolen,
        ..machine
    };
    report.verification.by = verifier.map(|verifier| verifier.version).unwrap_or_default();
    judge::judge(&mut report);
    let latency = latency_histogram(&driven);
    Ok((report, latency))
}

/// The segment whose latencies stand for the run: the last measured open one, else the last measured.
fn latency_segment(driven: &Driven) -> usize {
    let measured = || {
        driven
            .segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| segment.measured)
    };
    measured()
        .rfind(|(_, segment)| matches!(segment.load, Load::Open(_)))
        .or_else(|| measured().next_back())
        .map_or(0, |(i, _)| i)
}

fn latency_histogram(driven: &Driven) -> Histogram<u64> {
    driven.recorder.segments[latency_segment(driven)].times.latency.clone()
}

fn assemble(
    order: &Order,
    setup: &Setup,
    driven: &Driven,
    verified: &Verified,
    ceilings: &[ceiling::Measured],
    watch: Option<&Watch>,
) -> Report {
    let record = &driven.recorder;
    let segments: Vec<report::SegmentReport> = (0..driven.segments.len())
        .map(|index| segment_report(driven, index, watch))
        .collect();
    let measured = || segments.iter().filter(|segment| segment.measured);
    let fastest = measured()
        .max_by(|a, b| a.achieved_per_s.total_cmp(&b.achieved_per_s))
        .or(segments.first());
    let latency = &segments[latency_segment(driven)];
    let latency_record = &record.segments[latency_segment(driven)];
    let mut errors = std::collections::BTreeMap::new();
    for failure in &record.failures {
        *errors.entry(failure.code.clone()).or_insert(0) += failure.count;
    }
    let ceiling = ceiling::summary(ceilings);
    let achieved = fastest.map_or(0.0, |segment| segment.achieved_per_s);
    let mut notes = Vec::new();
    if let (Some(watch), Some(segment)) = (watch, fastest)
        && watch.is_coarse()
        && segment.server_cpu_us_per_seal.is_some()
    {
        let seals = segment.achieved_per_s * segment.duration_s;
        notes.push(format!(
            "the server counts its CPU in whole seconds: CPU per seal is known to ±{:.0} µs",
            1e6 / seals.max(1.0)
        ));
    }
    if let Some(restarts) = watch.map(|watch| watch.restarts).filter(|restarts| *restarts > 0) {
        notes.push(format!(
            "the service began again {restarts} time{} in the run: of its CPU, up to a second before each is missing",
            if restarts == 1 { "" } else { "s" }
        ));
    }
    if let Some(problem) = watch.and_then(|watch| watch.last_problem.clone()) {
        notes.push(format!("the server's metrics could not always be read: {problem}"));
    }
    let series = series(record, driven);
    Report {
        schema: report::SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: String::new(),
        command: order.command.clone(),
        label: order.label.clone(),
        valid: true,
        problems: Vec::new(),
        notes,
        offered_per_s: fastest.map_or(0.0, |segment| segment.offered_per_s),
        achieved_per_s: achieved,
        rate_segment: fastest.map_or_else(String::new, |segment| segment.name.clone()),
        sealed: measured().map(|segment| segment.sealed).sum(),
        errors,
        failures: failures(record),
        missed_sends: measured().map(|segment| segment.missed).sum(),
        latency_us: latency.latency_us,
        service_us: latency.service_us,
        latency_segment: latency.name.clone(),
        latency_loop: latency.loop_.clone(),
        verified: verified.good,
        verify_failures: verified.wrong,
        verification: report::Verification {
            share: order.verify.0,
            by: String::new(),
            skipped: driven.samples_dropped,
            examples: verified.examples.clone(),
        },
        ratio_to_ceiling: ceiling
            .as_ref()
            .filter(|c| c.sign_per_s > 0.0)
            .map(|c| achieved / c.sign_per_s),
        ceiling,
        server: watch.map(|watch| server(watch, fastest, record.origin)),
        generator: generator(driven.workers, driven, record),
        workload: workload(setup, driven),
        branches: branches(setup, driven),
        curve: report::curve(&latency_record.times.latency, &latency_record.times.service),
        knee: report::knee::find(&driven.segments, &segments, &series),
        series,
        segments,
        events: Vec::new(),
        slo: None,
        agents: Vec::new(),
        config: order.config.clone(),
        machine: Machine::default(),
    }
}

fn failures(record: &recorder::Recorder) -> Vec<report::Failures> {
    let mut failures: Vec<report::Failures> = record
        .failures
        .iter()
        .map(|failure| report::Failures {
            code: failure.code.clone(),
            reason: failure.reason.clone(),
            count: failure.count,
            example: failure.example.clone(),
        })
        .collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    failures
}

fn segment_report(driven: &Driven, index: usize, watch: Option<&Watch>) -> report::SegmentReport {
    let (segment, record) = (&driven.segments[index], &driven.recorder.segments[index]);
    let seconds = segment.duration.as_secs_f64();
    let spent = match (watch, record.started, record.ended) {
        (Some(watch), Some(from), Some(to)) if record.sealed_in_time > 0 => watch.spent(from, to),
        _ => None,
    };
    let per_seal = |cpu: f64| cpu * 1e6 / record.sealed_in_time as f64;
    let concurrency = match segment.load {
        Load::Closed { concurrency } => Some(concurrency),
        _ => None,
    };
    report::SegmentReport {
        name: segment.name.clone(),
        loop_: if concurrency.is_some() { "closed" } else { "open" }.to_owned(),
        measured: segment.measured,
        start_s: record.started.map_or(0.0, |at| since(driven.recorder.origin, at)),
        duration_s: seconds,
        concurrency,
        offered_per_s: record.offered as f64 / seconds,
        achieved_per_s: record.sealed_in_time as f64 / seconds,
        sealed: record.sealed,
        failed: record.failed,
        missed: record.missed,
        latency_us: report::Quantiles::of(&record.times.latency),
        service_us: report::Quantiles::of(&record.times.service),
        server_cpu_us_per_seal: spent.map(|(cpu, _)| per_seal(cpu)),
        token_cpu_us_per_seal: spent.and_then(|(_, token)| token).map(per_seal),
    }
}

fn server(watch: &Watch, fastest: Option<&report::SegmentReport>, origin: Instant) -> report::Server {
    let cpu = watch
        .looks()
        // Whole seconds of CPU over one second of time would draw a saw: look further back.
        .windows(if watch.is_coarse() { 5 } else { 2 })
        .map(|looks| {
            let (first, last) = (&looks[0], &looks[looks.len() - 1]);
            let seconds = last.at.duration_since(first.at).as_secs_f64().max(1e-9);
            let token = last.token_cpu.unwrap_or_default() - first.token_cpu.unwrap_or_default();
            (
                since(origin, last.at),
                ((last.cpu - first.cpu) / seconds).max(0.0),
                (token / seconds).max(0.0),
            )
        })
        .collect();
    report::Server {
        cpu_us_per_seal: fastest.and_then(|segment| segment.server_cpu_us_per_seal),
        token_cpu_us_per_seal: fastest.and_then(|segment| segment.token_cpu_us_per_seal),
        rss_bytes: watch.rss(),
        cpu,
    }
}

fn agent_reports(setup: &Setup, driven: &Driven, states: Vec<AgentState>) -> Vec<report::AgentReport> {
    let recorded = |name: &str| {
        driven
            .agents
            .iter()
            .find(|(agent, _)| agent == name)
            .map(|(_, record)| record)
    };
    states
        .into_iter()
        .filter_map(|state| {
            let record = recorded(&state.name)?;
            let sum = |field: fn(&recorder::BranchRecord) -> u64| record.branches.iter().map(field).sum();
            Some(report::AgentReport {
                clock_offset_us: state.clock.wall_us(),
                clock_bound_us: state.clock.bound_us(),
                clock_drift_us: state.drift.as_secs_f64() * 1e6,
                offered: sum(|branch| branch.offered),
                sealed: sum(|branch| branch.sealed),
                failed: sum(|branch| branch.failed),
                missed: sum(|branch| branch.missed),
                generator: generator(setup.workers, driven, record),
                machine: state.machine,
                name: state.name,
            })
        })
        .collect()
}

/// What `record` says of the threads that made the load.
fn generator(workers: usize, driven: &Driven, record: &recorder::Recorder) -> report::Generator {
    let mut lag = recorder::histogram();
    let (mut cpu, mut requests, mut busiest, mut waited) = (Duration::ZERO, 0, 0.0_f64, 0.0_f64);
    for (segment, part) in driven.segments.iter().zip(&record.segments).filter(|(s, _)| s.measured) {
        recorder::add(&mut lag, &part.lag);
        cpu += part.generator_cpu;
        requests += part.offered - part.missed;
        let seconds = segment.duration.as_secs_f64();
        busiest = busiest.max(part.busiest_cpu.as_secs_f64() / seconds);
        waited = waited.max(part.generator_waited.as_secs_f64() / seconds / workers as f64);
    }
    report::Generator {
        workers,
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / (requests as f64).max(1.0),
        busiest_thread: busiest,
        lag_us: report::Quantiles::of(&lag),
        waited,
        strays: record.strays,
    }
}

fn workload(setup: &Setup, driven: &Driven) -> report::Workload {
    let sum =
        |field: fn(&recorder::SegmentRecord) -> u64| driven.recorder.segments.iter().map(field).sum::<u64>() as f64;
    let requests = sum(|s| s.sealed + s.failed).max(1.0);
    let given = setup.workload.given.as_ref().map_or(0, |given| given.len());
    report::Workload {
        endpoint: setup.target.endpoint.clone(),
        mode: setup.mode.name().to_owned(),
        answer: match (setup.mode, setup.answer) {
            (Mode::HashOnly, _) => "signature_value",
            (_, muhurdar_proto::seal::v1::AnswerKind::Patch) => "signature_only",
            _ => "sealed_document",
        }
        .to_owned(),
        kinds: if given > 0 {
            Vec::new()
        } else {
            setup.workload.kinds.iter().map(|kind| kind.name().to_owned()).collect()
        },
        size: if given > 0 {
            String::new()
        } else {
            setup.workload.sizes.to_string()
        },
        given_documents: given,
        request_bytes: sum(|s| s.request_bytes) / requests,
        answer_bytes: sum(|s| s.answer_bytes) / sum(|s| s.sealed).max(1.0),
        taxpayers: setup.workload.taxpayers.taxpayers().len(),
        zipf: setup.workload.taxpayers.exponent(),
        seed: setup.workload.seed,
        connections: setup.connections,
        streams: if setup.mode == Mode::Stream { setup.streams } else { 0 },
        max_in_flight: setup.max_in_flight,
    }
}

fn branches(setup: &Setup, driven: &Driven) -> Vec<report::BranchReport> {
    let total: f64 = setup.branches.iter().map(|branch| branch.share).sum();
    let record = driven.recorder.branches.iter();
    setup
        .branches
        .iter()
        .zip(record)
        .map(|(branch, record)| report::BranchReport {
            name: branch.identity.name.clone(),
            priority: branch
                .priority
                .as_str_name()
                .trim_start_matches("PRIORITY_")
                .to_ascii_lowercase(),
            share: branch.share / total,
            offered: record.offered,
            sealed: record.sealed,
            failed: record.failed,
            missed: record.missed,
            latency_us: report::Quantiles::of(&record.times.latency),
        })
        .collect()
}

/// Rows of the heat map: two per doubling.
const HEAT_STEPS: usize = 4;

fn series(record: &recorder::Recorder, driven: &Driven) -> report::Series {
    // What was recorded after the plan's end is the drain; one slice of it is enough.
    let end = driven
        .recorder
        .segments
        .iter()
        .filter_map(|s| s.ended)
        .max()
        .map_or(0.0, |at| since(record.origin, at));
    let keep = (end / record.slice.as_secs_f64() - 1e-6).ceil() as usize;
    let slices = &record.slices[..record.slices.len().min(keep)];
    let quantile = |q: f64| {
        slices
            .iter()
            .map(|slice| slice.quantile(q).map(|us| us as u64))
            .collect()
    };
    let heat: Vec<Vec<u32>> = slices
        .iter()
        .map(|slice| {
            slice
                .latency
                .chunks(HEAT_STEPS)
                .map(|steps| steps.iter().sum())
                .collect()
        })
        .collect();
    report::Series {
        slice_s: record.slice.as_secs_f64(),
        offered: slices.iter().map(|slice| slice.offered).collect(),
        sealed: slices.iter().map(|slice| slice.sealed).collect(),
        failed: slices.iter().map(|slice| slice.failed + slice.missed).collect(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        heat_us: (0..recorder::LATENCY_STEPS)
            .step_by(HEAT_STEPS)
            .map(recorder::step_micros)
            .collect(),
        heat,
    }
}

fn since(origin: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(origin).as_secs_f64()
}
