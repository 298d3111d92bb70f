//! Which rate to try next, and what the tries amount to. Knows rates and outcomes, and neither a service nor a clock.
//!
//! One try is noise: a neighbour who computes for a second breaks any objective. So a rate counts as failed when the tries that failed are two more
//! than those that held. One that held is believed for the time being, since luck does not often make a service faster. When the two are close,
//! both edges are tried again, in turns, until each has a lead of three: the tries of one bad minute are not the last word. What a run says that was
//! not valid is no word at all.

/// Tries in all.
pub(super) const MOST_TRIES: usize = 30;
/// Tries of one rate that said something.
const MOST_OF_ONE: usize = 7;
/// Tries of one rate that said nothing.
const MOST_UNTOLD: usize = 3;
/// The search ends when the rate is known to this part of itself.
const CLOSE_ENOUGH: f64 = 0.03;
/// Edges that are this part apart are far from each other.
const FAR: f64 = 0.25;
/// Tries by which those that failed must lead for a rate to be left.
const LEAD: i64 = 2;
/// Tries by which one outcome must lead at either edge in the end.
const SURE: i64 = 3;
/// Of all tries so many are kept for the edges: a rate known to less than it could be, and agreed on, is worth more than a finer one that is not.
const FOR_THE_EDGES: usize = 6;
/// Nothing below this part of what a closed loop reached is tried,
const LEAST: f64 = 0.02;
/// nor a rate that gives fewer requests than this in a try: they have no percentiles.
const FEWEST_REQUESTS: f64 = 20.0;

/// What a try said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rate held the objective.
    Held,
    /// It did not.
    Failed,
    /// Nothing of the service: the run was not valid.
    Untold,
}

/// The tries of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) rate: f64,
    pub(super) held: usize,
    pub(super) failed: usize,
    pub(super) untold: usize,
}

/// What the tries of one rate amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Holds,
    /// Fails, or cannot be told from one that does.
    Over,
    /// To be tried again.
    Open,
}

impl Tally {
    fn lead(&self) -> i64 {
        self.held as i64 - self.failed as i64
    }

    pub(super) fn told(&self) -> usize {
        self.held + self.failed
    }

    fn given_up(&self) -> bool {
        self.told() >= MOST_OF_ONE || self.untold >= MOST_UNTOLD
    }

    fn standing(&self) -> Standing {
        match self.lead() {
            lead if lead <= -LEAD => Standing::Over,
            lead if lead >= 1 && self.failed == 0 || lead >= LEAD => Standing::Holds,
            // Tries that go on disagreeing are of the edge itself: it does not hold.
            _ if self.given_up() => Standing::Over,
            _ => Standing::Open,
        }
    }

    fn is_sure(&self) -> bool {
        self.lead().abs() >= SURE || self.given_up()
    }
}

/// A search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// What a closed loop reached.
    peak: f64,
    /// How long a try is, seconds.
    seconds: f64,
    /// By rate, ascending.
    tallies: Vec<Tally>,
    tries: usize,
}

impl Search {
    pub(super) fn new(peak: f64, seconds: f64) -> Self {
        Self {
            peak,
            seconds,
            tallies: Vec::new(),
            tries: 0,
        }
    }

    /// Number of the try to come.
    pub(super) fn number(&self) -> usize {
        self.tries + 1
    }

    pub(super) fn record(&mut self, rate: f64, outcome: Outcome) {
        self.tries += 1;
        let at = self.tallies.partition_point(|tally| tally.rate < rate);
        if self.tallies.get(at).is_none_or(|tally| tally.rate > rate) {
            let tally = Tally {
                rate,
                ..Tally::default()
            };
            self.tallies.insert(at, tally);
        }
        let tally = &mut self.tallies[at];
        match outcome {
            Outcome::Held => tally.held += 1,
            Outcome::Failed => tally.failed += 1,
            Outcome::Untold => tally.untold += 1,
        }
    }

