//! Answers in memory, the oldest forgotten first.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use futures_util::{FutureExt as _, future::BoxFuture};

use super::{Key, Record, Store};
use crate::config;

/// What an entry takes beside its texts and its answer.
const OVERHEAD: u64 = 256;

/// A bounded memory: by age, entries and bytes.
#[derive(Debug)]
pub struct Memory {
    window: Duration,
    entries: usize,
    bytes: ByteSize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Key, Record>,
    /// Oldest first; each key of `records` once.
    order: VecDeque<(Instant, Key)>,
    bytes: u64,
}

impl Memory {
    /// With the configured bounds.
    #[must_use]
    pub fn new(config: &config::Idempotency) -> Self {
        Self {
            window: config.window,
            entries: config.entries,
            bytes: config.bytes,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts and maps are changed together, without a panic between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, key: &Key, now: Instant) -> Option<Record> {
        let mut state = self.lock();
        state.forget_before(now, self.window);
        state.records.get(key).cloned()
    }

    fn remember(&self, key: Key, record: Record, now: Instant) {
        let size = size(&key, &record);
        let mut state = self.lock();
        state.forget_before(now, self.window);
        if size > self.bytes.as_u64() || self.entries == 0 {
            return;
        }
        while state.records.len() >= self.entries || state.bytes + size > self.bytes.as_u64() {
            if !state.forget_oldest() {
                break;
            }
        }
        // Whoever puts an answer has the key's claim, and found none: there is nothing to replace.
        if !state.records.contains_key(&key) {
            state.bytes += size;
            state.order.push_back((now, key.clone()));
            state.records.insert(key, record);
        }
    }
}

impl State {
    fn forget_before(&mut self, now: Instant, window: Duration) {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= window)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.order.pop_front() else {
            return false;
        };
        if let Some(record) = self.records.remove(&key) {
            self.bytes -= size(&key, &record);
        }
        true
    }
}

fn size(key: &Key, record: &Record) -> u64 {
    (2 * key.len() + record.answer.len()) as u64 + OVERHEAD
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Option<Record>> {
        std::future::ready(self.look(key, Instant::now())).boxed()
    }

    fn put(&self, key: Key, record: Record) -> BoxFuture<'_, ()> {
        self.remember(key, record, Instant::now());
        std::future::ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::idempotency::Fingerprint;

    fn memory(entries: usize, bytes: u64) -> Memory {
        Memory::new(&config::Idempotency {
            window: Duration::from_secs(60),
            entries,
            bytes: ByteSize(bytes),
        })
    }

    fn key(n: usize) -> Key {
        Key::new(&"c".into(), &n.to_string()).unwrap()
    }

    fn record(bytes: usize) -> Record {
        Record {
            fingerprint: Fingerprint::of(&[]),
            answer: Bytes::from(vec![b'x'; bytes]),
        }
    }

    #[test]
    fn the_oldest_make_room_for_the_newest_by_number_and_by_bytes() {
        let now = Instant::now();
        let few = memory(3, 1 << 20);
        (0..5).for_each(|n| few.remember(key(n), record(10), now));
        assert!(few.look(&key(1), now).is_none() && few.look(&key(2), now).is_some());
        let small = memory(100, 3000);
        (0..5).for_each(|n| small.remember(key(n), record(1000), now));
        assert!(small.look(&key(2), now).is_none() && small.look(&key(4), now).is_some());
        small.remember(key(9), record(3000), now);
        assert!(small.look(&key(9), now).is_none() && small.look(&key(4), now).is_some());
        assert!(small.lock().bytes <= 3000);
    }

    #[test]
    fn an_answer_is_forgotten_when_its_window_is_over() {
        let (memory, now) = (memory(10, 1 << 20), Instant::now());
        memory.remember(key(1), record(10), now);
        assert!(memory.look(&key(1), now + Duration::from_secs(59)).is_some());
        assert!(memory.look(&key(1), now + Duration::from_secs(60)).is_none());
        let state = memory.lock();
        assert_eq!((state.bytes, state.records.len(), state.order.len()), (0, 0, 0));
    }
}
