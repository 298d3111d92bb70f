//! `muhurdar-loadtest calibrate`: what the generator itself can do on this machine, against a service that seals nothing.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use muhurdar_proto::seal::v1::{AnswerKind, Priority};

use super::Exit;
use crate::{
    driver::{Branch, Mode, Setup},
    generator::{Kind, SizeMix, TaxpayerMix, Workload},
    null_server::NullServer,
    plan::{self, PlanSpec},
    report::Report,
    run::{self, Order},
    screen::Screen,
    target::{self, Target},
    timeline::Hands,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Size of the documents
    #[arg(long, value_name = "SIZE", default_value = "10k")]
    size: SizeMix,
    /// How requests travel
    #[arg(long, value_name = "MODE", default_value = "stream")]
    mode: Mode,
    /// Rate at which to look at the generator's own punctuality
    #[arg(long, value_name = "N", default_value_t = 2000.0)]
    rate: f64,
    /// How long each of the two measurements takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = |text: &str| plan::duration(text).ok_or("write 5s"))]
    duration: Duration,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let folder = tempfile::tempdir().map_err(Exit::unavailable)?;
    let server = NullServer::start(folder.path()).map_err(Exit::unavailable)?;
    let one = |plan: &PlanSpec| -> Result<Report, Exit> {
        let taxpayer = target::taxpayer("1234567890", None).ok_or_else(|| Exit::failed("no taxpayer"))?;
        let order = Order {
            setup: Setup {
                target: Target::open(&server.endpoint, &folder.path().join("ca.crt")).map_err(Exit::failed)?,
                branches: vec![Branch {
                    identity: NullServer::client(folder.path()).map_err(Exit::failed)?,
                    share: 1.0,
                    priority: Priority::Unspecified,
                }],
                workload: Workload {
                    kinds: vec![Kind::Invoice],
                    sizes: args.size.clone(),
                    taxpayers: TaxpayerMix::new(vec![taxpayer], 0.0).ok_or_else(|| Exit::failed("no taxpayer"))?,
                    seed: 1,
                    issue_date: jiff::Zoned::now().date(),
                    given: None,
                },
                mode: args.mode,
                answer: AnswerKind::Document,
                connections: args.connections,
                streams: 1,
                batch: 16,
                workers: 1,
                max_in_flight: 4096,
                sample: 0.0,
                sample_bytes: 0,
                drain: Duration::from_secs(5),
            },
            plan: plan
                .plan(args.duration, Duration::from_secs(1), 64)
                .map_err(Exit::usage)?,
            metrics: None,
            ceiling: None,
            verify: (0.0, false),
            config: std::collections::BTreeMap::new(),
            command: std::env::args().collect(),
            label: None,
            actions: Vec::new(),
            hands: Hands::default(),
            fleet: None,
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        run::run(&order, &Screen::new(true))
            .map(|(report, _)| report)
            .map_err(Exit::failed)
    };
    let most = one(&PlanSpec::Closed(64))?;
    let punctual = one(&PlanSpec::Constant(args.rate))?;
    println!(
        "    {:.0} requests/s of {:.0} bytes by one thread and as many answers, {:.1} µs of its CPU each: {:.0} requests/s from one CPU of its own",
        most.achieved_per_s,
        most.workload.request_bytes,
        most.generator.cpu_us_per_request,
        1e6 / most.generator.cpu_us_per_request.max(1e-3)
    );
    let lag = punctual.generator.lag_us;
    println!(
        "    at {:.0} requests/s its sends were late by p50 {} µs, p99 {} µs, p99.9 {} µs, at most {} µs; it waited {:.1} % of the time for a CPU",
        punctual.offered_per_s,
        lag.p50,
        lag.p99,
        lag.p999,
        lag.max,
        punctual.generator.waited * 100.0
    );
    Ok(())
}