    /// The lowest rate that does not hold, and the highest below it that does.
    fn edges(&self) -> (Option<&Tally>, Option<&Tally>) {
        let over = self.tallies.iter().position(|tally| tally.standing() == Standing::Over);
        let below = &self.tallies[..over.unwrap_or(self.tallies.len())];
        let holds = below.iter().rfind(|tally| tally.standing() == Standing::Holds);
        (holds, over.map(|over| &self.tallies[over]))
    }

    /// The rate to try next; None where the search is over.
    pub(super) fn next(&self) -> Option<f64> {
        if self.tries >= MOST_TRIES || self.peak <= 0.0 {
            return None;
        }
        let (holds, over) = self.edges();
        let unsure = || Self::unsure(holds, over);
        if self.tries >= MOST_TRIES - FOR_THE_EDGES
            && let Some(rate) = unsure()
        {
            return Some(rate);
        }
        if let Some(open) = self.tallies.iter().find(|tally| tally.standing() == Standing::Open) {
            return Some(open.rate);
        }
        match (holds, over) {
            (None, None) => Some(self.peak * 0.7),
            // A closed loop of so many callers need not have found the most.
            (Some(holds), None) => Some((holds.rate * 1.3).min(self.peak).max(holds.rate * 1.15)),
            (None, Some(over)) => {
                let rate = over.rate / 2.0;
                (rate >= self.least()).then_some(rate).or_else(unsure)
            }
            (Some(holds), Some(over)) => {
                let gap = over.rate - holds.rate;
                if gap > over.rate * FAR && !over.is_sure() {
                    // What failed there may have been a bad minute, which is over: a look at it now saves the way back.
                    Some(over.rate)
                } else if gap > over.rate * CLOSE_ENOUGH {
                    Some(f64::midpoint(holds.rate, over.rate))
                } else {
                    unsure()
                }
            }
        }
    }

    fn least(&self) -> f64 {
        (self.peak * LEAST).max(FEWEST_REQUESTS / self.seconds)
    }

    /// The rate is known as well as it should be, and the tries agree on it.
    fn is_finished(&self) -> bool {
        match self.edges() {
            (Some(holds), Some(over)) => {
                over.rate - holds.rate <= over.rate * CLOSE_ENOUGH && holds.is_sure() && over.is_sure()
            }
            (None, Some(over)) => over.is_sure() && over.rate / 2.0 < self.least(),
            (_, None) => false,
        }
    }

    /// The edge to try again, the one with fewer tries first.
    fn unsure(holds: Option<&Tally>, over: Option<&Tally>) -> Option<f64> {
        let edges = holds.into_iter().chain(over).filter(|tally| !tally.is_sure());
        edges.min_by_key(|tally| tally.told()).map(|tally| tally.rate)
    }

