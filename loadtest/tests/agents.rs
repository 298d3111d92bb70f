//! Many agents are one generator: what they send adds up to the plan, what they saw adds up to the report, and they end by themselves.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::{
    collections::HashSet,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use muhurdar_loadtest::{
    agents::{self, Agent, Fleet, FleetError},
    driver::{DriveError, Mode},
    generator::Given,
    run::{self, RunError},
    screen::Screen,
};

use self::common::{Bench, offered, run};

struct Agents {
    _folder: tempfile::TempDir,
    keys: PathBuf,
    hosts: Vec<String>,
    threads: Vec<JoinHandle<()>>,
}

fn start(agent: Agent, keys: &Path) -> (String, JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let keys = keys.to_owned();
    let thread = std::thread::spawn(move || {
        agents::serve(agent, &keys, |said| {
            if let Some(address) = said.strip_prefix("agent listens on ") {
                tell.send(address.to_owned()).unwrap();
            }
        })
        .unwrap();
    });
    (told.recv().unwrap(), thread)
}

const AGENT: Agent = Agent {
    listen: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0),
    idle: Duration::from_secs(30),
    stay: false,
};

impl Agents {
    fn start(count: usize, agent: Agent) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        agents::make(&keys).unwrap();
        let (hosts, threads) = (0..count).map(|_| start(agent, &keys)).unzip();
        Self {
            _folder: folder,
            keys,
            hosts,
            threads,
        }
    }

    fn connect(&self) -> Arc<Fleet> {
        Arc::new(Fleet::connect(&self.hosts, &self.keys, Duration::from_secs(1)).unwrap())
    }

    /// They end by themselves, or the test hangs.
    fn all_end(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn three_agents_send_what_the_plan_says_and_their_counts_add_up() {
    for (mode, plan) in [
        (Mode::Stream, "constant:600"),
        (Mode::Unary, "poisson:600"),
        (Mode::Batch, "closed:12"),
    ] {
        let (bench, agents) = (Bench::new(), Agents::start(3, AGENT));
        let mut order = bench.order(mode, plan, 0.5);
        order.fleet = Some(agents.connect());
        let report = run(order);
        agents.all_end();
        assert_eq!(report.sealed, offered(&report), "{plan}: {:?}", report.failures);
        assert_eq!(bench.server().behaviour.seen(), report.sealed, "{plan}");
        if plan.starts_with("constant") {
            assert_eq!(report.sealed, 300);
            // Two threads each at three agents: a sixth of one schedule each, none twice.
            assert_eq!(report.generator.workers, 6);
            assert!(
                report.agents.iter().all(|agent| agent.offered == 100),
                "{:?}",
                report.agents
            );
        }
        assert_eq!(
            report.agents.iter().map(|agent| agent.sealed).sum::<u64>(),
            report.sealed
        );
        // By time of request nothing lies beyond the plan's end, as answers may.
        let series = report.series.offered.iter().map(|n| u64::from(*n)).sum::<u64>();
        assert_eq!(series, offered(&report), "{plan}");
        for agent in &report.agents {
            assert!(
                agent.clock_offset_us.abs() <= agent.clock_bound_us,
                "one machine has one clock: {agent:?}"
            );
            assert!(agent.clock_bound_us < 50_000.0, "{agent:?}");
        }
    }
}

#[test]
fn the_peak_of_all_agents_together_is_what_the_next_segment_takes_its_share_of() {
    let (bench, agents) = (Bench::new(), Agents::start(2, AGENT));
    let mut order = bench.order(Mode::Stream, "peak", 0.9);
    order.fleet = Some(agents.connect());
    let report = run(order);
    agents.all_end();
    let share = report.segments[1].offered_per_s / report.segments[0].achieved_per_s;
    assert!((0.68..0.72).contains(&share), "{share}");
}

#[test]
fn sampled_answers_come_back_to_be_verified_with_their_documents() {
    let (bench, agents) = (Bench::new(), Agents::start(2, AGENT));
    let mut order = bench.order(Mode::Stream, "constant:100", 0.2);
    (order.setup.sample, order.verify) = (1.0, (1.0, false));
    let given = |name: &str| Given {
        name: name.into(),
        bytes: "<no-seal/>".into(),
        taxpayer: None,
    };
    order.setup.workload.given = Some([given("a.xml"), given("b.xml")].into());
    order.fleet = Some(agents.connect());
    let report = run(order);
    agents.all_end();
    assert_eq!(report.sealed, 20);
    if report.verification.by.is_empty() {
        return eprintln!("SKIPPED the verification: xmlsec1 is not installed");
    }
    assert_eq!(report.verify_failures, 20, "the null server seals nothing");
    let names: HashSet<&str> = report.verification.examples.iter().map(|text| &text[..5]).collect();
    assert!(names.is_subset(&HashSet::from(["a.xml", "b.xml"])), "{names:?}");
}

#[test]
fn one_agent_serves_many_runs_of_one_controller_and_then_the_next_controller_if_it_stays() {
    let agents = Agents::start(
        1,
        Agent {
            idle: Duration::from_millis(800),
            stay: true,
            ..AGENT
        },
    );
    for _ in 0..2 {
        let bench = Bench::new();
        let fleet = agents.connect();
        for _ in 0..2 {
            let mut order = bench.order(Mode::Stream, "constant:100", 0.1);
            order.fleet = Some(fleet.clone());
            assert_eq!(run(order).sealed, 10);
        }
    }
    agents.all_end();
}

#[test]
fn an_agent_whose_service_is_not_there_says_so_and_the_run_ends() {
    let (mut bench, agents) = (Bench::new(), Agents::start(2, AGENT));
    bench.server = None;
    let mut order = bench.order(Mode::Stream, "constant:100", 0.1);
    order.fleet = Some(agents.connect());
    let error = run::run(&order, &Screen::new(true)).unwrap_err();
    drop(order);
    assert!(
        matches!(&error, RunError::Drive(DriveError::Agent(_, why)) if why.contains("cannot connect")),
        "{error}"
    );
    agents.all_end();
}

#[test]
fn an_agent_that_is_lost_ends_the_run_and_not_with_figures() {
    let (bench, agents) = (Bench::new(), Agents::start(1, AGENT));
    // A cable that can be pulled.
    let cable = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, agent) = (cable.local_addr().unwrap().to_string(), agents.hosts[0].clone());
    let pulled = std::thread::spawn(move || {
        let (near, far) = (cable.accept().unwrap().0, TcpStream::connect(agent).unwrap());
        let copy = |mut from: TcpStream, mut to: TcpStream| {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        };
        copy(near.try_clone().unwrap(), far.try_clone().unwrap());
        copy(far.try_clone().unwrap(), near.try_clone().unwrap());
        (near, far)
    });
    let fleet = Fleet::connect(&[host], &agents.keys, Duration::from_secs(1)).unwrap();
    let (near, far) = pulled.join().unwrap();
    let mut order = bench.order(Mode::Stream, "constant:200", 30.0);
    order.fleet = Some(Arc::new(fleet));
    let behaviour = bench.server().behaviour.clone();
    let puller = std::thread::spawn(move || {
        while behaviour.seen() < 20 {
            std::thread::sleep(Duration::from_millis(2));
        }
        for end in [near, far] {
            let _ = end.shutdown(std::net::Shutdown::Both);
        }
    });
    let error = run::run(&order, &Screen::new(true)).unwrap_err();
    assert!(matches!(&error, RunError::Drive(DriveError::Agent(..))), "{error}");
    puller.join().unwrap();
    // Thirty seconds of load were ordered; an agent without its controller ends at once.
    agents.all_end();
    assert!(bench.server().behaviour.seen() < 2000);
}

