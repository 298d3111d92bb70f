//! When to send.
//!
//! What comes in: what the command line asks for. What goes out: a [`Plan`], segments of time each with a kind of load, and for
//! an open segment the instants at which requests are due. Nothing here sends, waits or knows what answers: a schedule is
//! the same whatever the service does, and that is the point of an open loop.

use std::{path::Path, str::FromStr, sync::Arc, time::Duration};

use jiff::SignedDuration;

/// What to do over time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One after the other.
    pub segments: Vec<Segment>,
}

/// A stretch of time under one kind of load.
#[derive(Clone, Debug)]
pub struct Segment {
    /// As the report names it.
    pub name: String,
    /// How requests arise.
    pub load: Load,
    /// How long.
    pub duration: Duration,
    /// False for a warm-up: it is drawn, and counts nowhere.
    pub measured: bool,
    /// True to begin only when everything sent before was answered.
    pub settle: bool,
}

/// How requests arise.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Load {
    /// So many callers, each sending its next request when the last is answered. Finds a rate; its latencies are those of callers
    /// that wait, which hides every stall from the requests that would have come meanwhile.
    Closed {
        /// Callers.
        concurrency: usize,
    },
    /// Requests come when they come.
    Open(Arrivals),
    /// As constant arrivals at this share of the highest rate that an earlier segment achieved.
    ShareOfPeak(f64),
}

/// The instants of an open loop; rates in requests per second.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Arrivals {
    /// Evenly spaced.
    Constant {
        /// Rate.
        rate: f64,
    },
    /// Independent of each other, as of many callers who do not know of each other.
    Poisson {
        /// Mean rate.
        rate: f64,
    },
    /// Evenly growing or falling.
    Ramp {
        /// Rate at the beginning.
        from: f64,
        /// Rate at the end.
        to: f64,
    },
    /// As recorded.
    Trace(Arc<[Duration]>),
}

impl Arrivals {
    /// The mean rate over `duration`, requests per second.
    pub fn mean_rate(&self, duration: Duration) -> f64 {
        match self {
            Self::Constant { rate } | Self::Poisson { rate } => *rate,
            Self::Ramp { from, to } => f64::midpoint(*from, *to),
            Self::Trace(offsets) => {
                offsets.iter().filter(|offset| **offset < duration).count() as f64 / duration.as_secs_f64()
            }
        }
    }

    /// Offsets from the segment's start, ascending, all before `duration`, for worker `worker` of `workers`. Together the workers'
    /// schedules are the plan's; the same seed gives the same.
    pub fn schedule(&self, duration: Duration, worker: usize, workers: usize, seed: u64) -> Schedule {
        Schedule {
            arrivals: self.clone(),
            duration,
            next: worker as u64,
            step: workers as u64,
            at: 0.0,
            random: fastrand::Rng::with_seed(seed ^ 0x5EED ^ (worker as u64) << 32),
        }
    }
}

/// Iterates over the offsets at which one worker's requests are due.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    duration: Duration,
    /// Number of the next arrival in the whole plan.
    next: u64,
    step: u64,
    /// Seconds to the last Poisson arrival.
    at: f64,
    random: fastrand::Rng,
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let number = self.next;
        self.next += self.step;
        let offset = match &self.arrivals {
            Arrivals::Constant { rate } => Duration::try_from_secs_f64(number as f64 / rate).ok()?,
            Arrivals::Poisson { rate } => {
                // 1 - f64() is in (0, 1]: its logarithm is finite.
                self.at += -(1.0 - self.random.f64()).ln() * self.step as f64 / rate;
                Duration::try_from_secs_f64(self.at).ok()?
            }
            Arrivals::Ramp { from, to } => {
                // Arrivals until t are from·t + (to - from)·t²/2D; this is its inverse in the form that also holds for from = to.
                let growth = (to - from) / duration_seconds(self.duration);
                let n = number as f64;
                let root = (from * from + 2.0 * growth * n).max(0.0).sqrt();
                let t = if n == 0.0 { 0.0 } else { 2.0 * n / (from + root) };
                Duration::try_from_secs_f64(t).ok()?
            }
            Arrivals::Trace(offsets) => *offsets.get(usize::try_from(number).ok()?)?,
        };
        (offset < self.duration).then_some(offset)
    }
}

fn duration_seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

/// A plan as the command line spells it.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanSpec {
    /// `peak`: two thirds of the time in a closed loop to find the highest rate, one third in an open loop at 70 % of it.
    Peak,
    /// `closed:64`
    Closed(usize),
    /// `constant:1000`
    Constant(f64),
    /// `poisson:1000`
    Poisson(f64),
    /// `steps:500..3000/500`
    Steps(f64, f64, f64),
    /// `ramp:100..4000`
    Ramp(f64, f64),
    /// `spikes:500,3000/10s/1s`: base rate, rate of a spike, how often, how long.
    Spikes(f64, f64, Duration, Duration),
    /// `replay:FILE`
    Replay(String),
}

