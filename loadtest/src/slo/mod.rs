//! The highest rate that holds an objective.
//!
//! First a closed loop finds what the service does at most; then open loops close in on the rate between those that hold and those that do not
//! (**search**), each rate tried as often as it takes the tries to agree. Every try is a run of its own, begun when the one before was answered, so
//! that no try inherits another's queue. What the tries amount to, how sure that is, and whether it fits what the closed loop reached is put into
//! words (**say**). The report is that of the highest rate that held.

mod say;
mod search;

use std::{sync::atomic::Ordering, time::Duration};

use hdrhistogram::Histogram;

use self::search::{Outcome, Search};
use crate::{
    criteria::Criteria,
    judge,
    plan::PlanSpec,
    report::{Report, SloTrial},
    run::{self, Order, RunError},
    screen::Screen,
};

/// A service that answers less than this part of what was offered does not hold the rate, whatever its latencies say.
const KEPT_UP: f64 = 0.98;

/// Searches. `trial` is how long each rate is offered.
///
/// # Errors
/// As [`run::run`].
pub fn search(
    order: &Order,
    criteria: &Criteria,
    trial: Duration,
    warmup: Duration,
    concurrency: usize,
    screen: &Screen,
) -> Result<(Report, Histogram<u64>), RunError> {
    let plan = |spec: &PlanSpec| spec.plan(trial, warmup, concurrency).map_err(std::io::Error::other);
    let peak_order = Order {
        plan: plan(&PlanSpec::Closed(concurrency))?,
        ..order.clone()
    };
    screen.stage("finding the highest rate");
    let (peak, peak_latency) = run::run(&peak_order, screen)?;
    screen.say(&say::closed_loop(&peak, concurrency));
    let mut search = Search::new(peak.achieved_per_s, trial.as_secs_f64());
    let (mut held, mut tried) = (Vec::new(), Vec::new());
    while let Some(rate) = search.next() {
        if order.interrupted.load(Ordering::Relaxed) {
            return Err(RunError::Drive(crate::driver::DriveError::Interrupted));
        }
        screen.stage(&format!(
            "trying {rate:.0} requests/s (try {} of {} at most)",
            search.number(),
            search::MOST_TRIES
        ));
        // The token was measured around the first run; what it does alone does not change with the rate.
        let order = Order {
            plan: plan(&PlanSpec::Constant(rate))?,
            ceiling: None,
            ..order.clone()
        };
        let (report, latency) = run::run(&order, screen)?;
        let (outcome, why) = verdict(criteria, &report);
        search.record(rate, outcome);
        let trial = SloTrial {
            rate_per_s: rate,
            achieved_per_s: report.achieved_per_s,
            p99_us: report.latency_us.p99,
            errors: report.error_share(),
            held: outcome == Outcome::Held,
            told: outcome != Outcome::Untold,
            why: why.join("; "),
        };
        screen.say(&say::trial(&trial));
        tried.push(trial);
        if outcome == Outcome::Held {
            held.push((rate, report, latency));
        }
    }
    let found = search.found();
    // Of the tries at that rate the one in the middle: neither luck nor the neighbour's worst second stands for it.
    held.retain(|(rate, ..)| found.holds.is_some_and(|holds| holds.rate.total_cmp(rate).is_eq()));
    held.sort_by_key(|(_, report, _)| report.latency_us.p99);
    let middle = held.len() / 2;
    let (mut report, latency) = held.into_iter().nth(middle).map_or_else(
        || (peak.clone(), peak_latency),
        |(_, report, latency)| (report, latency),
    );
    report.ratio_to_ceiling = peak
        .ceiling
        .as_ref()
        .filter(|c| c.sign_per_s > 0.0)
        .map(|c| report.achieved_per_s / c.sign_per_s);
    report.slo = Some(say::slo(criteria, concurrency, &found, &peak, tried));
    report.ceiling = peak.ceiling;
    Ok((report, latency))
}

/// What a run says of the objective, and why.
fn verdict(criteria: &Criteria, report: &Report) -> (Outcome, Vec<String>) {
    let harness = judge::of_the_harness(report);
    if !harness.is_empty() {
        return (Outcome::Untold, harness);
    }
    let mut why = criteria.broken(report);
    if report.achieved_per_s < report.offered_per_s * KEPT_UP {
        why.push(format!(
            "only {:.0} of {:.0}/s were sealed in time",
            report.achieved_per_s, report.offered_per_s
        ));
    }
    why.extend(report.problems.iter().cloned());
    let outcome = if why.is_empty() { Outcome::Held } else { Outcome::Failed };
    (outcome, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn a_run_that_is_not_valid_by_its_harness_neither_holds_nor_fails() {
        let criteria: Criteria = "p99<20ms".parse().unwrap();
        let judged = |change: fn(&mut Report)| {
            let mut report = testing::report();
            report.latency_us.p99 = 5_000;
            report.achieved_per_s = report.offered_per_s;
            change(&mut report);
            judge::judge(&mut report);
            let (outcome, why) = verdict(&criteria, &report);
            (outcome, why.join("; "))
        };
        assert_eq!(judged(|_| {}), (Outcome::Held, String::new()));
        let (outcome, why) = judged(|report| report.latency_us.p99 = 31_000);
        assert!(outcome == Outcome::Failed && why == "p99<20ms: it is 31.00 ms", "{why}");
        let (outcome, why) = judged(|report| report.achieved_per_s *= 0.9);
        assert!(
            outcome == Outcome::Failed && why.contains("were sealed in time"),
            "{why}"
        );
        let (outcome, why) = judged(|report| report.verify_failures = 1);
        assert!(outcome == Outcome::Failed && why.contains("are wrong"), "{why}");
        let (outcome, why) = judged(|report| {
            report.latency_us.p99 = 31_000;
            report.generator.waited = 0.57;
        });
        assert!(outcome == Outcome::Untold && why.contains("waited 57.0 %"), "{why}");
    }
}
