//! Whether a run's figures mean what they say.
//!
//! A harness that is itself the bottleneck reports its own slowness as the service's. Its verdict is then *invalid*, not *slow*.

use crate::report::Report;

/// A thread that used more of its CPU than this had no time left for more requests.
const BUSY: f64 = 0.90;
/// Latency counts from when a request was due, so that a late generator flatters nobody; but where its lateness at the 99th percentile is more than
/// this, and more than this part of the p99 latency, that latency is mostly its own.
const LATE_US: u64 = 10_000;
const LATE_PART: f64 = 0.5;
/// From here on a note tells of it.
const LATE_NOTE_US: u64 = 1_000;
/// An agent's clock may part from the controller's by so much in a run: a tenth of the shortest slice of the graphs.
const MOST_DRIFT_US: f64 = 10_000.0;
/// The two measurements of the token alone may differ by this part.
const UNSTEADY: f64 = 0.10;
/// Beyond this part of the time spent waiting for a CPU, a note says that the machine is shared.
const WAITED: f64 = 0.10;

/// Fills in `valid`, `problems` and `notes`.
pub(crate) fn judge(report: &mut Report) {
    let generator = &report.generator;
    let mut problems = Vec::new();
    if generator.busiest_thread > BUSY {
        problems.push(format!(
            "the generator was the bottleneck: its busiest thread used {:.0} % of a CPU (more --threads, or another machine)",
            generator.busiest_thread * 100.0
        ));
    }
    let lag = generator.lag_us.p99;
    let allowed = LATE_US.max((report.latency_us.p99 as f64 * LATE_PART) as u64);
    if lag > allowed {
        problems.push(format!(
            "the generator was late: 1 % of its sends were {lag} µs or more behind the plan, {allowed} µs are allowed"
        ));
    }
    for agent in &report.agents {
        let (late, busy) = (agent.generator.lag_us.p99, agent.generator.busiest_thread);
        // One late machine among many is lost in the sum.
        if late > allowed && lag <= allowed {
            problems.push(format!(
                "agent {} was late: 1 % of its sends were {late} µs or more behind the plan",
                agent.name
            ));
        }
        if busy > BUSY && generator.busiest_thread <= BUSY {
            problems.push(format!(
                "agent {} was the bottleneck: its busiest thread used {:.0} % of a CPU",
                agent.name,
                busy * 100.0
            ));
        }
        if agent.clock_drift_us > MOST_DRIFT_US {
            problems.push(format!(
                "the clock of agent {} went {:.0} ms from the controller's during the run: its load was not where the plan had it",
                agent.name,
                agent.clock_drift_us / 1e3
            ));
        }
    }
    if (LATE_NOTE_US..=allowed).contains(&lag) {
        report.notes.push(format!(
            "1 % of the generator's sends were {:.1} ms or more behind the plan; latencies include it",
            lag as f64 / 1000.0
        ));
    }
    if report.verify_failures > 0 {
        problems.push(format!("{} of the verified seals are wrong", report.verify_failures));
    }
    if generator.strays > 0 {
        problems.push(format!("{} answers belong to no request", generator.strays));
    }
    if report.sealed == 0 {
        problems.push("nothing was sealed".to_owned());
    }
    if generator.waited > WAITED {
        report.notes.push(format!(
            "the generator waited {:.0} % of the time for a CPU: the machine is shared, and latencies include it",
            generator.waited * 100.0
        ));
    }
    if let Some(ceiling) = &report.ceiling {
        let (low, high) = ceiling
            .measured_per_s
            .iter()
            .fold((f64::MAX, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
        if high > low * (1.0 + UNSTEADY) || report.ratio_to_ceiling.is_some_and(|ratio| ratio > 1.0) {
            report.notes.push(format!(
                "the token alone gave {low:.0} to {high:.0} signatures/s: something else used the machine or the HSM, and \
                 the ratio to it is no better than that"
            ));
        }
    }
    if report.missed_sends > 0 {
        report.notes.push(format!(
            "{} requests were not sent because {} were in flight: the plan asked for more than the service takes",
            report.missed_sends, report.workload.max_in_flight
        ));
    }
    if report.latency_loop == "closed" {
        report.notes.push(
            "latencies are of a closed loop: callers that wait hide stalls from those who would have come".into(),
        );
    }
    if report.verification.skipped > 0 {
        report.notes.push(format!(
            "{} sampled seals were not verified: no room to keep them",
            report.verification.skipped
        ));
    }
    report.valid = problems.is_empty();
    report.problems = problems;
}
