//! The harness against a service that seals nothing: what it counts must add up, whatever the service does.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use muhurdar_loadtest::{
    driver::{DriveError, Mode},
    plan::PlanSpec,
    run::{self, RunError},
    screen::Screen,
};

use self::common::{Bench, offered, run};

#[test]
fn every_request_is_answered_once_in_every_mode_and_loop() {
    for mode in [Mode::Stream, Mode::Unary, Mode::Batch] {
        for plan in ["constant:400", "poisson:400", "closed:9", "steps:200..400/200"] {
            let bench = Bench::new();
            let report = run(bench.order(mode, plan, 0.5));
            assert_eq!(
                report.sealed,
                offered(&report),
                "{mode:?} {plan}: {:?}",
                report.failures
            );
            assert_eq!(bench.server().behaviour.seen(), report.sealed, "{mode:?} {plan}");
            assert!(report.sealed >= 100, "{mode:?} {plan}: {}", report.sealed);
            assert!(report.errors.is_empty() && report.missed_sends == 0 && report.generator.strays == 0);
        }
    }
}

#[test]
fn the_peak_plan_finds_a_rate_and_then_keeps_seventy_percent_of_it() {
    let bench = Bench::new();
    let report = run(bench.order(Mode::Stream, "peak", 1.5));
    let (peak, steady) = (&report.segments[0], &report.segments[1]);
    assert_eq!((peak.loop_.as_str(), steady.loop_.as_str()), ("closed", "open"));
    let share = steady.offered_per_s / peak.achieved_per_s;
    assert!((0.69..0.71).contains(&share), "{share}");
    assert_eq!(report.latency_segment, "steady");
}

/// Constant arrivals for 3 s, and for 1 s of them no answer: of a third of the requests the wait is even between 0 and 1 s, so a share
/// of (1 - x) / 3 waits longer than x seconds. A tenth waits longer than 0.7 s: that is the p90. Tolerance 0.15 s, for a busy machine.
#[test]
fn a_stall_shows_in_an_open_loop_as_arithmetic_says_and_hides_in_a_closed_one() {
    let stalled = |plan: &str| {
        let bench = Bench::new();
        let behaviour = bench.server().behaviour.clone();
        let order = bench.order(Mode::Stream, plan, 3.0);
        let staller = std::thread::spawn(move || {
            // The run begins with the first document; a second later the stall does.
            while behaviour.seen() == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_secs(1));
            behaviour.stall(Duration::from_secs(1));
        });
        let report = run(order);
        staller.join().unwrap();
        report
    };
    let open = stalled("constant:500");
    assert_eq!(open.sealed, 1500);
    let noise = open.generator.lag_us.max + open.latency_us.p50;
    for (measured, expected) in [(open.latency_us.p90, 700_000), (open.latency_us.max, 1_000_000)] {
        assert!(
            (expected - 150_000..expected + 150_000 + noise).contains(&measured),
            "{noise} µs of noise: {:?}",
            open.latency_us
        );
    }
    let closed = stalled("closed:4");
    assert!(
        closed.latency_us.p99 < open.latency_us.p90 / 2,
        "four callers see the stall once each: {:?}",
        closed.latency_us
    );
}

#[test]
fn a_closed_loop_keeps_to_its_callers_from_the_warm_up_on() {
    for mode in [Mode::Stream, Mode::Unary, Mode::Batch] {
        let bench = Bench::new();
        let mut order = bench.order(mode, "closed:4", 0.2);
        let spec = "closed:4".parse::<PlanSpec>().unwrap();
        let fifth = Duration::from_millis(200);
        order.plan = spec.plan(fifth, fifth, 4).unwrap();
        // Nothing is answered before both segments are over: four calls are out, and stay alone.
        bench.server().behaviour.stall(Duration::from_secs(2));
        let report = run(order);
        let sent: f64 = report
            .segments
            .iter()
            .map(|segment| segment.offered_per_s * segment.duration_s)
            .sum();
        let expected = if mode == Mode::Batch { 4.0 * 8.0 } else { 4.0 };
        assert!((sent - expected).abs() < 0.01, "{mode:?}: {sent}");
    }
}

#[test]
fn refusals_are_counted_by_code_and_reason() {
    for mode in [Mode::Stream, Mode::Unary, Mode::Batch] {
        let bench = Bench::new();
        bench.server().behaviour.refuse_every(5);
        let report = run(bench.order(mode, "constant:200", 0.5));
        assert_eq!(report.errors["RESOURCE_EXHAUSTED"], 20, "{mode:?}");
        assert_eq!(
            (report.failures.len(), report.failures[0].reason.as_str()),
            (1, "OVERLOADED")
        );
        assert_eq!(report.sealed, 80);
    }
}

#[test]
fn what_cannot_be_sent_is_counted_and_not_forgotten() {
    let bench = Bench::new();
    bench.server().behaviour.stall(Duration::from_millis(700));
    let mut order = bench.order(Mode::Stream, "constant:1000", 0.5);
    order.setup.max_in_flight = 100;
    let report = run(order);
    assert_eq!((report.sealed, report.missed_sends), (100, 400));
    assert!(
        report.notes.iter().any(|note| note.contains("100 were in flight")),
        "{:?}",
        report.notes
    );
}

#[test]
fn a_service_that_goes_away_fails_its_requests_and_ends_nothing_else() {
    let mut bench = Bench::new();
    let server = bench.server.take().unwrap();
    let behaviour = server.behaviour.clone();
    let order = bench.order(Mode::Stream, "constant:200", 1.0);
    let killer = std::thread::spawn(move || {
        while behaviour.seen() < 50 {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(server);
    });
    let report = run(order);
    killer.join().unwrap();
    assert_eq!(report.sealed + report.errors["UNAVAILABLE"], 200);
    assert!(
        report.failures.iter().all(|failure| failure.reason == "CONNECTION"),
        "{:?}",
        report.failures
    );
}

#[test]
fn nobody_listening_is_told_before_any_load() {
    let mut bench = Bench::new();
    bench.server = None;
    let error = run::run(&bench.order(Mode::Stream, "constant:10", 0.1), &Screen::new(true)).unwrap_err();
    assert!(matches!(error, RunError::Drive(DriveError::Connect(_))), "{error}");
    assert!(error.to_string().contains(&bench.endpoint), "{error}");
}

#[test]
fn what_is_no_seal_is_found_and_makes_the_run_invalid() {
    if std::process::Command::new("xmlsec1").arg("--version").output().is_err() {
        eprintln!(
            "SKIPPED what_is_no_seal_is_found_and_makes_the_run_invalid: xmlsec1 is not installed (apt-get install xmlsec1)"
        );
        return;
    }
    let bench = Bench::new();
    let mut order = bench.order(Mode::Stream, "constant:100", 0.2);
    (order.setup.sample, order.verify) = (1.0, (1.0, true));
    let report = run(order);
    assert_eq!((report.verified, report.verify_failures), (0, 20));
    assert!(
        !report.valid
            && report
                .problems
                .iter()
                .any(|problem| problem.contains("20 of the verified"))
    );
}
