//! Where documents are canonicalized, digested, checked and spliced: in place where that is quicker than a change of
//! threads, else on threads of their own, beside those that wait for the network.
//!
//! Comes in: closures, with the bytes they will read. Goes out: their results, to whoever awaits them. Large work that
//! arrives while all threads are busy is taken in batches, so that a busy service pays one wake-up for many documents; an
//! idle one takes each at once.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use prometheus::Histogram;
use tokio::sync::oneshot;

/// The most that a thread takes at a time: enough to spread the cost of a wake-up thin, few enough that a batch of large
/// documents does not wait behind one thread while another idles.
const MAX_BATCH: usize = 16;

/// Work over fewer bytes runs in place: handing it to another thread and waiting for it costs two wake-ups, which under
/// load were dearer than the canonicalization of a small invoice (docs/performance.md).
const IN_PLACE_BYTES: usize = 64 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed set of threads with one queue. The queue is bounded by what the gate admits.
#[derive(Debug)]
pub struct Compute {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

/// The work panicked; the panic is in the log.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the work panicked")]
pub struct Panicked;

impl Compute {
    /// Starts so many threads. They observe how much they take at a time in `batches`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn new(count: usize, batches: &Histogram) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let start = |n| {
            let (shared, batches) = (Arc::clone(&shared), batches.clone());
            thread::Builder::new()
                .name(format!("digest-{n}"))
                .spawn(move || shared.work(count, &batches))
        };
        let threads = (0..count).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Runs a closure that reads about so many bytes, and waits for its result.
    ///
    /// # Errors
    /// Where the closure panicked: the panic stays with this one piece of work.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        if bytes < IN_PLACE_BYTES {
            return catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.push(Box::new(move || drop(reply.send(work()))));
        answer.await.map_err(|_| Panicked)
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so that nothing can be half done under a poisoned one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut state = self.lock();
        state.queue.push_back(job);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    fn work(&self, threads: usize, batches: &Histogram) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.take(threads, &mut batch) {
            batches.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
            for job in batch.drain(..) {
                // The panic hook has written it; the awaiting side sees its reply dropped.
                drop(catch_unwind(AssertUnwindSafe(job)));
            }
        }
    }

    /// Waits for work and takes this thread's share of it; false when there will be no more.
    fn take(&self, threads: usize, batch: &mut Vec<Job>) -> bool {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.closed {
                return false;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        let share = state.queue.len().div_ceil(threads).min(MAX_BATCH);
        batch.extend(state.queue.drain(..share));
        true
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    fn batches() -> Histogram {
        Histogram::with_opts(HistogramOpts::new("batches", "of a test")).unwrap()
    }

    #[tokio::test]
    async fn everything_put_in_comes_out_once() {
        let compute = Arc::new(Compute::new(3, &batches()).unwrap());
        let mut sums = tokio::task::JoinSet::new();
        for n in 0..500_u64 {
            let compute = Arc::clone(&compute);
            sums.spawn(async move {
                compute
                    .run(if n % 2 == 0 { 0 } else { IN_PLACE_BYTES }, move || n)
                    .await
                    .unwrap()
            });
        }
        assert_eq!(sums.join_all().await.into_iter().sum::<u64>(), 499 * 500 / 2);
    }

    #[tokio::test]
    async fn a_panic_stays_with_its_own_work() {
        let compute = Compute::new(1, &batches()).unwrap();
        for bytes in [0, IN_PLACE_BYTES] {
            assert!(compute.run(bytes, || panic!("on purpose")).await.is_err());
            assert_eq!(compute.run(bytes, || 7).await.unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn a_batch_is_one_when_idle_and_follows_what_waits() {
        let taken = batches();
        let compute = Arc::new(Compute::new(1, &taken).unwrap());
        for n in 0..3 {
            compute.run(IN_PLACE_BYTES, move || n).await.unwrap();
        }
        assert_eq!(
            (taken.get_sample_count(), taken.get_sample_sum()),
            (3, 3.0),
            "alone, each at once"
        );

        let (go, gone) = std::sync::mpsc::channel::<()>();
        let mut work = tokio::task::JoinSet::new();
        let first = Arc::clone(&compute);
        work.spawn(async move { first.run(IN_PLACE_BYTES, move || gone.recv().is_ok()).await });
        while taken.get_sample_count() < 4 {
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            let compute = Arc::clone(&compute);
            work.spawn(async move { compute.run(IN_PLACE_BYTES, || true).await });
        }
        while compute.shared.lock().queue.len() < 20 {
            tokio::task::yield_now().await;
        }
        go.send(()).unwrap();
        assert!(work.join_all().await.into_iter().all(Result::unwrap));
        // One that was waited for, then sixteen at a time, and the rest.
        assert_eq!((taken.get_sample_count(), taken.get_sample_sum()), (6, 24.0));
    }
}
