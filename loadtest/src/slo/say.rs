//! What a search found, in words, and what speaks against it.

use super::search::{Found, Tally};
use crate::{
    criteria::Criteria,
    report::{Report, Slo, SloRate, SloTrial, grouped, time},
};

/// An answer below this part of what a closed loop reached wants an explanation.
const FAR: f64 = 0.5;

/// The closed loop before the search, as a line of the terminal.
pub(super) fn closed_loop(peak: &Report, callers: usize) -> String {
    format!(
        "a closed loop of {callers} callers: {}/s, p99 {}",
        grouped(peak.achieved_per_s),
        time(peak.latency_us.p99)
    )
}

/// A try, as a line of the terminal.
pub(super) fn trial(trial: &SloTrial) -> String {
    let outcome = match (trial.told, trial.held) {
        (false, _) => "says nothing",
        (true, true) => "held",
        (true, false) => "FAILED",
    };
    let why = if trial.why.is_empty() {
        String::new()
    } else {
        format!(": {}", trial.why)
    };
    format!(
        "{}/s {outcome}, p99 {}{why}",
        grouped(trial.rate_per_s),
        time(trial.p99_us)
    )
}

/// For the report.
pub(super) fn slo(criteria: &Criteria, callers: usize, found: &Found, peak: &Report, tried: Vec<SloTrial>) -> Slo {
    let rates = found.tallies.iter().map(|tally| SloRate {
        rate_per_s: tally.rate,
        held: tally.held,
        failed: tally.failed,
        untold: tally.untold,
    });
    Slo {
        asked: criteria.to_string(),
        holds_per_s: found.holds.map(|tally| tally.rate),
        from_per_s: found.from,
        to_per_s: found.to,
        sure: sure(found),
        doubts: doubts(callers, found, peak, &tried),
        closed_loop_per_s: Some(peak.achieved_per_s),
        rates: rates.collect(),
        tried,
    }
}

fn tries(tally: &Tally) -> String {
    let said = if tally.held >= tally.failed {
        format!("held in {} of {} tries", tally.held, tally.told())
    } else {
        format!("failed in {} of {} tries", tally.failed, tally.told())
    };
    format!("{}/s {said}", grouped(tally.rate))
}

/// The two edges, and how far the tries agree.
fn sure(found: &Found) -> String {
    let mut said: Vec<String> = found
        .holds
        .iter()
        .chain(&found.over)
        .filter(|tally| tally.told() > 0)
        .map(tries)
        .collect();
    said.push(match (found.from, found.to) {
        (Some(from), Some(to)) => format!(
            "no try failed up to {}/s, none held from {}/s on",
            grouped(from),
            grouped(to)
        ),
        (Some(from), None) => format!("no try failed up to {}/s", grouped(from)),
        (None, Some(to)) if found.holds.is_some() => {
            format!(
                "tries failed at the lowest rate as well, none held from {}/s on",
                grouped(to)
            )
        }
        (None, Some(to)) => format!("no try held from {}/s on", grouped(to)),
        (None, None) => "the tries do not agree".to_owned(),
    });
    said.join("; ")
}

fn doubts(callers: usize, found: &Found, peak: &Report, tried: &[SloTrial]) -> Vec<String> {
    let mut doubts = Vec::new();
    if !tried.is_empty() && tried.iter().all(|trial| !trial.told) {
        doubts.push(format!("no try says anything of the service: {}", tried[0].why));
        return doubts;
    }
    if !found.finished {
        doubts.push(format!(
            "the search ended after {} tries, before they agreed on a rate to 3 %",
            found.tries
        ));
    }
    let disagreed = found
        .tallies
        .iter()
        .filter(|tally| tally.held > 0 && tally.failed > 0)
        .count();
    if disagreed > 0 {
        doubts.push(format!(
            "at {disagreed} of {} rates some tries held and some failed: something besides the rate decides",
            found.tallies.len()
        ));
    }
    if let Some(over) = found.over.filter(|over| over.untold > over.told()) {
        let why = tried
            .iter()
            .find(|trial| !trial.told && trial.rate_per_s.total_cmp(&over.rate).is_eq());
        doubts.push(format!(
            "at {}/s the tries say nothing of the service, which may hold more: {}",
            grouped(over.rate),
            why.map_or("", |trial| trial.why.as_str())
        ));
    }
    if !peak.valid {
        doubts.push(format!(
            "the closed loop from which the search began is not valid: {}",
            peak.problems.join("; ")
        ));
    }
    let holds = found.holds.map_or(0.0, |tally| tally.rate);
    if holds < peak.achieved_per_s * FAR {
        doubts.push(far_below(callers, holds, peak, tried));
    }
    doubts
}

