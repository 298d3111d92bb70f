//! What happened, counted.
//!
//! What comes in: one [`Outcome`] per request, from the one thread that owns the recorder. What goes out: histograms (HDR, three
//! digits), counts by error, and a time series, all of which add up across threads and machines. Nothing here judges.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Slices of the time series that a report can draw; longer runs get wider slices.
const MAX_SLICES: u128 = 300;
/// Steps per doubling of latency in a slice.
const STEPS_PER_OCTAVE: usize = 8;
/// From 1 µs to 2^27 µs (134 s).
pub(crate) const LATENCY_STEPS: usize = 27 * STEPS_PER_OCTAVE;

/// A request that came to its end.
#[derive(Debug)]
pub(crate) struct Outcome<'a> {
    pub(crate) segment: usize,
    pub(crate) branch: usize,
    /// When the plan wanted it sent.
    pub(crate) intended: Instant,
    /// When it was handed to the connection.
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) request_bytes: usize,
    pub(crate) result: Result<usize, Failure<'a>>,
}

/// Why a request did not end in a seal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure<'a> {
    /// gRPC code in capitals, or a word of this harness for what never got one.
    pub(crate) code: &'a str,
    /// `ErrorInfo.reason`, or empty.
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Failures of one code and reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FailureCount {
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) count: u64,
    /// The message of the first of them.
    pub(crate) example: String,
}

/// Histograms in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From the intended send time to the answer, seals only.
    #[serde(with = "counts")]
    pub(crate) latency: Histogram<u64>,
    /// From the actual send time to the answer, seals only.
    #[serde(with = "counts")]
    pub(crate) service: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        Self {
            latency: histogram(),
            service: histogram(),
        }
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
    }
}

/// A histogram that grows as it must, three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three significant digits are within HDR's limits")
}

/// Adds `other` to `sum`.
pub(crate) fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other).expect("a histogram that resizes takes any other");
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2)
}

/// One segment of the plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) times: Times,
    /// How late the generator itself was, open loop only.
    #[serde(with = "counts")]
    pub(crate) lag: Histogram<u64>,
    /// Requests that the plan asked for.
    pub(crate) offered: u64,
    pub(crate) sealed: u64,
    /// Seals that came before the segment ended.
    pub(crate) sealed_in_time: u64,
    pub(crate) failed: u64,
    /// Requests that could not be sent: as many as may be were in flight.
    pub(crate) missed: u64,
    pub(crate) request_bytes: u64,
    pub(crate) answer_bytes: u64,
    /// CPU time of the generator's threads.
    pub(crate) generator_cpu: Duration,
    /// Time that the generator's threads were ready to run and did not get a CPU.
    pub(crate) generator_waited: Duration,
    /// CPU time of the thread that had the most to do: what would be the bottleneck.
    pub(crate) busiest_cpu: Duration,
    /// Instants mean nothing on another machine: the conductor sets them again.
    #[serde(skip)]
    pub(crate) started: Option<Instant>,
    #[serde(skip)]
    pub(crate) ended: Option<Instant>,
}

impl SegmentRecord {
    fn new() -> Self {
        Self {
            times: Times::new(),
            lag: histogram(),
            offered: 0,
            sealed: 0,
            sealed_in_time: 0,
            failed: 0,
            missed: 0,
            request_bytes: 0,
            answer_bytes: 0,
            generator_cpu: Duration::ZERO,
            generator_waited: Duration::ZERO,
            busiest_cpu: Duration::ZERO,
            started: None,
            ended: None,
        }
    }
}

/// One branch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BranchRecord {
    pub(crate) times: Times,
    pub(crate) offered: u64,
    pub(crate) sealed: u64,
    pub(crate) failed: u64,
    pub(crate) missed: u64,
}

