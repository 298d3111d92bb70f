//! The search for an objective against a service that seals nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use muhurdar_loadtest::{driver::Mode, screen::Screen, slo};

use self::common::Bench;

#[test]
fn an_objective_that_no_rate_holds_ends_with_what_failed_and_what_a_closed_loop_reached() {
    let bench = Bench::new();
    let order = bench.order(Mode::Stream, "closed:1", 0.1);
    // Every other request is refused, at whatever rate.
    bench.server().behaviour.refuse_every(2);
    let criteria = "errors<1%".parse().unwrap();
    let trial = Duration::from_millis(100);
    let (report, _) = slo::search(&order, &criteria, trial, Duration::ZERO, 1, &Screen::new(true)).unwrap();
    let slo = report.slo.unwrap();
    assert_eq!(slo.holds_per_s, None, "{slo:?}");
    assert!(
        slo.closed_loop_per_s.unwrap() > 0.0 && !slo.doubts.is_empty(),
        "{slo:?}"
    );
    assert!((2..=30).contains(&slo.tried.len()), "{slo:?}");
    let counted: usize = slo.rates.iter().map(|rate| rate.failed + rate.untold).sum();
    assert_eq!(counted, slo.tried.len());
    for trial in &slo.tried {
        // On a busy machine a try may say nothing at all; none may say that it held.
        assert!(!trial.held && !trial.why.is_empty(), "{trial:?}");
    }
}
