//! Requests that failed or were not sent. They are counted, so that what chance does to them is known, other than of a mean.

use super::{Verdict, chance};
use crate::report::Report;

/// Failures that chance spreads so unevenly in fewer pairs of runs than this are no chance.
const CHANCE: f64 = 0.01;

/// The failures of two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failures {
    /// Failed and not sent in A, and all that was asked of it.
    pub a: (u64, u64),
    /// The same of B.
    pub b: (u64, u64),
    /// The chance of so uneven a spread where both fail alike.
    pub chance: f64,
    /// What to make of it.
    pub verdict: Verdict,
}

impl Failures {
    /// In words.
    pub fn say(&self) -> String {
        let side = |(bad, all): (u64, u64)| match bad {
            0 => format!("none of {all}"),
            bad => format!("{bad} of {all} ({:.2} %)", bad as f64 * 100.0 / (all as f64).max(1.0)),
        };
        let (a, b) = (side(self.a), side(self.b));
        match self.verdict {
            Verdict::Worse => format!("B failed in {b} requests, A in {a}: worse, beyond what chance explains"),
            Verdict::Better => format!("B failed in {b} requests, A in {a}: better, beyond what chance explains"),
            _ if self.a.0 + self.b.0 == 0 => "no request failed in either".to_owned(),
            _ => format!("B failed in {b} requests, A in {a}: chance alone may do that"),
        }
    }
}

/// Counts and compares; `matters` as for the other figures, where both sides have failures.
pub fn failures(a: &[Report], b: &[Report], matters: f64) -> Failures {
    let count = |side: &[Report]| {
        let bad = side
            .iter()
            .map(|report| report.errors.values().sum::<u64>() + report.missed_sends)
            .sum::<u64>();
        (bad, bad + side.iter().map(|report| report.sealed).sum::<u64>())
    };
    of(count(a), count(b), matters)
}

fn of(a: (u64, u64), b: (u64, u64), matters: f64) -> Failures {
    let share = |(bad, all): (u64, u64)| bad as f64 / (all as f64).max(1.0);
    let worse = share(b) > share(a);
    let chance = if worse {
        chance::as_many_on_the_second((a.0, b.0), (a.1, b.1))
    } else {
        chance::as_many_on_the_second((b.0, a.0), (b.1, a.1))
    };
    // With none on one side any change is infinite.
    let change = (share(b) - share(a)).abs() / share(a).min(share(b));
    let verdict = if chance >= CHANCE || change <= matters {
        Verdict::Same
    } else if worse {
        Verdict::Worse
    } else {
        Verdict::Better
    };
    Failures { a, b, chance, verdict }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn a_run_with_failures_is_worse_than_one_without() {
        let (good, mut bad) = (testing::report(), testing::report());
        (bad.sealed, bad.missed_sends) = (780, 5);
        bad.errors = [("UNAVAILABLE".to_owned(), 15)].into();
        let good = Report { sealed: 800, ..good };
        let found = failures(std::slice::from_ref(&good), std::slice::from_ref(&bad), 0.02);
        assert_eq!((found.a, found.b, found.verdict), ((0, 800), (20, 800), Verdict::Worse));
        assert_eq!(
            found.say(),
            "B failed in 20 of 800 (2.50 %) requests, A in none of 800: worse, beyond what chance explains"
        );
        let found = failures(std::slice::from_ref(&bad), std::slice::from_ref(&good), 0.02);
        assert!(
            found.verdict == Verdict::Better && found.say().contains("better"),
            "{found:?}"
        );
    }

    #[test]
    fn failures_that_chance_explains_are_not_held_against_a_run() {
        for (a, b) in [
            ((0, 800), (1, 800)),
            ((20, 800), (26, 800)),
            ((0, 0), (0, 0)),
            ((0, 800), (0, 800)),
        ] {
            let found = of(a, b, 0.02);
            assert_eq!(found.verdict, Verdict::Same, "{found:?}");
        }
        assert_eq!(of((0, 800), (0, 800), 0.02).say(), "no request failed in either");
        assert!(of((0, 800), (1, 800), 0.02).say().contains("chance alone"));
        // Longer, and the same shares are sure.
        assert_eq!(of((2000, 80_000), (2600, 80_000), 0.02).verdict, Verdict::Worse);
        // Sure, and too little to matter.
        assert_eq!(
            of((500_000, 50_000_000), (505_000, 50_000_000), 0.02).verdict,
            Verdict::Same
        );
    }
}