/// A moment of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// By intended send time.
    pub(crate) offered: u32,
    pub(crate) missed: u32,
    /// By time of the answer.
    pub(crate) sealed: u32,
    pub(crate) failed: u32,
    /// Seals by latency, by intended send time; see [`latency_step`].
    pub(crate) latency: Vec<u32>,
}

impl Slice {
    fn new() -> Self {
        Self {
            offered: 0,
            missed: 0,
            sealed: 0,
            failed: 0,
            latency: vec![0; LATENCY_STEPS],
        }
    }

    /// About the latency below which a share `q` of this slice's seals lie, in microseconds; within one step, 9 %.
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.latency.iter().map(|count| u64::from(*count)).sum();
        let rank = (total as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.latency.iter().enumerate().find_map(|(step, count)| {
            seen += u64::from(*count);
            (seen >= rank && total > 0).then(|| step_micros(step + 1))
        })
    }
}

/// Which step of a slice a latency falls into.
pub(crate) fn latency_step(micros: u64) -> usize {
    let exact = (micros.max(1) as f64).log2() * STEPS_PER_OCTAVE as f64;
    (exact as usize).min(LATENCY_STEPS - 1)
}

/// The lower end of a step, in microseconds.
pub(crate) fn step_micros(step: usize) -> f64 {
    (step as f64 / STEPS_PER_OCTAVE as f64).exp2()
}

/// All that one thread saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recorder {
    #[serde(skip, default = "Instant::now")]
    pub(crate) origin: Instant,
    pub(crate) slice: Duration,
    pub(crate) slices: Vec<Slice>,
    pub(crate) segments: Vec<SegmentRecord>,
    pub(crate) branches: Vec<BranchRecord>,
    pub(crate) failures: Vec<FailureCount>,
    /// Which segments count.
    measured: Vec<bool>,
    /// Answers to nothing that was asked.
    pub(crate) strays: u64,
}

impl Recorder {
    /// A recorder for a run of about `length` from `origin` on; `measured` says which segments count.
    pub(crate) fn new(origin: Instant, length: Duration, measured: Vec<bool>, branches: usize) -> Self {
        let wide = u64::try_from((length.as_millis() / MAX_SLICES).max(1)).unwrap_or(u64::MAX);
        // 100 ms, or a multiple of it that keeps the series short.
        let slice = Duration::from_millis(wide.div_ceil(100) * 100);
        let branch = BranchRecord {
            times: Times::new(),
            offered: 0,
            sealed: 0,
            failed: 0,
            missed: 0,
        };
        Self {
            origin,
            slice,
            slices: Vec::new(),
            segments: measured.iter().map(|_| SegmentRecord::new()).collect(),
            branches: vec![branch; branches],
            failures: Vec::new(),
            measured,
            strays: 0,
        }
    }

    fn slice_at(&mut self, at: Instant) -> &mut Slice {
        let since = at.saturating_duration_since(self.origin);
        let index = usize::try_from(since.as_nanos() / self.slice.as_nanos())
            .unwrap_or(usize::MAX)
            .min(100_000);
        if index >= self.slices.len() {
            self.slices.resize_with(index + 1, Slice::new);
        }
        &mut self.slices[index]
    }

    /// The plan wanted a request at `intended`; it was taken up at `now`.
    pub(crate) fn offered(&mut self, segment: usize, branch: usize, intended: Instant, now: Instant, open: bool) {
        self.slice_at(intended).offered += 1;
        let record = &mut self.segments[segment];
        record.offered += 1;
        if open {
            let _ = record
                .lag
                .record(micros(now.saturating_duration_since(intended)).max(1));
        }
        if self.measured[segment] {
            self.branches[branch].offered += 1;
        }
    }

    /// It could not be sent.
    pub(crate) fn missed(&mut self, segment: usize, branch: usize, intended: Instant) {
        self.slice_at(intended).missed += 1;
        self.segments[segment].missed += 1;
        if self.measured[segment] {
            self.branches[branch].missed += 1;
        }
    }