    /// What was found so far.
    pub(super) fn found(&self) -> Found {
        let (mut holds, over) = self.edges();
        if self.tries >= MOST_TRIES && holds.is_none() {
            // No time was left to agree: more tries that held than failed are the best there is, and it is said how many.
            let below = |tally: &&Tally| over.is_none_or(|over| tally.rate < over.rate);
            holds = self.tallies.iter().filter(below).rfind(|tally| tally.lead() > 0);
        }
        let first_failed = self.tallies.iter().position(|tally| tally.failed > 0);
        let last_held = self.tallies.iter().rposition(|tally| tally.held > 0);
        let all_held = &self.tallies[..first_failed.unwrap_or(self.tallies.len())];
        let all_failed = &self.tallies[last_held.map_or(0, |last| last + 1)..];
        Found {
            holds: holds.copied(),
            over: over.copied(),
            from: all_held.iter().rfind(|tally| tally.held > 0).map(|tally| tally.rate),
            to: all_failed.iter().find(|tally| tally.failed > 0).map(|tally| tally.rate),
            finished: self.is_finished(),
            tries: self.tries,
            tallies: self.tallies.clone(),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The highest rate that holds.
    pub(super) holds: Option<Tally>,
    /// The next that was tried and does not, or could not be told.
    pub(super) over: Option<Tally>,
    /// Up to here no try failed.
    pub(super) from: Option<f64>,
    /// From here on no try held.
    pub(super) to: Option<f64>,
    /// The tries were enough.
    pub(super) finished: bool,
    /// How many they were.
    pub(super) tries: usize,
    /// All rates, ascending.
    pub(super) tallies: Vec<Tally>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a service by what it answers to the n-th try at a rate.
    fn search(peak: f64, mut service: impl FnMut(usize, f64) -> Outcome) -> (Found, usize) {
        let mut search = Search::new(peak, 15.0);
        while let Some(rate) = search.next() {
            let outcome = service(search.tries, rate);
            search.record(rate, outcome);
        }
        (search.found(), search.tries)
    }

    fn holds_below(most: f64) -> impl Fn(f64) -> Outcome {
        move |rate| if rate <= most { Outcome::Held } else { Outcome::Failed }
    }

    #[test]
    fn a_service_without_noise_is_known_to_three_percent_and_both_edges_are_tried_three_times() {
        for most in [30.0, 120.0, 251.0, 300.0, 359.0] {
            let (found, tries) = search(359.0, |_, rate| holds_below(most)(rate));
            let (holds, over) = (found.holds.unwrap(), found.over.unwrap());
            assert!(holds.rate <= most && most < over.rate, "{most}: {found:?}");
            assert!(over.rate - holds.rate <= over.rate * CLOSE_ENOUGH, "{most}: {found:?}");
            assert!(
                holds.held >= 3 && over.failed >= 3 && found.finished,
                "{most}: {found:?}"
            );
            assert_eq!((found.from, found.to), (Some(holds.rate), Some(over.rate)));
            assert!(tries <= 22, "{most}: {tries}");
        }
    }

    #[test]
    fn single_tries_that_fail_for_nothing_do_not_lower_the_answer() {
        // Every third try fails whatever the rate; two in a row do not.
        let (found, _) = search(359.0, |n, rate| {
            if n % 3 == 0 {
                Outcome::Failed
            } else {
                holds_below(300.0)(rate)
            }
        });
        let holds = found.holds.unwrap();
        assert!((285.0..=300.0).contains(&holds.rate), "{found:?}");
        // The interval says that tries disagreed.
        assert!(
            found.from.is_none_or(|from| from < holds.rate) && found.to.unwrap() > 300.0,
            "{found:?}"
        );
    }

    #[test]
    fn a_bad_minute_is_not_the_last_word() {
        // The first four tries fall into it: 251 and 126 are given up at first.
        let (found, _) = search(359.0, |n, rate| {
            if n < 4 {
                Outcome::Failed
            } else {
                holds_below(300.0)(rate)
            }
        });
        assert!((285.0..=300.0).contains(&found.holds.unwrap().rate), "{found:?}");
    }

    #[test]
    fn a_rate_that_held_by_luck_is_found_out_at_the_edge() {
        let mut lucky = true;
        let (found, _) = search(359.0, |_, rate| {
            if rate > 300.0 && std::mem::take(&mut lucky) {
                Outcome::Held
            } else {
                holds_below(300.0)(rate)
            }
        });
        assert!((285.0..=300.0).contains(&found.holds.unwrap().rate), "{found:?}");
        assert!(found.to.unwrap() > 320.0, "a try held up there: {found:?}");
    }

    #[test]
    fn an_edge_where_the_tries_disagree_for_good_does_not_hold() {
        let (found, _) = search(359.0, |n, rate| {
            if rate > 250.0 && n % 2 == 0 {
                Outcome::Failed
            } else {
                holds_below(340.0)(rate)
            }
        });
        let holds = found.holds.unwrap();
        assert!(holds.rate <= 260.0 || holds.held >= holds.failed + 2, "{found:?}");
        assert!(found.from.unwrap() <= 252.0, "{found:?}");
    }

    #[test]
    fn what_holds_nowhere_and_what_tells_nothing_ends() {
        let (found, tries) = search(359.0, |_, _| Outcome::Failed);
        assert!(
            found.holds.is_none() && found.from.is_none() && found.finished,
            "{found:?}"
        );
        assert!(found.to.unwrap() < 15.0 && tries <= 20, "{tries}: {found:?}");
        // A short try of a low rate has too few requests to tell anything.
        let mut short = Search::new(359.0, 0.5);
        while let Some(rate) = short.next() {
            assert!(rate * 0.5 >= 20.0, "{rate}");
            short.record(rate, Outcome::Failed);
        }
        let (found, tries) = search(359.0, |_, _| Outcome::Untold);
        assert!(
            found.holds.is_none() && found.to.is_none() && tries <= MOST_TRIES,
            "{tries}: {found:?}"
        );
        assert!(found.tallies.iter().all(|tally| tally.told() == 0));
        assert!(search(0.0, |_, _| Outcome::Held).0.holds.is_none());
    }

    #[test]
    fn a_service_that_never_fails_is_tried_until_the_tries_are_used_up() {
        let (found, tries) = search(100.0, |_, _| Outcome::Held);
        assert!(
            tries == MOST_TRIES && !found.finished && found.over.is_none(),
            "{found:?}"
        );
        assert!(found.holds.unwrap().rate > 1000.0, "{found:?}");
    }

    #[test]
    fn the_last_tries_are_kept_for_the_edges() {
        // Six bad tries in a row send the search far down; on the way back it runs out of tries.
        let (found, tries) = search(359.0, |n, rate| match n {
            0..6 | 10..14 => Outcome::Failed,
            _ => holds_below(300.0)(rate),
        });
        assert!(tries == MOST_TRIES || found.finished, "{found:?}");
        assert!(found.holds.unwrap().told() >= 2, "{found:?}");
    }

    #[test]
    fn where_no_time_is_left_to_agree_most_tries_decide() {
        let mut search = Search::new(359.0, 15.0);
        for outcome in [Outcome::Held, Outcome::Failed, Outcome::Held] {
            search.record(120.0, outcome);
        }
        while search.tries < MOST_TRIES {
            search.record(240.0, Outcome::Failed);
        }
        let found = search.found();
        assert_eq!(found.holds.map(|tally| tally.rate), Some(120.0));
        assert!(
            !found.finished && found.from.is_none() && search.next().is_none(),
            "{found:?}"
        );
    }

    #[test]
    fn a_search_whose_tries_never_agree_ends_and_does_not_say_that_it_is_done() {
        // Between 200 and 340 the tries disagree as long as anybody looks.
        let (found, tries) = search(359.0, |n, rate| match rate {
            rate if rate <= 200.0 => Outcome::Held,
            rate if rate > 340.0 => Outcome::Failed,
            _ => [Outcome::Held, Outcome::Failed, Outcome::Untold][n % 3],
        });
        assert!(tries == MOST_TRIES && !found.finished, "{found:?}");
        assert!(
            found.holds.unwrap().lead() > 0 && found.to.is_none_or(|to| to > 300.0),
            "{found:?}"
        );
    }

    #[test]
    fn tries_of_runs_that_were_not_valid_are_made_again() {
        let (found, _) = search(359.0, |n, rate| {
            if n % 2 == 0 {
                Outcome::Untold
            } else {
                holds_below(300.0)(rate)
            }
        });
        assert!(
            found.holds.unwrap().rate <= 300.0 && found.tallies.iter().any(|tally| tally.untold > 0),
            "{found:?}"
        );
        assert!(found.holds.unwrap().rate > 250.0, "{found:?}");
    }
}
