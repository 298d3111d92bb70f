//! When who was refused is to come back. Told the time of the next free place, all who were refused would come for it at the same
//! time, and all but one in vain; so each is told of a place of its own, in a line behind those who were refused before it and
//! are not due yet. The line is one of numbers: nobody is kept for, and whoever comes finds what is free.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    NotUntil, RateLimiter,
    clock::{Clock, DefaultClock, Reference as _},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// The longest that anybody is told to wait. Longer lines are not kept: those in it may have gone, or not do as they are told.
const LONGEST: Duration = Duration::from_secs(10);

/// Who was refused and is not due yet: when the last of them is.
#[derive(Debug, Default)]
pub(super) struct Comeback(Mutex<Option<Instant>>);

impl Comeback {
    /// How long one who is refused now is to wait, where a place is free after `first`, and then one more every `each`.
    pub(super) fn next(&self, now: Instant, first: Duration, each: Duration) -> Duration {
        let soonest = now + first;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.map_or(soonest, |last| soonest.max(last + each));
        let wait = due.saturating_duration_since(now);
        if wait <= LONGEST {
            *last = Some(due);
            // A little later, so that nobody comes before its place is free, nor those of many lines at the same time.
            return wait + some(each);
        }
        // Beyond the line: spread over the time in which it gets shorter, and taking no place in it.
        first.max(LONGEST / 2) + some(LONGEST / 2)
    }
}

/// Some part of a time.
fn some(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

/// A limiter of a rate, with the line of those whom it refused.
#[derive(Debug)]
pub(super) struct Rate<C: Clock = DefaultClock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    /// Between two that may come in the long run.
    each: Duration,
    /// When it began, by its clock and by ours.
    begun: (C::Instant, Instant),
    comeback: Comeback,
}

impl<C: Clock> Rate<C> {
    pub(super) fn new(quota: governor::Quota, clock: C) -> Self {
        Self {
            each: quota.replenish_interval(),
            begun: (clock.now(), Instant::now()),
            limiter: RateLimiter::direct_with_clock(quota, clock),
            comeback: Comeback::default(),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// With the time after which to come back, where there is none.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| self.wait(&until))
    }

    fn wait(&self, until: &NotUntil<C::Instant>) -> Duration {
        let now = self.limiter.clock().now();
        let (theirs, ours) = self.begun;
        let passed: Duration = now.duration_since(theirs).into();
        self.comeback.next(ours + passed, until.wait_time_from(now), self.each)
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroU32};

    use governor::clock::FakeRelativeClock;

    use super::*;

    /// What became of a crowd: how often each has asked until it was served, and when that was.
    #[derive(Debug)]
    struct Crowd {
        calls: usize,
        served: Vec<Duration>,
    }

    /// Callers who come at once, ask for one document each, and do as they are told.
    fn crowd(callers: usize, per_second: u32, burst: u32, told: impl Fn(Duration) -> Duration) -> Crowd {
        let some = |n| NonZeroU32::new(n).unwrap();
        let clock = FakeRelativeClock::default();
        let quota = governor::Quota::per_second(some(per_second)).allow_burst(some(burst));
        let rate = Rate::new(quota, clock.clone());
        let mut asking: BinaryHeap<_> = (0..callers).map(|caller| Reverse((Duration::ZERO, caller))).collect();
        let (mut calls, mut served) = (0, Vec::new());
        while let Some(Reverse((now, caller))) = asking.pop() {
            clock.advance(now - Duration::from(clock.now()));
            calls += 1;
            assert!(calls < 10_000 * callers, "nobody is served any more");
            match rate.take() {
                Ok(()) => served.push(now),
                Err(wait) => asking.push(Reverse((now + told(wait), caller))),
            }
        }
        Crowd { calls, served }
    }

    fn last(crowd: &Crowd) -> Duration {
        crowd.served.iter().copied().max().unwrap()
    }

    /// As libraries read it from the trailer.
    fn milliseconds(wait: Duration) -> Duration {
        Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap())
    }

    #[test]
    fn sixty_callers_at_twenty_a_second_come_twice_each_and_are_served_when_their_turn_is() {
        for seed in 0..50 {
            fastrand::seed(seed);
            for burst in [20, 5, 1] {
                let crowd = crowd(60, 20, burst, milliseconds);
                // Half of them find their place taken by one who was late, where there is no burst that makes up for it.
                assert!(crowd.calls <= 60 * 4, "{} calls with a burst of {burst}", crowd.calls);
                let needed = Duration::from_secs(u64::from(60 - burst)) / 20;
                let took = last(&crowd);
                assert!(
                    took >= needed && took <= needed * 2,
                    "{took:?} of {needed:?} with a burst of {burst}"
                );
            }
            let usual = crowd(60, 20, 20, milliseconds);
            assert!(usual.calls <= 60 * 2, "{} calls", usual.calls);
        }
    }

    #[test]
    fn a_crowd_that_is_longer_than_the_line_is_spread_over_it() {
        for seed in 0..20 {
            fastrand::seed(seed);
            let crowd = crowd(600, 20, 20, milliseconds);
            assert!(crowd.calls < 600 * 6, "{} calls", crowd.calls);
            assert!(last(&crowd) < Duration::from_secs(29 * 2), "{:?}", last(&crowd));
        }
    }

    #[test]
    fn one_who_is_refused_alone_is_told_the_next_place_and_a_line_goes_with_time() {
        let (comeback, begin) = (Comeback::default(), Instant::now());
        let each = Duration::from_millis(50);
        let told = |now: Instant| {
            let wait = comeback.next(now, each, each);
            // Without what chance adds.
            (wait.as_millis() / each.as_millis()) * each.as_millis()
        };
        let first: Vec<_> = (0..4).map(|_| told(begin)).collect();
        assert_eq!(first, [50, 100, 150, 200]);
        assert_eq!(told(begin + 3 * each), 100, "behind the one that is not due");
        assert_eq!(told(begin + 20 * each), 50, "nobody is left in it");
        for _ in 0..1000 {
            let wait = comeback.next(begin + 20 * each, each, each);
            assert!(wait <= LONGEST + each, "{wait:?}");
        }
        let after = begin + 20 * each + LONGEST;
        assert_eq!(told(after + each), 50, "who was told to come later took no place");
    }

    /// A place that is free again after each document, rather than by the clock.
    #[test]
    fn a_crowd_before_one_place_comes_a_few_times_each() {
        const CALLERS: usize = 60;
        let (takes, begin) = (Duration::from_millis(50), Instant::now());
        for seed in 0..50 {
            fastrand::seed(seed);
            let comeback = Comeback::default();
            let mut asking: BinaryHeap<_> = (0..CALLERS).map(|caller| Reverse((begin, caller))).collect();
            let (mut calls, mut free) = (0, begin);
            while let Some(Reverse((now, caller))) = asking.pop() {
                calls += 1;
                if now >= free {
                    free = now + takes;
                } else {
                    asking.push(Reverse((now + comeback.next(now, takes, takes), caller)));
                }
            }
            assert!(calls < CALLERS * 6, "{calls} calls");
            let needed = takes * u32::try_from(CALLERS).unwrap();
            assert!(free - begin < needed * 2, "{:?} of {needed:?}", free - begin);
        }
    }
}
