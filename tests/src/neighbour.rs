//! Somebody who only wants to work, and would notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{Appliance, Branch, RSA, invoice};

/// A document now and then, as from a till.
const PAUSE: Duration = Duration::from_millis(5);

/// A client that has one document after another sealed over one connection, and takes no refusal.
#[derive(Debug)]
pub struct Neighbour {
    over: Arc<AtomicBool>,
    work: JoinHandle<Vec<Duration>>,
}

/// How long a neighbour's documents took.
#[derive(Debug)]
pub struct Latencies(Vec<Duration>);

impl Neighbour {
    /// The client of this name in the appliance's folder; when this returns, its first document is sealed.
    ///
    /// # Panics
    /// Where that is refused.
    pub async fn of(appliance: &Appliance, name: &str) -> Self {
        let mut client = Branch::of(appliance, name).connect().await;
        let request = Branch::request(RSA, invoice(RSA, ""));
        let since = Instant::now();
        client.seal(request.clone()).await.expect("a neighbour is served");
        let mut latencies = vec![since.elapsed()];
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let work = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let since = Instant::now();
                client.seal(request.clone()).await.expect("a neighbour is served");
                latencies.push(since.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            latencies
        });
        Self { over, work }
    }

    /// Ends its work, and tells how long its documents took.
    ///
    /// # Panics
    /// Where one of them was refused.
    pub async fn end(self) -> Latencies {
        self.over.store(true, Ordering::Relaxed);
        let mut latencies = self.work.await.expect("every document of a neighbour is sealed");
        latencies.sort_unstable();
        Latencies(latencies)
    }
}

impl Latencies {
    /// Documents that were sealed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this percentage of them took at most.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.percentile(100)
    }
}
