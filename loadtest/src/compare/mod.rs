//! Is B better than A, or is it noise?
//!
//! Two runs never give the same figure. Where a side has one run, that run is cut into blocks of about a second, and the spread between them says how
//! far its mean can be trusted at the least (Welch's comparison of two means). It does not say how far a second run would have been from the first:
//! a difference beyond the noise of a run is told, but "the same" is a word for sides of several runs, whose means are compared instead. A difference
//! counts only where it is larger than chance allows *and* larger than the part that is worth talking of. Latencies are compared by their logarithms,
//! since their noise is in proportion. Failures are counted, not averaged. What is not alike is not compared ([`unlike`]).

mod chance;
mod failures;
mod unlike;

pub use self::{
    failures::{Failures, failures},
    unlike::{Difference, What, notes, unlike},
};
use crate::report::{Report, SegmentReport};

/// Fewer blocks, or fewer runs, than this say nothing about spread.
pub const FEWEST: usize = 3;
const BLOCK_S: f64 = 1.0;

/// One figure of two sides.
#[derive(Clone, Debug)]
pub struct Line {
    /// What.
    pub name: &'static str,
    /// In A.
    pub a: f64,
    /// In B.
    pub b: f64,
    /// (B - A) / A.
    pub change: f64,
    /// How far `change` can be off by chance; infinite where there is too little to tell.
    pub noise: f64,
    /// What to make of it.
    pub verdict: Verdict,
}

/// What to make of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// B is better.
    Better,
    /// B is worse.
    Worse,
    /// The difference is within the noise, which is known, or too small to matter.
    Same,
    /// No difference shows, and how large one the noise would hide is not known.
    NotKnown,
}

/// Where the noise of a figure was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// The pieces of a run: what a run differs from the next by is not in it.
    WithinRuns,
    /// The means of several runs.
    BetweenRuns,
}

impl Noise {
    /// Of these sides.
    pub fn of(a: &[Report], b: &[Report]) -> Self {
        if a.len() >= FEWEST && b.len() >= FEWEST {
            Self::BetweenRuns
        } else {
            Self::WithinRuns
        }
    }
}

/// Compares; `matters` is the part below which a difference is none, such as 0.02.
pub fn compare(a: &[Report], b: &[Report], matters: f64) -> Vec<Line> {
    let noise = Noise::of(a, b);
    let mut lines = Vec::new();
    let mut line = |name, more_is_better, logarithmic, pieces: &dyn Fn(&Report) -> Vec<f64>| {
        let (a, b) = (
            samples(a, noise, logarithmic, pieces),
            samples(b, noise, logarithmic, pieces),
        );
        if !a.is_empty() && !b.is_empty() {
            lines.push(judge(name, more_is_better, (&a, &b), logarithmic, matters, noise));
        }
    };
    line("seals/s", true, false, &rates);
    line("p50, ms", false, true, &|report| latencies(report, false));
    line("p99, ms", false, true, &|report| latencies(report, true));
    line("CPU/seal outside token, µs", false, false, &cpu);
    lines
}

/// What is compared of a side: the pieces of its runs, or a mean for each run; logarithms of them where `logarithmic`.
fn samples(side: &[Report], noise: Noise, logarithmic: bool, pieces: &dyn Fn(&Report) -> Vec<f64>) -> Vec<f64> {
    let scaled = |report: &Report| -> Vec<f64> {
        let pieces = pieces(report).into_iter();
        pieces.map(|v| if logarithmic { v.max(1e-6).ln() } else { v }).collect()
    };
    match noise {
        Noise::WithinRuns => side.iter().flat_map(scaled).collect(),
        Noise::BetweenRuns => side
            .iter()
            .map(scaled)
            .filter(|pieces| !pieces.is_empty())
            .map(|pieces| pieces.iter().sum::<f64>() / pieces.len() as f64)
            .collect(),
    }
}

/// The slices of a segment that lie in it wholly.
fn slices(report: &Report, name: &str) -> std::ops::Range<usize> {
    let Some(segment) = report.segments.iter().rfind(|segment| segment.name == name) else {
        return 0..0;
    };
    let slice = report.series.slice_s;
    let first = (segment.start_s / slice).ceil() as usize;
    let last = ((segment.start_s + segment.duration_s) / slice + 1e-6).floor() as usize;
    first..last.min(report.series.sealed.len())
}

fn block(report: &Report) -> usize {
    ((BLOCK_S / report.series.slice_s).round() as usize).max(1)
}

fn rates(report: &Report) -> Vec<f64> {
    let seconds = report.series.slice_s * block(report) as f64;
    report.series.sealed[slices(report, &report.rate_segment)]
        .chunks_exact(block(report))
        .map(|slices| slices.iter().map(|count| f64::from(*count)).sum::<f64>() / seconds)
        .collect()
}

fn latencies(report: &Report, p99: bool) -> Vec<f64> {
    let series = if p99 {
        &report.series.p99_us
    } else {
        &report.series.p50_us
    };
    series[slices(report, &report.latency_segment)]
        .chunks_exact(block(report))
        .filter_map(|slices| {
            let known: Vec<f64> = slices.iter().flatten().map(|us| *us as f64 / 1000.0).collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        })
        .collect()
}

