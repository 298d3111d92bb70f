//! Where a growing load stopped being kept up with.

use super::{Knee, SegmentReport, Series};
use crate::plan::{Arrivals, Load, Segment};

/// Of what was asked, this part must be sealed in time for a rate to count as kept up with.
const KEPT_UP: f64 = 0.98;
/// In a ramp: no more may be waiting than is asked within this time. A service in order has a few milliseconds' worth.
const BACKLOG_S: f64 = 0.1;

/// Of a ramp or of steps; None for another plan, and where the load was kept up with to its end.
pub(crate) fn find(plan: &[Segment], segments: &[SegmentReport], series: &Series) -> Option<Knee> {
    let measured: Vec<usize> = (0..plan.len()).filter(|index| plan[*index].measured).collect();
    match (&plan[*measured.first()?].load, measured.as_slice()) {
        (Load::Open(Arrivals::Ramp { from, to }), [index]) if to > from => {
            let segment = &segments[*index];
            ramp(*from, *to, segment.start_s, segment.duration_s, series)
        }
        (Load::Open(Arrivals::Constant { .. }), steps) if steps.len() > 1 => {
            let rising = steps
                .windows(2)
                .all(|pair| segments[pair[0]].offered_per_s < segments[pair[1]].offered_per_s);
            let lost = steps.iter().position(|index| !kept_up(&segments[*index]))?;
            rising.then(|| Knee {
                held_per_s: lost.checked_sub(1).map(|held| segments[steps[held]].offered_per_s),
                lost_per_s: segments[steps[lost]].offered_per_s,
            })
        }
        _ => None,
    }
}

fn kept_up(segment: &SegmentReport) -> bool {
    segment.achieved_per_s >= segment.offered_per_s * KEPT_UP
}

/// The load was kept up with until the last slice after which hardly anything waited and in which hardly anything failed.
fn ramp(from: f64, to: f64, start: f64, duration: f64, series: &Series) -> Option<Knee> {
    let slices =
        (start / series.slice_s).ceil() as usize..((start + duration) / series.slice_s + 1e-6).floor() as usize;
    let rate = |slice: usize| {
        let into = (slice as f64 + 1.0) * series.slice_s - start;
        from + (to - from) * (into / duration).clamp(0.0, 1.0)
    };
    let at = |list: &[u32], slice: usize| f64::from(list.get(slice).copied().unwrap_or_default());
    // Whatever waited when the ramp began is none of its own.
    let mut waiting = 0.0_f64;
    let mut held = None;
    for slice in slices.clone() {
        let (offered, failed) = (at(&series.offered, slice), at(&series.failed, slice));
        waiting = (waiting + offered - at(&series.sealed, slice) - failed).max(0.0);
        if waiting <= rate(slice) * BACKLOG_S && failed <= offered * (1.0 - KEPT_UP) {
            held = Some(slice);
        }
    }
    let next = held.map_or(slices.start, |slice| slice + 1);
    (next < slices.end).then(|| Knee {
        held_per_s: held.map(rate),
        lost_per_s: rate(next),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A ramp from 0 to 2,000/s in 20 s, against a service that does at most `most` a second and refuses or keeps what is beyond.
    fn run(most: f64, refuses: bool) -> Option<Knee> {
        let (mut series, mut waiting) = (Series::default(), 0.0);
        series.slice_s = 0.1;
        for slice in 0..200 {
            let offered = f64::from(slice) + 0.5;
            waiting += offered;
            let sealed = f64::min(waiting, most * 0.1);
            waiting -= sealed;
            series.offered.push(offered as u32);
            series.sealed.push(sealed as u32);
            series.failed.push(if refuses {
                std::mem::take(&mut waiting) as u32
            } else {
                0
            });
        }
        ramp(0.0, 2000.0, 0.0, 20.0, &series)
    }

    #[test]
    fn a_ramp_finds_the_rate_of_the_service_whether_it_refuses_or_lets_wait() {
        for refuses in [true, false] {
            let knee = run(1200.0, refuses).unwrap();
            let held = knee.held_per_s.unwrap();
            assert!((1150.0..1450.0).contains(&held), "{refuses}: {knee:?}");
            assert!((9.0..11.0).contains(&(knee.lost_per_s - held)), "{knee:?}");
        }
        assert!(run(5000.0, false).is_none(), "it never lost");
    }

    #[test]
    fn steps_find_the_last_that_was_kept_up_with() {
        let plan = |rates: &[f64]| -> Vec<Segment> {
            let segment = |rate: &f64| Segment {
                name: String::new(),
                load: Load::Open(Arrivals::Constant { rate: *rate }),
                duration: Duration::from_secs(1),
                measured: true,
                settle: false,
            };
            rates.iter().map(segment).collect()
        };
        let report = |asked: &[f64], most: f64| -> Vec<SegmentReport> {
            let one = |rate: &f64| SegmentReport {
                offered_per_s: *rate,
                achieved_per_s: rate.min(most),
                ..SegmentReport::default()
            };
            asked.iter().map(one).collect()
        };
        let rates = [500.0, 1000.0, 1500.0];
        let found = |most| find(&plan(&rates), &report(&rates, most), &Series::default());
        assert_eq!(
            found(1100.0).map(|knee| (knee.held_per_s, knee.lost_per_s)),
            Some((Some(1000.0), 1500.0))
        );
        assert_eq!(
            found(100.0).map(|knee| (knee.held_per_s, knee.lost_per_s)),
            Some((None, 500.0))
        );
        assert!(found(2000.0).is_none());
        // Spikes go up and down: they have no knee.
        let spikes = [500.0, 1500.0, 500.0];
        assert!(find(&plan(&spikes), &report(&spikes, 600.0), &Series::default()).is_none());
    }
}
