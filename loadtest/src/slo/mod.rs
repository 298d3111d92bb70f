//! The highest rate that holds an objective.
//!
//! First a closed loop finds what the service does at most; then open loops close in on the rate between one that held and one that did not. Every
//! trial is a run of its own, begun when the one before was answered, so that no trial inherits another's queue. The report is that of
//! the highest rate that held.

use std::{sync::atomic::Ordering, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    criteria::Criteria,
    plan::PlanSpec,
    report::{Report, Slo, SloTrial},
    run::{self, Order, RunError},
    screen::Screen,
};

const MOST_TRIALS: usize = 12;
/// The search ends when the rate is known to this part of itself.
const CLOSE_ENOUGH: f64 = 0.03;
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
    let (mut held, mut broke) = (0.0_f64, peak.achieved_per_s * 1.1);
    let mut rate = peak.achieved_per_s * 0.7;
    let mut best = None;
    let mut tried = Vec::new();
    while tried.len() < MOST_TRIALS && rate >= 1.0 && (broke - held) / broke > CLOSE_ENOUGH {
        if order.interrupted.load(Ordering::Relaxed) {
            return Err(RunError::Drive(crate::driver::DriveError::Interrupted));
        }
        screen.stage(&format!("trying {rate:.0} requests/s"));
        // The token was measured around the first run; what it does alone does not change with the rate.
        let order = Order {
            plan: plan(&PlanSpec::Constant(rate))?,
            ceiling: None,
            ..order.clone()
        };
        let (report, latency) = run::run(&order, screen)?;
        let why = verdict(criteria, &report);
        tried.push(SloTrial {
            rate_per_s: rate,
            achieved_per_s: report.achieved_per_s,
            p99_us: report.latency_us.p99,
            errors: report.error_share(),
            held: why.is_empty(),
            why: why.join("; "),
        });
        if why.is_empty() {
            held = rate;
            best = Some((report, latency));
        } else {
            broke = rate;
        }
        rate = f64::midpoint(held, broke);
    }
    let holds_per_s = best.is_some().then_some(held);
    let (mut report, latency) = best.unwrap_or((peak.clone(), peak_latency));
    report.ratio_to_ceiling = peak
        .ceiling
        .as_ref()
        .filter(|c| c.sign_per_s > 0.0)
        .map(|c| report.achieved_per_s / c.sign_per_s);
    report.ceiling = peak.ceiling;
    report.slo = Some(Slo {
        asked: criteria.to_string(),
        holds_per_s,
        tried,
    });
    Ok((report, latency))
}

fn verdict(criteria: &Criteria, report: &Report) -> Vec<String> {
    let mut why = criteria.broken(report);
    if report.achieved_per_s < report.offered_per_s * KEPT_UP {
        why.push(format!(
            "only {:.0} of {:.0}/s were sealed in time",
            report.achieved_per_s, report.offered_per_s
        ));
    }
    why.extend(report.problems.iter().cloned());
    why
}
