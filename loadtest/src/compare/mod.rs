//! Is B better than A, or is it noise?
//!
//! Two runs never give the same figure. Each run is cut into blocks of about a second; the spread between the blocks of one run says how far its mean
//! can be trusted (Welch's comparison of two means). A difference counts only where it is larger than that spread allows *and* larger than the part
//! that is worth talking of. Latencies are compared by their logarithms, since their noise is in proportion.

use crate::report::{Report, SegmentReport};

/// Standard errors that a difference must exceed: about one false alarm in a hundred comparisons with ten blocks a side.
const SIGMAS: f64 = 3.0;
/// Fewer blocks than this say nothing about spread.
const FEWEST: usize = 3;
const BLOCK_S: f64 = 1.0;

/// One figure of two runs.
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
    /// How far `change` can be off by chance; infinite where there are too few blocks.
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
    /// The difference is within the noise, or too small to matter.
    Same,
}

/// Compares; `matters` is the part below which a difference is none, such as 0.02.
pub fn compare(a: &Report, b: &Report, matters: f64) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |name, more_is_better, a: &[f64], b: &[f64], logarithmic| {
        if !a.is_empty() && !b.is_empty() {
            lines.push(judge(name, more_is_better, a, b, logarithmic, matters));
        }
    };
    line("seals/s", true, &rates(a), &rates(b), false);
    for (name, of) in [("p50, ms", false), ("p99, ms", true)] {
        let blocks = |report: &Report| latencies(report, of);
        line(name, false, &blocks(a), &blocks(b), true);
    }
    line("CPU/seal outside token, µs", false, &cpu(a), &cpu(b), false);
    lines
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

fn judge(name: &'static str, more_is_better: bool, a: &[f64], b: &[f64], logarithmic: bool, matters: f64) -> Line {
    let scale = |values: &[f64]| -> Vec<f64> {
        if logarithmic {
            values.iter().map(|v| v.max(1e-6).ln()).collect()
        } else {
            values.to_vec()
        }
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (mean_and_error(&scale(a)), mean_and_error(&scale(b)));
    let spread = SIGMAS * error_a.hypot(error_b);
    let (a, b, noise) = if logarithmic {
        (mean_a.exp(), mean_b.exp(), spread.exp() - 1.0)
    } else {
        (mean_a, mean_b, spread / mean_a.abs().max(1e-9))
    };
    let change = (b - a) / a.abs().max(1e-9);
    let verdict = if change.abs() <= noise.max(matters) {
        Verdict::Same
    } else if (change > 0.0) == more_is_better {
        Verdict::Better
    } else {
        Verdict::Worse
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

/// Mean and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < FEWEST {
        return (mean, f64::INFINITY);
    }
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten blocks around `mean`, `spread` apart, the same every time.
    fn blocks(mean: f64, spread: f64) -> Vec<f64> {
        (0..10).map(|n| mean + spread * f64::from(n % 5 - 2)).collect()
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        let line = judge("x", true, &blocks(1000.0, 50.0), &blocks(1040.0, 50.0), false, 0.02);
        assert_eq!(line.verdict, Verdict::Same, "{line:?}");
        let line = judge("x", true, &blocks(1000.0, 5.0), &blocks(1040.0, 5.0), false, 0.02);
        assert_eq!(line.verdict, Verdict::Better, "{line:?}");
    }

    #[test]
    fn a_difference_too_small_to_matter_is_none_however_sure() {
        let line = judge("x", true, &blocks(1000.0, 0.1), &blocks(990.0, 0.1), false, 0.02);
        assert_eq!(line.verdict, Verdict::Same, "{line:?}");
    }

    #[test]
    fn more_latency_is_worse_and_fewer_blocks_say_nothing() {
        let line = judge("x", false, &blocks(10.0, 0.1), &blocks(12.0, 0.1), true, 0.02);
        assert_eq!(line.verdict, Verdict::Worse, "{line:?}");
        let line = judge("x", false, &[10.0, 10.0], &[20.0, 20.0], true, 0.02);
        assert_eq!(line.verdict, Verdict::Same, "{line:?}");
    }
}