    /// It came to its end.
    pub(crate) fn record(&mut self, outcome: &Outcome<'_>) {
        let measured = self.measured[outcome.segment];
        let latency = micros(outcome.answered.saturating_duration_since(outcome.intended)).max(1);
        let service = micros(outcome.answered.saturating_duration_since(outcome.sent)).max(1);
        let record = &mut self.segments[outcome.segment];
        record.request_bytes += outcome.request_bytes as u64;
        match outcome.result {
            Ok(bytes) => {
                record.sealed += 1;
                record.answer_bytes += bytes as u64;
                record.sealed_in_time += u64::from(record.ended.is_none_or(|end| outcome.answered <= end));
                let _ = record.times.latency.record(latency);
                let _ = record.times.service.record(service);
                if measured {
                    let branch = &mut self.branches[outcome.branch];
                    branch.sealed += 1;
                    let _ = branch.times.latency.record(latency);
                    let _ = branch.times.service.record(service);
                }
                self.slice_at(outcome.intended).latency[latency_step(latency)] += 1;
                self.slice_at(outcome.answered).sealed += 1;
            }
            Err(failure) => {
                record.failed += 1;
                if measured {
                    self.branches[outcome.branch].failed += 1;
                    self.count_failure(failure, 1);
                }
                self.slice_at(outcome.answered).failed += 1;
            }
        }
    }

    fn count_failure(&mut self, failure: Failure<'_>, count: u64) {
        let known = self
            .failures
            .iter()
            .position(|known| known.code == failure.code && known.reason == failure.reason);
        match known {
            Some(known) => self.failures[known].count += count,
            // A service that answers a new reason each time must not fill the memory.
            None if self.failures.len() < 200 => self.failures.push(FailureCount {
                code: failure.code.to_owned(),
                reason: failure.reason.to_owned(),
                count,
                example: failure.message.chars().take(300).collect(),
            }),
            None => self.failures[199].count += count,
        }
    }

    /// Adds what another thread saw of the same plan.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (index, slice) in other.slices.iter().enumerate() {
            if index >= self.slices.len() {
                self.slices.push(Slice::new());
            }
            let sum = &mut self.slices[index];
            sum.offered += slice.offered;
            sum.missed += slice.missed;
            sum.sealed += slice.sealed;
            sum.failed += slice.failed;
            for (into, from) in sum.latency.iter_mut().zip(slice.latency.iter()) {
                *into += from;
            }
        }
        for (sum, segment) in self.segments.iter_mut().zip(&other.segments) {
            sum.times.add(&segment.times);
            add(&mut sum.lag, &segment.lag);
            sum.offered += segment.offered;
            sum.sealed += segment.sealed;
            sum.sealed_in_time += segment.sealed_in_time;
            sum.failed += segment.failed;
            sum.missed += segment.missed;
            sum.request_bytes += segment.request_bytes;
            sum.answer_bytes += segment.answer_bytes;
            sum.generator_cpu += segment.generator_cpu;
            sum.generator_waited += segment.generator_waited;
            sum.busiest_cpu = sum.busiest_cpu.max(segment.busiest_cpu);
        }
        for (sum, branch) in self.branches.iter_mut().zip(&other.branches) {
            sum.times.add(&branch.times);
            sum.offered += branch.offered;
            sum.sealed += branch.sealed;
            sum.failed += branch.failed;
            sum.missed += branch.missed;
        }
        for failure in &other.failures {
            let count = failure.count;
            self.count_failure(
                Failure {
                    code: &failure.code,
                    reason: &failure.reason,
                    message: &failure.example,
                },
                count,
            );
        }
        self.strays += other.strays;
    }
}