/// A plan that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not one of the forms.
    #[error(
        "'{0}' is not a plan: write peak, closed:64, constant:1000, poisson:1000, steps:500..3000/500, ramp:100..4000, \
         spikes:500,3000/10s/1s or replay:FILE"
    )]
    Spelling(String),
    /// A trace file cannot be read.
    #[error("cannot read the trace {0}: {1}")]
    Trace(String, std::io::Error),
    /// A trace file does not hold seconds.
    #[error("{0}, line {1}: a trace has one time in seconds per line, ascending from 0")]
    TraceLine(String, usize),
}

impl FromStr for PlanSpec {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        parse(text).ok_or_else(|| PlanError::Spelling(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PlanSpec> {
    let rate = |text: &str| text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 1e7);
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    Some(match name {
        "peak" if rest.is_empty() => PlanSpec::Peak,
        "closed" => PlanSpec::Closed(rest.parse().ok().filter(|n| (1..=100_000).contains(n))?),
        "constant" => PlanSpec::Constant(rate(rest)?),
        "poisson" => PlanSpec::Poisson(rate(rest)?),
        "steps" => {
            let (range, step) = rest.split_once('/')?;
            let (from, to) = range.split_once("..")?;
            let (from, to, step) = (rate(from)?, rate(to)?, rate(step)?);
            (from <= to && (to - from) / step <= 1000.0).then_some(PlanSpec::Steps(from, to, step))?
        }
        "ramp" => {
            let (from, to) = rest.split_once("..")?;
            PlanSpec::Ramp(rate(from)?, rate(to)?)
        }
        "spikes" => {
            let mut parts = rest.split('/');
            let (base, spike) = parts.next()?.split_once(',')?;
            let (every, lasting) = (duration(parts.next()?)?, duration(parts.next()?)?);
            (lasting < every && parts.next().is_none()).then_some(PlanSpec::Spikes(
                rate(base)?,
                rate(spike)?,
                every,
                lasting,
            ))?
        }
        "replay" if !rest.is_empty() => PlanSpec::Replay(rest.to_owned()),
        _ => return None,
    })
}

/// `15s`, `500ms`, `2m`, `1h 30m`, or seconds without a unit.
pub fn duration(text: &str) -> Option<Duration> {
    let told = match text.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => text.parse::<SignedDuration>().ok()?.try_into().ok()?,
    };
    (!told.is_zero() && told <= Duration::from_secs(1_000_000)).then_some(told)
}

impl PlanSpec {
    /// The segments of a run of `total`, after a warm-up. `concurrency` is for a closed segment of the `peak` plan.
    pub fn plan(&self, total: Duration, warmup: Duration, concurrency: usize) -> Result<Plan, PlanError> {
        let segment = |name: &str, load, duration, settle| Segment {
            name: name.to_owned(),
            load,
            duration,
            measured: true,
            settle,
        };
        let constant = |rate| Load::Open(Arrivals::Constant { rate });
        let measured = match self {
            Self::Peak => vec![
                segment("peak", Load::Closed { concurrency }, total.mul_f64(2.0 / 3.0), false),
                segment("steady", Load::ShareOfPeak(0.7), total.mul_f64(1.0 / 3.0), true),
            ],
            Self::Closed(concurrency) => {
                vec![segment(
                    "closed",
                    Load::Closed {
                        concurrency: *concurrency,
                    },
                    total,
                    false,
                )]
            }
            Self::Constant(rate) => vec![segment("constant", constant(*rate), total, true)],
            Self::Poisson(rate) => vec![segment(
                "poisson",
                Load::Open(Arrivals::Poisson { rate: *rate }),
                total,
                true,
            )],
            Self::Ramp(from, to) => {
                vec![segment(
                    "ramp",
                    Load::Open(Arrivals::Ramp { from: *from, to: *to }),
                    total,
                    true,
                )]
            }
            Self::Steps(from, to, step) => {
                let count = ((to - from) / step + 1e-9).floor() as u32 + 1;
                (0..count)
                    .map(|index| {
                        let rate = from + step * f64::from(index);
                        segment(&format!("{rate:.0}/s"), constant(rate), total / count, index == 0)
                    })
                    .collect()
            }
            Self::Spikes(base, spike, every, lasting) => {
                let mut segments = Vec::new();
                let mut left = total;
                while !left.is_zero() {
                    let calm = (*every - *lasting).min(left);
                    segments.push(segment("base", constant(*base), calm, segments.is_empty()));
                    left -= calm;
                    let high = (*lasting).min(left);
                    if !high.is_zero() {
                        segments.push(segment("spike", constant(*spike), high, false));
                    }
                    left -= high;
                }
                segments
            }
            Self::Replay(file) => {
                let offsets = read_trace(file)?;
                let total = offsets.last().copied().unwrap_or_default() + Duration::from_nanos(1);
                vec![segment("replay", Load::Open(Arrivals::Trace(offsets)), total, true)]
            }
        };
        let mut segments = Vec::new();
        if !warmup.is_zero() {
            let load = match &measured[0].load {
                Load::Open(arrivals) => Load::Open(Arrivals::Constant {
                    rate: arrivals.mean_rate(measured[0].duration).max(1.0),
                }),
                other => other.clone(),
            };
            segments.push(Segment {
                name: "warm-up".into(),
                load,
                duration: warmup,
                measured: false,
                settle: true,
            });
        }
        segments.extend(measured);
        Ok(Plan { segments })
    }
}

/// One time in seconds per line, ascending; `#` opens a comment.
fn read_trace(file: &str) -> Result<Arc<[Duration]>, PlanError> {
    let text = std::fs::read_to_string(Path::new(file)).map_err(|error| PlanError::Trace(file.to_owned(), error))?;
    let (mut offsets, mut last) = (Vec::new(), Duration::ZERO);
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let offset = line
            .parse::<f64>()
            .ok()
            .and_then(|s| Duration::try_from_secs_f64(s).ok());
        last = offset
            .filter(|o| *o >= last)
            .ok_or_else(|| PlanError::TraceLine(file.to_owned(), index + 1))?;
        offsets.push(last);
    }
    Ok(offsets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(arrivals: &Arrivals, seconds: f64, workers: usize) -> Vec<f64> {
        let duration = Duration::from_secs_f64(seconds);
        let mut all: Vec<f64> = (0..workers)
            .flat_map(|worker| arrivals.schedule(duration, worker, workers, 5))
            .map(|offset| offset.as_secs_f64())
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn constant_arrivals_are_even_whatever_the_number_of_workers() {
        for workers in [1, 3] {
            let offsets = offsets(&Arrivals::Constant { rate: 1000.0 }, 2.0, workers);
            assert_eq!(offsets.len(), 2000);
            assert!(offsets.windows(2).all(|pair| (pair[1] - pair[0] - 0.001).abs() < 1e-6));
        }
    }

    #[test]
    fn poisson_arrivals_have_the_mean_rate_and_vary_as_they_must() {
        let offsets = offsets(&Arrivals::Poisson { rate: 1000.0 }, 20.0, 2);
        // 20,000 expected, standard deviation 141.
        assert!(offsets.len().abs_diff(20_000) < 600, "{}", offsets.len());
        let gaps: Vec<f64> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Exponential gaps: standard deviation equals mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_ramp_sends_what_lies_under_its_line() {
        for (from, to) in [(100.0, 1100.0), (1100.0, 100.0), (600.0, 600.0)] {
            let offsets = offsets(&Arrivals::Ramp { from, to }, 10.0, 1);
            assert!(offsets.len().abs_diff(6000) <= 1, "{from}..{to}: {}", offsets.len());
            let half = offsets.iter().filter(|offset| **offset < 5.0).count();
            let expected = 5.0 * (from + f64::midpoint(from, to)) / 2.0;
            assert!(
                (half as f64 - expected).abs() <= 1.0,
                "{from}..{to}: {half} against {expected}"
            );
        }
    }

    #[test]
    fn steps_share_the_time_and_spikes_return_to_the_base() {
        let steps = "steps:500..2000/500".parse::<PlanSpec>().unwrap();
        let plan = steps.plan(Duration::from_secs(8), Duration::ZERO, 1).unwrap();
        assert_eq!(plan.segments.len(), 4);
        assert!(
            plan.segments
                .iter()
                .all(|segment| segment.duration == Duration::from_secs(2))
        );
        let spikes = "spikes:100,1000/5s/1s".parse::<PlanSpec>().unwrap();
        let plan = spikes.plan(Duration::from_secs(12), Duration::from_secs(1), 1).unwrap();
        let names: Vec<&str> = plan.segments.iter().map(|segment| segment.name.as_str()).collect();
        assert_eq!(names, ["warm-up", "base", "spike", "base", "spike", "base"]);
    }

    #[test]
    fn a_plan_that_cannot_be_read_says_how_to_write_one() {
        for text in [
            "",
            "constant",
            "constant:0",
            "constant:-1",
            "steps:5..1/1",
            "spikes:1,2/1s/2s",
            "fast",
            "replay:",
        ] {
            assert!(
                text.parse::<PlanSpec>()
                    .unwrap_err()
                    .to_string()
                    .contains("steps:500..3000/500"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_trace_out_of_order_is_refused_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# seconds\n0.5\n0.7 # later\n0.6\n").unwrap();
        let spec = PlanSpec::Replay(file.path().display().to_string());
        let error = spec.plan(Duration::from_secs(1), Duration::ZERO, 1).unwrap_err();
        assert!(error.to_string().contains("line 4"), "{error}");
    }
}
