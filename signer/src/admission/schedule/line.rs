//! Those who wait with one priority: clients take turns by deficit round robin, and within a client the earliest deadline
//! goes first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{Ask, SIGNATURE};
use crate::config::Priority;

/// What a client of weight 1 may spend at each of its turns: a document of up to 256 KiB goes at the first.
const QUANTUM: u64 = 2 * SIGNATURE;

/// Names one that waits.
#[derive(Debug, Clone)]
pub(in crate::admission) struct Id {
    pub(super) priority: Priority,
    client: Arc<str>,
    key: Key,
}

/// Earliest deadline first, then first come.
type Key = (Instant, u64);

/// One that waits.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) deadline: Instant,
    pub(super) cost: u64,
    pub(super) bytes: u64,
    pub(super) tell: T,
}

/// All of one priority.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// A flow may be empty where its last entry went away; its turn removes it.
    flows: HashMap<Arc<str>, Flow<T>>,
    /// The clients of `flows`, each once, in the order of their turns.
    ring: VecDeque<Arc<str>>,
    len: usize,
    cost: u64,
    bytes: u64,
    /// Of the flows that are not empty.
    weight: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            flows: HashMap::new(),
            ring: VecDeque::new(),
            len: 0,
            cost: 0,
            bytes: 0,
            weight: 0,
        }
    }
}

/// A client's own.
#[derive(Debug)]
struct Flow<T> {
    weight: u64,
    /// What it may still spend.
    deficit: u64,
    /// Whether it was given its quantum for the turn that it has now.
    has_turn: bool,
    entries: BTreeMap<Key, Entry<T>>,
    cost: u64,
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What all of it costs.
    pub(super) fn cost(&self) -> u64 {
        self.cost
    }

    /// The bytes that all of it holds.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, ask: &Ask, arrival: u64, tell: T) -> Id {
        let ring = &mut self.ring;
        let flow = self.flows.entry(Arc::clone(&ask.client)).or_insert_with(|| {
            ring.push_back(Arc::clone(&ask.client));
            Flow {
                weight: 0,
                deficit: 0,
                has_turn: false,
                entries: BTreeMap::new(),
                cost: 0,
            }
        });
        if !flow.entries.is_empty() {
            self.weight -= flow.weight;
        }
        // A reload may have changed it.
        flow.weight = ask.weight.max(1);
        self.weight += flow.weight;
        let key = (ask.deadline, arrival);
        let entry = Entry {
            deadline: ask.deadline,
            cost: ask.cost,
            bytes: ask.bytes,
            tell,
        };
        self.len += 1;
        self.cost += entry.cost;
        self.bytes += entry.bytes;
        flow.cost += entry.cost;
        flow.entries.insert(key, entry);
        Id {
            priority: ask.priority,
            client: Arc::clone(&ask.client),
            key,
        }
    }

    /// Takes out one that went away; false where it is not there any more.
    pub(super) fn remove(&mut self, id: &Id) -> bool {
        self.take(&id.client, id.key).is_some()
    }

    /// The next in turn.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        let mut barren = 0;
        while self.len > 0 {
            let client = Arc::clone(self.ring.front()?);
            let flow = self.flows.get_mut(&client)?;
            let Some((key, head)) = flow.entries.first_key_value() else {
                self.flows.remove(&client);
                self.ring.pop_front();
                continue;
            };
            let (key, cost) = (*key, head.cost);
            if !flow.has_turn {
                flow.has_turn = true;
                flow.deficit = flow.deficit.saturating_add(QUANTUM.saturating_mul(flow.weight));
            }
            if flow.deficit >= cost {
                flow.deficit -= cost;
                let entry = self.take(&client, key);
                if self.flows.get(&client).is_some_and(|flow| flow.entries.is_empty()) {
                    self.flows.remove(&client);
                    self.ring.pop_front();
                }
                return entry;
            }
            flow.has_turn = false;
            self.ring.rotate_left(1);
            barren += 1;
            if barren >= self.ring.len() {
                self.skip_rounds();
                barren = 0;
            }
        }
        None
    }

    /// Where nobody can afford its document yet: gives everybody as many quanta at once as the first needs, but one.
    fn skip_rounds(&mut self) {
        let needs = |flow: &Flow<T>| {
            let (_, head) = flow.entries.first_key_value()?;
            let missing = head.cost.saturating_sub(flow.deficit);
            Some(missing.div_ceil(QUANTUM.saturating_mul(flow.weight)).saturating_sub(1))
        };
        let rounds = self.flows.values().filter_map(needs).min().unwrap_or(0);
        for flow in self.flows.values_mut().filter(|flow| !flow.entries.is_empty()) {
            let given = QUANTUM.saturating_mul(flow.weight).saturating_mul(rounds);
            flow.deficit = flow.deficit.saturating_add(given);
        }
    }

    /// Takes out the last of the longest flow, by cost and weight. With a newcomer: only where that flow is longer than its
    /// own would be with it.
    pub(super) fn push_out(&mut self, newcomer: Option<&Ask>) -> Option<Entry<T>> {
        // Compared across, since a/v < b/w where a*w < b*v.
        let across = |cost: u64, weight: u64| u128::from(cost) * u128::from(weight);
        let waiting = self.flows.iter().filter(|(_, flow)| !flow.entries.is_empty());
        let (client, flow) =
            waiting.max_by(|(_, a), (_, b)| across(a.cost, b.weight).cmp(&across(b.cost, a.weight)))?;
        if let Some(ask) = newcomer {
            let own = self.flows.get(&ask.client).map_or(0, |flow| flow.cost) + ask.cost;
            let longer = across(flow.cost, ask.weight.max(1)) > across(own, flow.weight);
            if *client == ask.client || !longer {
                return None;
            }
        }
        let key = *flow.entries.last_key_value()?.0;
        let client = Arc::clone(client);
        self.take(&client, key)
    }

    /// What is done before a newcomer has its turn, the newcomer included.
    pub(super) fn ahead_of(&self, ask: &Ask) -> u64 {
        let weight = ask.weight.max(1);
        let flow = self.flows.get(&ask.client);
        let (waits, others_weight) = match flow {
            Some(flow) if !flow.entries.is_empty() => (flow.cost, self.weight - flow.weight),
            _ => (0, self.weight),
        };
        let earlier = flow.map_or(0, |flow| match flow.entries.last_key_value() {
            // Callers of one kind give the same time, so that the newcomer is mostly the last.
            Some(((last, _), _)) if *last > ask.deadline => {
                let earlier = flow.entries.range(..=(ask.deadline, u64::MAX));
                earlier.map(|(_, entry)| entry.cost).sum()
            }
            _ => flow.cost,
        });
        let own = earlier + ask.cost;
        // While it works off its own, the others get as much by their weights, as long as they have anything.
        let others = (self.cost - waits).min(own.saturating_mul(others_weight) / weight);
        own.saturating_add(others)
    }

    /// Whether no client is remembered.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.flows.is_empty() && self.ring.is_empty() && self.cost == 0 && self.bytes == 0 && self.weight == 0
    }

    fn take(&mut self, client: &Arc<str>, key: Key) -> Option<Entry<T>> {
        let flow = self.flows.get_mut(client)?;
        let entry = flow.entries.remove(&key)?;
        flow.cost -= entry.cost;
        self.cost -= entry.cost;
        self.bytes -= entry.bytes;
        self.len -= 1;
        if flow.entries.is_empty() {
            self.weight -= flow.weight;
            flow.deficit = 0;
        }
        Some(entry)
    }
}