/// Why an answer may be far below what callers that wait get.
fn far_below(callers: usize, holds: f64, peak: &Report, tried: &[SloTrial]) -> String {
    let reached = format!(
        "the {}/s that a closed loop of {callers} callers reached",
        grouped(peak.achieved_per_s)
    );
    let failed: Vec<&SloTrial> = tried
        .iter()
        .filter(|trial| {
            trial.told && !trial.held && trial.rate_per_s > holds && trial.rate_per_s <= peak.achieved_per_s
        })
        .collect();
    let kept_up = |trial: &&&SloTrial| trial.achieved_per_s >= trial.rate_per_s * super::KEPT_UP;
    let slow = failed.iter().filter(kept_up).count();
    let slowest = tried
        .iter()
        .filter(|trial| trial.told)
        .min_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    let because = if slow * 2 > failed.len() {
        let alone = slowest.map_or_else(String::new, |trial| {
            format!(" (p99 {} at {}/s)", time(trial.p99_us), grouped(trial.rate_per_s))
        });
        format!(
            "in {slow} of the {} tries between that failed, all was sealed in time, and other figures broke the objective, such as {}. It may be tight for \
             what a request takes by itself{alone}",
            failed.len(),
            failed
                .iter()
                .find(|trial| kept_up(trial))
                .map_or("", |trial| trial.why.as_str())
        )
    } else {
        format!(
            "in {} of the {} tries between that failed, the service did not keep up with less than it had done for callers that wait",
            failed.len() - slow,
            failed.len()
        )
    };
    let share = if holds > 0.0 {
        format!("this is {:.0} % of {reached}", holds * 100.0 / peak.achieved_per_s)
    } else {
        format!("nothing holds beside {reached}")
    };
    format!(
        "{share}: {because}; or something else took the machine now and then: repeat it alone, with a longer --duration"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::testing,
        slo::search::{Outcome, Search},
    };

    /// A search of a service that reached 359/s in a closed loop, by what a try says.
    fn search(service: impl Fn(usize, f64) -> SloTrial) -> Slo {
        let mut peak = testing::report();
        peak.achieved_per_s = 359.0;
        let mut search = Search::new(359.0, 15.0);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            let trial = service(tried.len(), rate);
            search.record(
                rate,
                match (trial.told, trial.held) {
                    (false, _) => Outcome::Untold,
                    (true, true) => Outcome::Held,
                    (true, false) => Outcome::Failed,
                },
            );
            tried.push(trial);
        }
        slo(&"p99<20ms".parse().unwrap(), 32, &search.found(), &peak, tried)
    }

    fn a_try(rate: f64, held: bool) -> SloTrial {
        SloTrial {
            rate_per_s: rate,
            achieved_per_s: rate,
            p99_us: if held { 8_000 } else { 31_000 },
            errors: 0.0,
            held,
            told: true,
            why: if held { "" } else { "p99<20ms: it is 31.00 ms" }.into(),
        }
    }

    #[test]
    fn a_line_of_the_terminal_has_the_p99_and_whether_it_held() {
        assert_eq!(trial(&a_try(251.4, true)), "251/s held, p99 8.00 ms");
        assert_eq!(
            trial(&a_try(251.4, false)),
            "251/s FAILED, p99 31.0 ms: p99<20ms: it is 31.00 ms"
        );
        let untold = SloTrial {
            told: false,
            held: false,
            why: "the generator waited".into(),
            ..a_try(251.4, true)
        };
        assert_eq!(trial(&untold), "251/s says nothing, p99 8.00 ms: the generator waited");
    }

    #[test]
    fn an_answer_that_the_tries_agree_on_says_so_and_has_no_doubts() {
        let slo = search(|_, rate| a_try(rate, rate <= 300.0));
        assert_eq!(slo.doubts, Vec::<String>::new());
        let holds = slo.holds_per_s.unwrap();
        assert_eq!(slo.from_per_s, Some(holds));
        assert!(
            slo.sure.contains("held in 3 of 3 tries")
                && slo.sure.contains("failed in 3 of 3 tries")
                && slo.sure.contains("no try failed up to"),
            "{}",
            slo.sure
        );
        assert_eq!(
            slo.rates.iter().map(|rate| rate.held + rate.failed).sum::<usize>(),
            slo.tried.len()
        );
    }

    #[test]
    fn an_answer_far_below_the_closed_loop_is_told_as_such_and_why_it_may_be() {
        let slo = search(|_, rate| a_try(rate, rate <= 110.0));
        assert_eq!(slo.doubts.len(), 1, "{:?}", slo.doubts);
        assert!(
            slo.doubts[0].contains("% of the 359/s that a closed loop of 32 callers reached")
                && slo.doubts[0].contains("all was sealed in time")
                && slo.doubts[0].contains("p99<20ms: it is 31.00 ms")
                && slo.doubts[0].contains("p99 8.00 ms at"),
            "{:?}",
            slo.doubts
        );
        let slo = search(|_, rate| {
            let mut trial = a_try(rate, false);
            trial.achieved_per_s *= 0.5;
            trial
        });
        assert_eq!(slo.holds_per_s, None);
        assert!(
            slo.doubts[0].contains("nothing holds beside the 359/s") && slo.doubts[0].contains("did not keep up"),
            "{:?}",
            slo.doubts
        );
    }

    #[test]
    fn tries_that_disagree_are_told() {
        let slo = search(|n, rate| a_try(rate, rate <= 300.0 && n % 3 != 0));
        assert!(
            slo.doubts
                .iter()
                .any(|doubt| doubt.contains("some tries held and some failed")),
            "{:?}",
            slo.doubts
        );
        assert!(
            slo.from_per_s.is_none_or(|from| from < slo.holds_per_s.unwrap()),
            "{slo:?}"
        );
    }

    #[test]
    fn a_search_that_learned_nothing_of_the_service_says_that() {
        let slo = search(|_, rate| SloTrial {
            told: false,
            why: "the generator waited 57 % of the time".into(),
            ..a_try(rate, false)
        });
        assert_eq!(
            slo.doubts,
            ["no try says anything of the service: the generator waited 57 % of the time"]
        );
        // Above 200/s only.
        let slo = search(|_, rate| SloTrial {
            told: rate < 200.0,
            why: "the generator was late".into(),
            ..a_try(rate, rate < 200.0)
        });
        assert!(
            slo.doubts
                .iter()
                .any(|doubt| doubt.contains("which may hold more: the generator was late")),
            "{:?}",
            slo.doubts
        );
    }
}
