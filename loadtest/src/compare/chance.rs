//! What chance does to figures: how far means may be apart, and how many failures more may be none.

/// Two-sided quantiles of Student's distribution at 1 % by degrees of freedom: about one false alarm in a hundred comparisons. Tables of any book.
const STUDENT: [(f64, f64); 10] = [
    (1.0, 63.66),
    (2.0, 9.93),
    (3.0, 5.84),
    (4.0, 4.60),
    (5.0, 4.03),
    (6.0, 3.71),
    (8.0, 3.36),
    (10.0, 3.17),
    (15.0, 2.95),
    (30.0, 2.75),
];

/// A mean and how sure it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    pub(super) mean: f64,
    /// Its standard error; infinite where there are too few values.
    error: f64,
    values: f64,
}

impl Mean {
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        if values.len() < super::FEWEST {
            return Self {
                mean,
                error: f64::INFINITY,
                values: n,
            };
        }
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Self {
            mean,
            error: (variance / n).sqrt(),
            values: n,
        }
    }
}

/// What two means may be apart by chance.
pub(super) fn spread(a: Mean, b: Mean) -> f64 {
    let error = a.error.hypot(b.error);
    if error.is_infinite() || error <= 0.0 {
        return error;
    }
    // Welch and Satterthwaite: the side that spreads more decides how many values there are in effect.
    let part = |side: Mean| side.error.powi(4) / (side.values - 1.0);
    error * student((a.error.powi(2) + b.error.powi(2)).powi(2) / (part(a) + part(b)))
}

/// For fewer degrees of freedom than a row has, the row before it: rather too much noise than too little.
fn student(freedom: f64) -> f64 {
    let row = STUDENT.iter().rfind(|(degrees, _)| *degrees <= freedom + 1e-9);
    row.unwrap_or(&STUDENT[0]).1
}

/// The chance that of `bad.0 + bad.1` failures among all requests of two sides so many or more fall on the second, if both sides fail alike: Fisher's
/// exact test, one-sided.
pub(super) fn as_many_on_the_second(bad: (u64, u64), all: (u64, u64)) -> f64 {
    let (failures, total) = (bad.0 + bad.1, all.0 + all.1);
    let ways = ln_choose(total, failures);
    let mut sum = 0.0;
    for second in bad.1..=failures.min(all.1) {
        let first = failures - second;
        if first > all.0 {
            continue;
        }
        let term = (ln_choose(all.0, first) + ln_choose(all.1, second) - ways).exp();
        sum += term;
        // The terms fall from here on, and those that are left add nothing.
        if sum > 0.0 && term < sum * 1e-12 {
            break;
        }
    }
    sum.min(1.0)
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Stirling's series; exact sums below it, where the series is not yet good.
fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fishers_exact_test_gives_what_the_tables_give() {
        // The lady tasting tea: 3 of 4 right, 0.2429; 4 of 4, 1 in 70.
        assert!((as_many_on_the_second((1, 3), (4, 4)) - 17.0 / 70.0).abs() < 1e-9);
        assert!((as_many_on_the_second((0, 4), (4, 4)) - 1.0 / 70.0).abs() < 1e-9);
        // One failure falls on either side.
        assert!((as_many_on_the_second((0, 1), (800, 800)) - 0.5).abs() < 1e-9);
        assert!(as_many_on_the_second((0, 20), (800, 800)) < 1e-5);
        // Many requests are no trouble.
        let chance = as_many_on_the_second((20_000, 20_100), (2_000_000, 2_000_000));
        assert!((0.25..0.40).contains(&chance), "{chance}");
        assert!((as_many_on_the_second((0, 0), (800, 800)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn fewer_values_need_a_larger_difference() {
        assert!((student(4.0) - 4.60).abs() < 1e-9 && (student(3.9) - 5.84).abs() < 1e-9);
        assert!((student(1000.0) - 2.75).abs() < 1e-9);
        let spread = |n: i32| {
            let values: Vec<f64> = (0..n).map(|i| f64::from(i % 3)).collect();
            spread(Mean::of(&values), Mean::of(&values))
        };
        assert!(spread(2).is_infinite() && spread(3) > spread(6) * 1.5 && spread(6) > spread(30));
    }
}
