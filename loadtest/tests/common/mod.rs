//! A service that seals nothing, and an order to load it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests: each uses its part"
)]

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use muhurdar_loadtest::{
    driver::{Branch, Mode, Setup},
    generator::{Kind, TaxpayerMix, Workload},
    null_server::NullServer,
    plan::PlanSpec,
    report::Report,
    run::{self, Order},
    screen::Screen,
    target::{self, Target},
    timeline::Hands,
};
use muhurdar_proto::seal::v1::{AnswerKind, Priority};

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub server: Option<NullServer>,
    pub endpoint: String,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = NullServer::start(folder.path()).unwrap();
        Self {
            endpoint: server.endpoint.clone(),
            server: Some(server),
            folder,
        }
    }

    pub fn server(&self) -> &NullServer {
        self.server.as_ref().unwrap()
    }

    pub fn order(&self, mode: Mode, plan: &str, seconds: f64) -> Order {
        let taxpayer = target::taxpayer("1234567890", None).unwrap();
        Order {
            setup: Setup {
                target: Target::open(&self.endpoint, &self.folder.path().join("ca.crt")).unwrap(),
                branches: vec![Branch {
                    identity: NullServer::client(self.folder.path()).unwrap(),
                    share: 1.0,
                    priority: Priority::Unspecified,
                }],
                workload: Workload {
                    kinds: Kind::ALL.to_vec(),
                    sizes: "6k,20k".parse().unwrap(),
                    taxpayers: TaxpayerMix::new(vec![taxpayer], 0.0).unwrap(),
                    seed: 1,
                    issue_date: jiff::civil::date(2026, 11, 21),
                    given: None,
                },
                mode,
                answer: AnswerKind::Document,
                connections: 2,
                streams: 2,
                batch: 8,
                workers: 2,
                max_in_flight: 4096,
                sample: 0.0,
                sample_bytes: 1 << 24,
                drain: Duration::from_secs(5),
            },
            plan: plan
                .parse::<PlanSpec>()
                .unwrap()
                .plan(Duration::from_secs_f64(seconds), Duration::ZERO, 16)
                .unwrap(),
            metrics: None,
            ceiling: None,
            verify: (0.0, false),
            config: std::collections::BTreeMap::new(),
            command: Vec::new(),
            label: None,
            actions: Vec::new(),
            hands: Hands::default(),
            fleet: None,
            interrupted: Arc::new(AtomicBool::new(false)),
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "reads as one line in each test")]
pub fn run(order: Order) -> Report {
    run::run(&order, &Screen::new(true)).unwrap().0
}

pub fn offered(report: &Report) -> u64 {
    report.branches.iter().map(|branch| branch.offered).sum()
}