/// Per segment: the server's counters are too coarse for blocks of a second.
fn cpu(report: &Report) -> Vec<f64> {
    let outside = |segment: &SegmentReport| {
        Some((segment.server_cpu_us_per_seal? - segment.token_cpu_us_per_seal.unwrap_or_default()).max(0.0))
    };
    report
        .segments
        .iter()
        .filter(|segment| segment.measured)
        .filter_map(outside)
        .collect()
}

fn judge(
    name: &'static str,
    more_is_better: bool,
    (a, b): (&[f64], &[f64]),
    logarithmic: bool,
    matters: f64,
    noise_of: Noise,
) -> Line {
    let (side_a, side_b) = (chance::Mean::of(a), chance::Mean::of(b));
    let spread = chance::spread(side_a, side_b);
    let (a, b, noise) = if logarithmic {
        (side_a.mean.exp(), side_b.mean.exp(), spread.exp() - 1.0)
    } else {
        (side_a.mean, side_b.mean, spread / side_a.mean.abs().max(1e-9))
    };
    let change = (b - a) / a.abs().max(1e-9);
    let verdict = if noise.is_infinite() {
        Verdict::NotKnown
    } else if change.abs() > noise.max(matters) {
        if (change > 0.0) == more_is_better {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    } else if noise_of == Noise::BetweenRuns {
        Verdict::Same
    } else {
        Verdict::NotKnown
    };
    Line {
        name,
        a,
        b,
        change,
        noise,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    /// Ten blocks around `mean`, `spread` apart, the same every time.
    fn blocks(mean: f64, spread: f64) -> Vec<f64> {
        (0..10).map(|n| mean + spread * f64::from(n % 5 - 2)).collect()
    }

    fn between(a: &[f64], b: &[f64]) -> Verdict {
        judge("x", true, (a, b), false, 0.02, Noise::BetweenRuns).verdict
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        assert_eq!(between(&blocks(1000.0, 50.0), &blocks(1040.0, 50.0)), Verdict::Same);
        assert_eq!(between(&blocks(1000.0, 5.0), &blocks(1040.0, 5.0)), Verdict::Better);
    }

    #[test]
    fn a_difference_too_small_to_matter_is_none_however_sure() {
        assert_eq!(between(&blocks(1000.0, 0.1), &blocks(990.0, 0.1)), Verdict::Same);
    }

    #[test]
    fn more_latency_is_worse_and_fewer_blocks_say_nothing() {
        let latency = |a: &[f64], b: &[f64]| {
            let log = |values: &[f64]| values.iter().map(|v| v.ln()).collect::<Vec<f64>>();
            judge("x", false, (&log(a), &log(b)), true, 0.02, Noise::WithinRuns)
        };
        let line = latency(&blocks(10.0, 0.1), &blocks(12.0, 0.1));
        assert_eq!(line.verdict, Verdict::Worse, "{line:?}");
        assert!((line.change - 0.2).abs() < 0.01, "{line:?}");
        let line = latency(&[10.0, 10.0], &[20.0, 20.0]);
        assert_eq!(line.verdict, Verdict::NotKnown, "{line:?}");
    }

    #[test]
    fn one_run_each_is_never_the_same_since_how_far_runs_differ_is_not_known() {
        let one = [testing::report()];
        let lines = compare(&one, &one, 0.02);
        assert!(lines.len() > 2);
        for line in &lines {
            assert_eq!((line.change, line.verdict), (0.0, Verdict::NotKnown), "{line:?}");
        }
        // The CPU of a run with one measured segment has no spread at all.
        let cpu = lines.iter().find(|line| line.name.starts_with("CPU")).unwrap();
        assert!(cpu.noise.is_infinite(), "{cpu:?}");

        let three = [testing::report(), testing::report(), testing::report()];
        for line in compare(&three, &three, 0.02) {
            assert_eq!(line.verdict, Verdict::Same, "{line:?}");
        }
    }

    #[test]
    fn runs_that_differ_among_themselves_hide_what_one_of_them_would_have_shown() {
        let at = |factor: f64| {
            let mut report = testing::report();
            for sealed in &mut report.series.sealed {
                *sealed = (f64::from(*sealed) * factor) as u32;
            }
            report
        };
        let verdict = |a: &[Report], b: &[Report]| compare(a, b, 0.02)[0].verdict;
        // The run has faults in it: its blocks are far apart, and only a large difference shows.
        assert_eq!(verdict(&[at(1.0)], &[at(0.4)]), Verdict::Worse);
        assert_eq!(verdict(&[at(1.0)], &[at(0.9)]), Verdict::NotKnown);
        let (a, b) = ([at(1.0), at(1.2), at(0.8)], [at(0.9), at(1.1), at(0.7)]);
        assert_eq!(verdict(&a, &b), Verdict::Same);
        let (a, b) = ([at(1.0), at(1.01), at(0.99)], [at(0.9), at(0.91), at(0.89)]);
        assert_eq!(verdict(&a, &b), Verdict::Worse);
    }
}
