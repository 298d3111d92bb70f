//! What a service suffers from a peer that means no good, while somebody else is served.

use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use crate::{Appliance, Neighbour, turn};

/// The longest that a neighbour may have to wait, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(5);

/// Counts from when it is made.
#[derive(Debug)]
pub struct Suffered {
    appliance: &'static Appliance,
    neighbour: Neighbour,
    since: Instant,
    cpu: f64,
    memory: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Suffered {
    /// One at a time in a process: a second one waits until the first is done.
    pub async fn from_here(appliance: &'static Appliance) -> Self {
        let turn = turn().await;
        let neighbour = Neighbour::of(appliance, "branch-1").await;
        appliance.forget_peak();
        Self {
            appliance,
            neighbour,
            since: Instant::now(),
            cpu: appliance.metric("muhurdar_cpu_seconds_total"),
            memory: appliance.memory().resident,
            _turn: turn,
        }
    }

    /// Prints what it was.
    ///
    /// # Panics
    /// Where it was too much: resident memory at the most in MiB, the time of a neighbour, or one of its documents refused.
    pub async fn no_more_than(self, mib: u64, by: &str) {
        let cpu = self.appliance.metric("muhurdar_cpu_seconds_total") - self.cpu;
        let took = self.since.elapsed();
        let latencies = self.neighbour.end().await;
        let grown = self.appliance.memory().peak.saturating_sub(self.memory) >> 10;
        println!(
            "{by}; {took:.1?}, {cpu:.2} s of CPU with a neighbour's {} seals (p99 {:.1?}, longest {:.1?}), RSS +{grown} KiB at the most",
            latencies.count(),
            latencies.percentile(99),
            latencies.longest(),
        );
        assert!(grown < mib << 10, "{by}: {grown} KiB");
        assert!(latencies.longest() < LONGEST, "{by}: a neighbour had to wait");
    }
}
