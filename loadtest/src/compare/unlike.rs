//! Whether two runs did the same, so that their figures may be held against each other.

use std::fmt;

use crate::report::{Report, SegmentReport};

/// Durations and rates of one plan differ by less.
const SAME: f64 = 0.05;
/// The token alone may differ by this part before it is said.
const UNSTEADY: f64 = 0.10;

/// In what runs can be unlike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Sizes of the documents.
    Size,
    /// Kinds of documents.
    Documents,
    /// How requests travel, and what comes back.
    Mode,
    /// How many taxpayers, and how evenly they are asked for.
    Taxpayers,
    /// Connections, streams, the most in flight.
    Connections,
    /// Priorities and shares of the branches.
    Branches,
    /// Loops, callers, rates, durations.
    Load,
    /// What `--slo` asked.
    Objective,
    /// What was done to the service meanwhile.
    Faults,
    /// Threads and agents that made the load.
    Generator,
    /// What it ran on.
    Machine,
    /// Host of the service.
    Server,
    /// The token, and how many sessions signed.
    Token,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "size",
            Self::Documents => "documents",
            Self::Mode => "mode",
            Self::Taxpayers => "taxpayers",
            Self::Connections => "connections",
            Self::Branches => "branches",
            Self::Load => "load",
            Self::Objective => "objective",
            Self::Faults => "faults",
            Self::Generator => "generator",
            Self::Machine => "machine",
            Self::Server => "server",
            Self::Token => "token",
        })
    }
}

/// One way in which two runs are unlike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub what: What,
    /// How it is in A.
    pub a: String,
    /// And in B.
    pub b: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} and {}", self.what, self.a, self.b)
    }
}

/// Everything in which two runs are unlike.
pub fn unlike(a: &Report, b: &Report) -> Vec<Difference> {
    type Say = fn(&Report) -> String;
    let mut found = Vec::new();
    let mut differ = |what, same: bool, a: String, b: String| {
        if !same {
            found.push(Difference { what, a, b });
        }
    };
    let said: [(What, Say); 10] = [
        (What::Size, size),
        (What::Documents, documents),
        (What::Mode, |r| format!("{} for {}", r.workload.mode, r.workload.answer)),
        (What::Taxpayers, |r| {
            format!("{} with Zipf {}", r.workload.taxpayers, r.workload.zipf)
        }),
        (What::Connections, connections),
        (What::Branches, branches),
        (What::Objective, |r| {
            r.slo
                .as_ref()
                .map_or_else(|| "none".to_owned(), |slo| slo.asked.clone())
        }),
        (What::Faults, faults),
        (What::Generator, generator),
        (What::Server, |r| host(&r.workload.endpoint).to_owned()),
    ];
    for (what, say) in said {
        let (a, b) = (say(a), say(b));
        differ(what, a == b, a, b);
    }
    differ(What::Load, same_load(a, b), load(a), load(b));
    let (of_a, of_b) = (&a.machine, &b.machine);
    let gib = |bytes: u64| (bytes as f64 / f64::from(1 << 30)).round();
    let machine = |m: &crate::machine::Machine| format!("{} × {}, {} GiB", m.cpus, m.cpu, gib(m.memory_bytes));
    differ(
        What::Machine,
        machine(of_a) == machine(of_b),
        machine(of_a),
        machine(of_b),
    );
    if let (Some(of_a), Some(of_b)) = (&a.ceiling, &b.ceiling) {
        let token = |c: &crate::report::Ceiling| format!("{} with {} sessions", c.token, c.sessions);
        differ(What::Token, token(of_a) == token(of_b), token(of_a), token(of_b));
    }
    found
}

