//! Answers in memory, the oldest forgotten first.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
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
    records: HashMap<Key, (Instant, Record)>,
    /// Oldest first; each key of `records` once.
    order: VecDeque<(Instant, Key)>,
    bytes: u64,
    /// When an answer last had to make room before its window was over, and how old it had become.
    pushed_out: Option<(Instant, Duration)>,
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

    /// What is remembered, and for how much longer, as far as that can be told.
    fn look(&self, key: &Key, now: Instant) -> Option<(Record, Duration)> {
        let mut state = self.lock();
        state.forget_before(now, self.window);
        let (since, record) = state.records.get(key)?;
        let left = state.stay(now, self.window).saturating_sub(now - *since);
        Some((record.clone(), left))
    }

    fn remember(&self, key: Key, record: Record, now: Instant) -> Option<Duration> {
        let size = size(&key, &record);
        let mut state = self.lock();
        state.forget_before(now, self.window);
        if size > self.bytes.as_u64() || self.entries == 0 {
            return None;
        }
        while state.records.len() >= self.entries || state.bytes + size > self.bytes.as_u64() {
            let Some(since) = state.forget_oldest() else { break };
            state.pushed_out = Some((now, now.saturating_duration_since(since)));
        }
        // Whoever puts an answer has the key's claim, and found none: there is nothing to replace.
        if !state.records.contains_key(&key) {
            state.bytes += size;
            state.order.push_back((now, key.clone()));
            state.records.insert(key, (now, record));
        }
        Some(state.stay(now, self.window))
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

    /// Says since when it was remembered.
    fn forget_oldest(&mut self) -> Option<Instant> {
        let (since, key) = self.order.pop_front()?;
        if let Some((_, record)) = self.records.remove(&key) {
            self.bytes -= size(&key, &record);
        }
        Some(since)
    }

    /// How long an answer stays, by how it went within the last window.
    fn stay(&self, now: Instant, window: Duration) -> Duration {
        let lately = self
            .pushed_out
            .filter(|(at, _)| now.saturating_duration_since(*at) < window);
        lately.map_or(window, |(_, age)| age.min(window))
    }
}

fn size(key: &Key, record: &Record) -> u64 {
    (2 * key.len() + record.answer.len()) as u64 + OVERHEAD
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Option<(Record, SystemTime)>> {
        let found = self.look(key, Instant::now());
        std::future::ready(found.map(|(record, left)| (record, SystemTime::now() + left))).boxed()
    }

    fn put(&self, key: Key, record: Record) -> BoxFuture<'_, Option<SystemTime>> {
        let stays = self.remember(key, record, Instant::now());
        std::future::ready(stays.map(|stays| SystemTime::now() + stays)).boxed()
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
        assert!((0..5).all(|n| few.remember(key(n), record(10), now).is_some()));
        assert!(few.look(&key(1), now).is_none() && few.look(&key(2), now).is_some());
        let small = memory(100, 3000);
        assert!((0..5).all(|n| small.remember(key(n), record(1000), now).is_some()));
        assert!(small.look(&key(2), now).is_none() && small.look(&key(4), now).is_some());
        assert_eq!(small.remember(key(9), record(3000), now), None, "it says so");
        assert!(small.look(&key(9), now).is_none() && small.look(&key(4), now).is_some());
        assert!(small.lock().bytes <= 3000);
    }

    #[test]
    fn an_answer_is_forgotten_when_its_window_is_over() {
        let (memory, now) = (memory(10, 1 << 20), Instant::now());
        assert_eq!(memory.remember(key(1), record(10), now), Some(Duration::from_secs(60)));
        assert!(memory.look(&key(1), now + Duration::from_secs(59)).is_some());
        assert!(memory.look(&key(1), now + Duration::from_secs(60)).is_none());
        let state = memory.lock();
        assert_eq!((state.bytes, state.records.len(), state.order.len()), (0, 0, 0));
    }

    #[test]
    fn how_long_an_answer_stays_is_told_by_how_long_those_before_it_stayed() {
        let (memory, begin) = (memory(10, 1 << 20), Instant::now());
        let second = Duration::from_secs(1);
        let told: Vec<_> = (0..30)
            .map(|n: u32| memory.remember(key(n as usize), record(1), begin + second * n))
            .collect();
        assert!(
            told[..10].iter().all(|stays| *stays == Some(60 * second)),
            "nobody had to go"
        );
        assert!(told[10..].iter().all(|stays| *stays == Some(10 * second)), "{told:?}");
        let (_, left) = memory.look(&key(25), begin + 29 * second).unwrap();
        assert_eq!(left, 6 * second);
        // When the crowd is a window ago, it is forgotten too.
        let later = begin + 100 * second;
        assert_eq!(memory.remember(key(100), record(1), later), Some(60 * second));
    }
}