#[test]
fn who_cannot_show_a_controllers_certificate_gives_no_orders_and_does_not_put_the_end_off() {
    let agents = Agents::start(
        1,
        Agent {
            idle: Duration::from_millis(1500),
            ..AGENT
        },
    );
    let folder = tempfile::tempdir().unwrap();
    let connect = |keys: &Path| Fleet::connect(&agents.hosts, keys, Duration::from_secs(1)).unwrap_err();
    // Keys of another set.
    let others = folder.path().join("others");
    agents::make(&others).unwrap();
    let error = connect(&others);
    assert!(error.to_string().contains("of one set"), "{error}");
    // A stolen agent's key, in the place of the controller's.
    let stolen = folder.path().join("stolen");
    std::fs::create_dir(&stolen).unwrap();
    for (from, to) in [
        ("ca.crt", "ca.crt"),
        ("agent.crt", "controller.crt"),
        ("agent.key", "controller.key"),
    ] {
        std::fs::copy(agents.keys.join(from), stolen.join(to)).unwrap();
    }
    assert!(matches!(connect(&stolen), FleetError::Agent(..)));
    // No TLS at all.
    let mut plain = TcpStream::connect(&agents.hosts[0]).unwrap();
    std::io::Write::write_all(&mut plain, b"\0\0\0\x02{}").unwrap();
    drop(plain);
    agents.all_end();
    assert!(matches!(
        agents::make(&others).unwrap_err(),
        agents::KeyError::Exists(_)
    ));
}

#[test]
fn a_clock_that_is_too_far_off_is_refused_with_its_offset() {
    let agents = Agents::start(1, AGENT);
    // Nothing is as near as this: the bound alone is more.
    let error = Fleet::connect(&agents.hosts, &agents.keys, Duration::from_nanos(1)).unwrap_err();
    assert!(matches!(error, FleetError::Clock { .. }), "{error}");
    assert!(error.to_string().contains("--clock-limit"), "{error}");
    agents.all_end();
}