/// What a reader should know of two runs that are alike.
pub fn notes(a: &Report, b: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let keys: std::collections::BTreeSet<&String> = a.config.keys().chain(b.config.keys()).collect();
    for key in keys {
        let value = |report: &Report| {
            report
                .config
                .get(key)
                .map_or_else(|| "not set".to_owned(), Clone::clone)
        };
        if a.config.get(key) != b.config.get(key) {
            notes.push(format!(
                "the service's configuration differs: {key} is {} in A, {} in B",
                value(a),
                value(b)
            ));
        }
    }
    if a.version != b.version {
        notes.push(format!("not the same harness: {} and {}", a.version, b.version));
    }
    if a.machine.kernel != b.machine.kernel {
        notes.push(format!(
            "not the same kernel: {} and {}",
            a.machine.kernel, b.machine.kernel
        ));
    }
    match (&a.ceiling, &b.ceiling) {
        (Some(of_a), Some(of_b)) => {
            let (of_a, of_b) = (of_a.sign_per_s, of_b.sign_per_s);
            if of_a.max(of_b) > of_a.min(of_b) * (1.0 + UNSTEADY) {
                notes.push(format!(
                    "the token alone gave {of_a:.0} signatures/s in A and {of_b:.0} in B: the machine or the HSM was not the same,                      whatever was changed"
                ));
            }
        }
        (None, None) => {}
        _ => notes
            .push("the token was measured by itself in one of them only: whether it is the same is not known".into()),
    }
    notes
}

fn size(report: &Report) -> String {
    match report.workload.given_documents {
        0 => report.workload.size.clone(),
        _ => format!("{:.0} bytes", report.workload.request_bytes),
    }
}

fn documents(report: &Report) -> String {
    match report.workload.given_documents {
        0 => report.workload.kinds.join(", "),
        given => format!("{given} of the user's own"),
    }
}

fn connections(report: &Report) -> String {
    let w = &report.workload;
    format!(
        "{} with {} streams, {} in flight",
        w.connections, w.streams, w.max_in_flight
    )
}

fn branches(report: &Report) -> String {
    let mut all: Vec<String> = report
        .branches
        .iter()
        .map(|branch| format!("{} {:.0} %", branch.priority, branch.share * 100.0))
        .collect();
    all.sort();
    all.join(", ")
}

