//! What a run must hold: `p99<20ms,errors<0.1%,rate>1000`.

use std::{fmt, str::FromStr};

use crate::{
    plan,
    report::{Quantiles, Report},
};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Latency from the intended send time, microseconds.
    P50,
    P90,
    P99,
    P999,
    Max,
    /// Share of requests that failed or were not sent.
    Errors,
    /// Seals per second.
    Rate,
    /// Seals per second, as a share of the token's own rate.
    Ratio,
    /// CPU of the service per seal outside the token, microseconds.
    Cpu,
}

const FIGURES: [(&str, Figure); 9] = [
    ("p50", Figure::P50),
    ("p90", Figure::P90),
    ("p99.9", Figure::P999),
    ("p99", Figure::P99),
    ("max", Figure::Max),
    ("errors", Figure::Errors),
    ("rate", Figure::Rate),
    ("ratio", Figure::Ratio),
    ("cpu", Figure::Cpu),
];

#[derive(Clone, Debug, PartialEq)]
struct Criterion {
    figure: Figure,
    /// The figure must be below the bound, not above it.
    below: bool,
    bound: f64,
    text: String,
}

/// Criteria that must hold all together.
#[derive(Clone, Debug, PartialEq)]
pub struct Criteria {
    criteria: Vec<Criterion>,
    text: String,
}

/// Criteria that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is not a criterion: write such as p99<20ms, p99.9<1s, max<2s, errors<0.1%, rate>1000, ratio>60%, cpu<75us"
)]
pub struct CriteriaError(String);

impl FromStr for Criteria {
    type Err = CriteriaError;

    fn from_str(text: &str) -> Result<Self, CriteriaError> {
        let criteria = text
            .split(',')
            .map(|part| criterion(part.trim()).ok_or_else(|| CriteriaError(part.trim().to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            criteria,
            text: text.to_owned(),
        })
    }
}

fn criterion(text: &str) -> Option<Criterion> {
    let at = text.find(['<', '>'])?;
    let (name, bound) = (text[..at].trim(), text[at + 1..].trim().trim_start_matches('='));
    let (_, figure) = FIGURES.into_iter().find(|(known, _)| *known == name)?;
    let bound = match figure {
        Figure::P50 | Figure::P90 | Figure::P99 | Figure::P999 | Figure::Max | Figure::Cpu => micros(bound)?,
        Figure::Errors | Figure::Ratio => match bound.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
            None => bound.parse().ok()?,
        },
        Figure::Rate => bound.trim_end_matches("/s").parse().ok()?,
    };
    (bound.is_finite() && bound >= 0.0).then(|| Criterion {
        figure,
        below: text.as_bytes()[at] == b'<',
        bound,
        text: text.to_owned(),
    })
}

fn micros(text: &str) -> Option<f64> {
    match text.strip_suffix("us").or_else(|| text.strip_suffix("µs")) {
        Some(micros) => micros.trim().parse().ok(),
        None => plan::duration(text).map(|time| time.as_secs_f64() * 1e6),
    }
}

impl fmt::Display for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Criteria {
    /// What of a report does not hold, in words; empty where all does. A figure that the run does not have does not hold.
    pub fn broken(&self, report: &Report) -> Vec<String> {
        self.criteria
            .iter()
            .filter_map(|criterion| criterion.broken(report))
            .collect()
    }
}

impl Criterion {
    fn broken(&self, report: &Report) -> Option<String> {
        let Some(value) = self.value(report) else {
            return Some(format!("{}: not measured", self.text));
        };
        let holds = if self.below {
            value < self.bound
        } else {
            value > self.bound
        };
        (!holds).then(|| format!("{}: it is {}", self.text, self.spelled(value)))
    }

    fn value(&self, report: &Report) -> Option<f64> {
        let latency = |of: fn(&Quantiles) -> u64| (report.sealed > 0).then(|| of(&report.latency_us) as f64);
        match self.figure {
            Figure::P50 => latency(|q| q.p50),
            Figure::P90 => latency(|q| q.p90),
            Figure::P99 => latency(|q| q.p99),
            Figure::P999 => latency(|q| q.p999),
            Figure::Max => latency(|q| q.max),
            Figure::Errors => Some(report.error_share()),
            Figure::Rate => Some(report.achieved_per_s),
            Figure::Ratio => report.ratio_to_ceiling,
            Figure::Cpu => report.server.as_ref().and_then(|server| {
                Some((server.cpu_us_per_seal? - server.token_cpu_us_per_seal.unwrap_or_default()).max(0.0))
            }),
        }
    }

    fn spelled(&self, value: f64) -> String {
        match self.figure {
            Figure::Errors | Figure::Ratio => format!("{:.2} %", value * 100.0),
            Figure::Rate => format!("{value:.0}/s"),
            _ if value >= 1000.0 => format!("{:.2} ms", value / 1000.0),
            _ => format!("{value:.0} µs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criteria_are_read_in_the_units_that_people_write() {
        let criteria: Criteria = "p99<20ms, errors<0.1%,rate>1000/s,ratio>=60%,cpu<75us,p99.9<1s"
            .parse()
            .unwrap();
        let bounds: Vec<(Figure, bool, f64)> = criteria
            .criteria
            .iter()
            .map(|c| (c.figure, c.below, (c.bound * 1e6).round() / 1e6))
            .collect();
        assert_eq!(
            bounds,
            [
                (Figure::P99, true, 20_000.0),
                (Figure::Errors, true, 0.001),
                (Figure::Rate, false, 1000.0),
                (Figure::Ratio, false, 0.6),
                (Figure::Cpu, true, 75.0),
                (Figure::P999, true, 1e6),
            ]
        );
    }

    #[test]
    fn what_is_no_criterion_says_how_to_write_one() {
        for text in ["", "p99", "p98<1ms", "p99<fast", "errors<x%", "rate>", "p99<20ms,,"] {
            assert!(
                text.parse::<Criteria>().unwrap_err().to_string().contains("p99<20ms"),
                "{text}"
            );
        }
    }
}