/// A histogram as `[[value, count], …]`: exact, since every histogram here has the same precision.
mod counts {
    use hdrhistogram::Histogram;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
        let recorded = histogram.iter_recorded();
        to.collect_seq(recorded.map(|value| (value.value_iterated_to(), value.count_at_value())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
        let mut histogram = super::histogram();
        for (value, count) in Vec::<(u64, u64)>::deserialize(from)? {
            histogram.record_n(value, count).map_err(D::Error::custom)?;
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(origin: Instant, intended_ms: u64, answered_ms: u64) -> Outcome<'static> {
        Outcome {
            segment: 0,
            branch: 0,
            intended: origin + Duration::from_millis(intended_ms),
            sent: origin + Duration::from_millis(intended_ms + 1),
            answered: origin + Duration::from_millis(answered_ms),
            request_bytes: 10,
            result: Ok(20),
        }
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_service_from_the_sending() {
        let origin = Instant::now();
        let mut recorder = Recorder::new(origin, Duration::from_secs(1), vec![true], 1);
        recorder.record(&seal(origin, 100, 111));
        let times = &recorder.segments[0].times;
        assert!(times.latency.max().abs_diff(11_000) < 20);
        assert!(times.service.max().abs_diff(10_000) < 20);
        assert_eq!(recorder.slices[1].sealed, 1);
    }

    #[test]
    fn merging_two_threads_is_as_if_one_had_seen_all() {
        let origin = Instant::now();
        let new = || Recorder::new(origin, Duration::from_secs(1), vec![true], 1);
        let (mut one, mut a, mut b) = (new(), new(), new());
        for n in 0..1000 {
            let outcome = seal(origin, n, n + n % 37 + 2);
            one.record(&outcome);
            if n % 2 == 0 { &mut a } else { &mut b }.record(&outcome);
        }
        a.merge(&b);
        assert_eq!(a.segments[0].times.latency, one.segments[0].times.latency);
        assert_eq!(a.slices.len(), one.slices.len());
        assert!(
            a.slices
                .iter()
                .zip(&one.slices)
                .all(|(a, b)| a.sealed == b.sealed && a.latency == b.latency)
        );
    }

    #[test]
    fn a_record_that_has_travelled_is_the_same_to_the_last_count() {
        let origin = Instant::now();
        let mut recorder = Recorder::new(origin, Duration::from_secs(1), vec![true], 1);
        for n in 0..5000 {
            recorder.offered(0, 0, origin, origin + Duration::from_micros(n), true);
            recorder.record(&seal(origin, n % 900, n % 900 + n % 37 * 11 + 2));
        }
        let text = serde_json::to_string(&recorder).unwrap();
        let travelled: Recorder = serde_json::from_str(&text).unwrap();
        let (a, b) = (&recorder.segments[0], &travelled.segments[0]);
        assert_eq!(
            (&a.times.latency, &a.times.service, &a.lag),
            (&b.times.latency, &b.times.service, &b.lag)
        );
        assert_eq!(recorder.branches[0].times.latency, travelled.branches[0].times.latency);
        assert_eq!(serde_json::to_string(&travelled).unwrap(), text);
    }

    #[test]
    fn a_warm_up_counts_in_no_branch_and_no_error() {
        let origin = Instant::now();
        let mut recorder = Recorder::new(origin, Duration::from_secs(1), vec![false], 1);
        recorder.record(&seal(origin, 1, 2));
        let failure = Failure {
            code: "INTERNAL",
            reason: "",
            message: "",
        };
        recorder.record(&Outcome {
            result: Err(failure),
            ..seal(origin, 1, 2)
        });
        assert_eq!(recorder.branches[0].sealed, 0);
        assert!(recorder.failures.is_empty());
    }

    #[test]
    fn a_slice_tells_its_quantiles_within_a_step() {
        let origin = Instant::now();
        let mut recorder = Recorder::new(origin, Duration::from_secs(1), vec![true], 1);
        for n in 0..100 {
            recorder.record(&seal(origin, 0, n + 1));
        }
        let p50 = recorder.slices[0].quantile(0.5).unwrap();
        assert!((50_000.0..55_000.0 * 1.09).contains(&p50), "{p50}");
    }
}