fn faults(report: &Report) -> String {
    match report.events.as_slice() {
        [] => "none".to_owned(),
        events => events
            .iter()
            .map(|event| event.what.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn generator(report: &Report) -> String {
    match report.agents.len() {
        0 => format!("{} threads", report.generator.workers),
        agents => format!("{} threads on {agents} agents", report.generator.workers),
    }
}

/// Without scheme and port: two builds on one host listen on two ports.
fn host(endpoint: &str) -> &str {
    let authority = endpoint.rsplit("://").next().unwrap_or(endpoint);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn measured(report: &Report) -> Vec<&SegmentReport> {
    report.segments.iter().filter(|segment| segment.measured).collect()
}

/// Whether the plan gave the rates: what follows a closed loop is a share of what that reached, and what a search reports is what it found.
fn rates_are_given(report: &Report) -> bool {
    report.slo.is_none()
        && measured(report)
            .first()
            .is_none_or(|segment| segment.concurrency.is_none())
}

fn same_load(a: &Report, b: &Report) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= a.max(b) * SAME;
    let given = rates_are_given(a) && rates_are_given(b);
    let (a, b) = (measured(a), measured(b));
    let alike = |(a, b): (&&SegmentReport, &&SegmentReport)| {
        a.loop_ == b.loop_
            && a.concurrency == b.concurrency
            && near(a.duration_s, b.duration_s)
            && (!given || near(a.offered_per_s, b.offered_per_s))
    };
    a.len() == b.len() && a.iter().zip(&b).all(alike)
}

fn load(report: &Report) -> String {
    let segments = measured(report);
    let given = rates_are_given(report);
    let say = |segment: &&SegmentReport| {
        let how = match segment.concurrency {
            Some(callers) => format!("closed, {callers} callers"),
            None if given => format!("open at {:.0}/s", segment.offered_per_s),
            None => "open".to_owned(),
        };
        format!("{how} for {:.3} s", segment.duration_s).replace(".000 s", " s")
    };
    if segments.len() > 3 {
        let (rates, seconds): (Vec<f64>, Vec<f64>) = segments
            .iter()
            .map(|segment| (segment.offered_per_s, segment.duration_s))
            .unzip();
        let most = rates.iter().copied().fold(0.0, f64::max);
        return format!(
            "{} pieces up to {most:.0}/s for {:.0} s",
            segments.len(),
            seconds.iter().sum::<f64>()
        );
    }
    segments.iter().map(say).collect::<Vec<_>>().join(", then ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Event, Slo, testing};

    #[test]
    fn runs_of_one_plan_are_alike_though_their_figures_differ() {
        let (a, mut b) = (testing::report(), testing::report());
        b.sealed /= 2;
        b.achieved_per_s /= 2.0;
        b.workload.seed = 7;
        // Poisson arrivals are never quite as many.
        b.segments[1].offered_per_s *= 1.01;
        // Two builds, side by side.
        b.workload.endpoint = "https://127.0.0.1:9999".into();
        assert_eq!(unlike(&a, &b), []);
    }

    #[test]
    fn everything_that_makes_runs_unlike_is_named() {
        type Change = fn(&mut Report);
        let changes: [(What, &str, Change); 17] = [
            (What::Size, "size: season and 260k", |r| r.workload.size = "260k".into()),
            (What::Documents, "documents: invoice and despatch", |r| {
                r.workload.kinds = vec!["despatch".into()];
            }),
            (What::Mode, "mode: stream for sealed_document and unary", |r| {
                r.workload.mode = "unary".into();
            }),
            (What::Mode, "signature_only", |r| {
                r.workload.answer = "signature_only".into();
            }),
            (What::Taxpayers, "taxpayers: 2 with Zipf 0 and 9", |r| {
                r.workload.taxpayers = 9;
            }),
            (What::Connections, "8 with 1 streams", |r| r.workload.connections = 8),
            (What::Branches, "interactive 67 %", |r| {
                r.branches.pop();
            }),
            (What::Load, "open at 1201/s for 60 s", |r| {
                r.segments[1].offered_per_s *= 2.0;
            }),
            (What::Load, "open at 601/s for 30 s", |r| {
                r.segments[1].duration_s = 30.0;
            }),
            (What::Load, "closed, 32 callers for 60 s", |r| {
                (r.segments[1].loop_, r.segments[1].concurrency) = ("closed".into(), Some(32));
            }),
            (What::Load, ", then ", |r| r.segments.push(r.segments[1].clone())),
            (What::Objective, "objective: none and p99<20ms", |r| {
                r.slo = Some(Slo {
                    asked: "p99<20ms".into(),
                    ..Slo::default()
                });
            }),
            (What::Faults, "faults: none and restart", |r| {
                r.events.push(Event {
                    at_s: 1.0,
                    until_s: None,
                    what: "restart".into(),
                });
            }),
            (What::Generator, "1 threads on 1 agents", |r| {
                r.agents.push(testing::agent("load-1"));
            }),
            (What::Machine, "64 × AMD EPYC, 24 GiB", |r| r.machine.cpus = 64),
            (What::Server, "server: 127.0.0.1 and seal.example", |r| {
                r.workload.endpoint = "https://seal.example:7443".into();
            }),
            (What::Token, "token: dev with 2 sessions and hsm", |r| {
                r.ceiling.as_mut().unwrap().token = "hsm".into();
            }),
        ];
        for (what, said, change) in changes {
            let (a, mut b) = (testing::report(), testing::report());
            change(&mut b);
            let found = unlike(&a, &b);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert_eq!(found[0].what, what);
            assert!(found[0].to_string().contains(said), "{}", found[0]);
        }
    }

    #[test]
    fn callers_of_a_closed_loop_count_and_the_rate_that_they_reach_does_not() {
        let closed = |callers, rate: f64| {
            let mut report = testing::report();
            let mut peak = report.segments[1].clone();
            (peak.loop_, peak.concurrency, peak.offered_per_s) = ("closed".into(), Some(callers), rate);
            report.segments[1].offered_per_s = rate * 0.7;
            report.segments.insert(1, peak);
            report
        };
        assert_eq!(unlike(&closed(32, 1000.0), &closed(32, 2000.0)), []);
        let found = unlike(&closed(32, 1000.0), &closed(8, 1000.0));
        assert_eq!(
            found[0].to_string(),
            "load: closed, 32 callers for 60 s, then open for 60 s and closed, 8 callers for 60 s, then open for 60 s"
        );
    }

    #[test]
    fn what_was_varied_on_purpose_is_a_note() {
        let (a, mut b) = (testing::report(), testing::report());
        b.config.insert("server.network_threads".into(), "2".into());
        b.ceiling.as_mut().unwrap().sign_per_s *= 1.3;
        let said = notes(&a, &b).join("\n");
        assert!(
            said.contains("server.network_threads is not set in A, 2 in B") && said.contains("the token alone gave"),
            "{said}"
        );
        assert_eq!(notes(&a, &a), Vec::<String>::new());
        b.ceiling = None;
        assert!(notes(&a, &b).join("\n").contains("in one of them only"));
    }
}
