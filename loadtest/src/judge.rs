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
const WAITED_NOTE: f64 = 0.10;
/// Beyond this part it is not a matter of a note: what was sent, taken and timed was so when others let it. A service's latency of milliseconds
/// cannot be told by a generator that loses every fourth.
const WAITED: f64 = 0.25;
/// Of the CPU time that this machine wanted, its host gave this part to others: a note.
const STOLEN_NOTE: f64 = 0.05;
/// As [`WAITED`]; the kernel's own account of waiting does not have what its host took.
const STOLEN: f64 = 0.25;

/// Fills in `valid`, `problems` and `notes`.
pub(crate) fn judge(report: &mut Report) {
    let mut problems = of_the_harness(report);
    problems.extend(of_the_answers(report));
    notes(report);
    report.valid = problems.is_empty();
    report.problems = problems;
}

/// The most that 1 % of the sends may be late, microseconds.
fn allowed_lag(report: &Report) -> u64 {
    LATE_US.max((report.latency_us.p99 as f64 * LATE_PART) as u64)
}

/// Why the figures tell of the harness or its machine and not of the service: such a run has neither kept nor broken an objective.
pub(crate) fn of_the_harness(report: &Report) -> Vec<String> {
    let generator = &report.generator;
    let mut problems = Vec::new();
    if generator.busiest_thread > BUSY {
        problems.push(format!(
            "the generator was the bottleneck: its busiest thread used {:.0} % of a CPU (more --threads, or another machine)",
            generator.busiest_thread * 100.0
        ));
    }
    let lag = generator.lag_us.p99;
    let allowed = allowed_lag(report);
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
    if generator.waited > WAITED {
        problems.push(format!(
            "the generator waited {:.1} % of the time for a CPU, {:.0} % are allowed: the figures tell of who else ran on its machine",
            generator.waited * 100.0,
            WAITED * 100.0
        ));
    }
    for agent in report.agents.iter().filter(|agent| agent.generator.waited > WAITED) {
        // One that waits is lost among many that do not.
        if generator.waited <= WAITED {
            problems.push(format!(
                "agent {} waited {:.1} % of the time for a CPU, {:.0} % are allowed",
                agent.name,
                agent.generator.waited * 100.0,
                WAITED * 100.0
            ));
        }
    }
    if let Some(stolen) = report.machine.stolen.filter(|stolen| *stolen > STOLEN)
        // With agents nothing was sent from here.
        && report.agents.is_empty()
    {
        problems.push(format!(
            "the host of this virtual machine gave {:.1} % of the CPU time that it wanted to others, {:.0} % are allowed",
            stolen * 100.0,
            STOLEN * 100.0
        ));
    }
    problems
}

/// What is wrong with what came back.
fn of_the_answers(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    if report.verify_failures > 0 {
        problems.push(format!("{} of the verified seals are wrong", report.verify_failures));
    }
    if report.generator.strays > 0 {
        problems.push(format!("{} answers belong to no request", report.generator.strays));
    }
    if report.sealed == 0 {
        problems.push("nothing was sealed".to_owned());
    }
    problems
}

fn notes(report: &mut Report) {
    let (lag, allowed, waited) = (
        report.generator.lag_us.p99,
        allowed_lag(report),
        report.generator.waited,
    );
    if (LATE_NOTE_US..=allowed).contains(&lag) {
        report.notes.push(format!(
            "1 % of the generator's sends were {:.1} ms or more behind the plan; latencies include it",
            lag as f64 / 1000.0
        ));
    }
    if waited > WAITED_NOTE && waited <= WAITED {
        report.notes.push(format!(
            "the generator waited {:.0} % of the time for a CPU: the machine is shared, and latencies include it",
            waited * 100.0
        ));
    }
    if let Some(stolen) = report
        .machine
        .stolen
        .filter(|stolen| *stolen > STOLEN_NOTE && *stolen <= STOLEN)
    {
        report.notes.push(format!(
            "the host of this virtual machine gave {:.0} % of the CPU time that it wanted to others: latencies include it",
            stolen * 100.0
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    fn judged(change: impl FnOnce(&mut Report)) -> Report {
        let mut report = testing::report();
        report.notes.clear();
        report.generator.lag_us = crate::report::Quantiles::default();
        change(&mut report);
        judge(&mut report);
        report
    }

    #[test]
    fn a_generator_that_waited_for_its_cpu_most_of_the_time_measured_nothing() {
        let report = judged(|report| report.generator.waited = 0.57);
        assert!(!report.valid);
        assert!(
            report.problems[0].contains("waited 57.0 % of the time for a CPU"),
            "{:?}",
            report.problems
        );
        assert!(!report.notes.iter().any(|note| note.contains("waited")), "said once");

        let report = judged(|report| report.generator.waited = 0.15);
        assert!(report.valid, "{:?}", report.problems);
        assert!(report.notes.iter().any(|note| note.contains("waited 15 %")));

        let report = judged(|report| report.generator.waited = 0.05);
        assert!(report.valid && report.notes.is_empty(), "{:?}", report.notes);
    }

    #[test]
    fn an_agent_that_waited_is_not_lost_among_those_that_did_not() {
        let report = judged(|report| {
            let mut agent = testing::agent("load-2");
            agent.generator.waited = 0.4;
            report.agents = vec![testing::agent("load-1"), agent];
        });
        assert!(
            !report.valid && report.problems[0].starts_with("agent load-2 waited 40.0 %"),
            "{:?}",
            report.problems
        );
    }

    #[test]
    fn what_the_host_of_a_virtual_machine_took_is_told_and_too_much_of_it_is_not_valid() {
        let report = judged(|report| report.machine.stolen = Some(0.4));
        assert!(
            !report.valid && report.problems[0].contains("gave 40.0 % of the CPU time"),
            "{:?}",
            report.problems
        );
        let report = judged(|report| report.machine.stolen = Some(0.1));
        assert!(
            report.valid && report.notes[0].contains("gave 10 %"),
            "{:?}",
            report.notes
        );
        let report = judged(|report| {
            report.machine.stolen = Some(0.4);
            report.agents = vec![testing::agent("load-1")];
        });
        assert!(report.valid, "the load came from elsewhere: {:?}", report.problems);
    }

    #[test]
    fn what_is_wrong_with_the_harness_is_told_from_what_is_wrong_with_the_service() {
        let report = judged(|report| {
            report.verify_failures = 3;
            report.generator.waited = 0.5;
        });
        assert_eq!(report.problems.len(), 2);
        let harness = of_the_harness(&report);
        assert!(harness.len() == 1 && harness[0].contains("waited"), "{harness:?}");
    }
}
