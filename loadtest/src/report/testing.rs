//! Reports for tests: a real one, changed in what a test is about.

use super::{AgentReport, Report};

/// A real run of a minute, without the faults of its day: no failure, no event.
pub(crate) fn report() -> Report {
    #[allow(clippy::unwrap_used, reason = "the file is part of the source")]
    let mut report: Report = serde_json::from_str(include_str!("../../tests/data/report.json")).unwrap();
    report.errors.clear();
    report.failures.clear();
    report.events.clear();
    report.problems.clear();
    report
}

/// An agent in order.
pub(crate) fn agent(name: &str) -> AgentReport {
    AgentReport {
        name: name.to_owned(),
        clock_offset_us: 0.0,
        clock_bound_us: 0.0,
        clock_drift_us: 0.0,
        offered: 1,
        sealed: 1,
        failed: 0,
        missed: 0,
        generator: crate::report::Generator::default(),
        machine: crate::machine::Machine::default(),
    }
}
