//! Whose turn it is: a state machine without clock, threads or I/O.
//!
//! Comes in: who wants a ticket, and when; that a ticket came back; that somebody went away. Goes out: who may go on, who
//! has waited too long, who is pushed out. So many tickets are out at a time as keep the tokens busy (the *window*), so
//! that nothing queues behind this queue and order is decided here and nowhere else:
//!
//! - priorities are strict, but for a share that `BULK` is owed while others go before it;
//! - within a priority, clients take turns by deficit round robin (Shreedhar and Varghese, 1995), weighted;
//! - within a client, the earliest deadline goes first;
//! - where the queue is full, the longest line of the least urgent makes room, so that a flood refuses its own.

mod estimate;
mod line;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::line::Id;
use self::{estimate::Estimate, line::Line};
use crate::{config::Priority, refusal::Limit};

/// What a signature counts beside the bytes of its document, in bytes: the service spends about as long on so many bytes as a
/// token on an RSA-2048 signature.
pub(super) const SIGNATURE: u64 = 256 << 10;
/// Parts of the whole that shares are counted in.
const WHOLE: u64 = 100;
/// The shortest and longest time after which a caller is told to come back.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(30);

/// The bounds of a [`Schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Tickets that are out at a time.
    pub(super) window: usize,
    /// Documents that wait.
    pub(super) most: usize,
    /// Their bytes.
    pub(super) most_bytes: u64,
    /// Percent of the work, and of the queue, that is kept for `BULK`.
    pub(super) bulk_percent: u64,
}

/// Who wants a ticket.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) client: Arc<str>,
    /// The client's share against others of the same priority; at least 1.
    pub(super) weight: u64,
    pub(super) priority: Priority,
    /// What it holds in memory while it waits.
    pub(super) bytes: u64,
    /// What it takes to serve it: [`SIGNATURE`] and the bytes of its document.
    pub(super) cost: u64,
    pub(super) deadline: Instant,
}

/// Why somebody does not get in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// The queue is full, and nobody in it has less of a right to wait.
    Full {
        /// Which of its two limits stands in the way.
        limit: Limit,
        /// When what waits now will be gone.
        retry_after: Duration,
    },
    /// It would have its turn after its deadline.
    TooLate,
}

/// What becomes of one that waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// It has a ticket, for work of this cost.
    Go(T, u64),
    /// Its deadline has passed.
    Expired(T),
}

/// Who waits, and how many tickets are out. `T` is how a waiting one is told.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    rules: Rules,
    /// By [`Priority`].
    lines: [Line<T>; Priority::ALL.len()],
    out: usize,
    /// Work that `BULK` is owed, in hundredths of a cost.
    owed: i64,
    estimate: Estimate,
    arrivals: u64,
}

impl<T> Schedule<T> {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            lines: std::array::from_fn(|_| Line::default()),
            out: 0,
            owed: 0,
            estimate: Estimate::default(),
            arrivals: 0,
        }
    }

    /// Changes the bounds. What waits beyond them goes on waiting; [`Schedule::next`] may have something to say.
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// How many wait with this priority.
    pub(super) fn waiting(&self, priority: Priority) -> usize {
        self.line(priority).len()
    }

    /// Tickets that are out.
    #[cfg(test)]
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Takes a ticket without waiting, where one is free and nobody waits for it.
    pub(super) fn enter(&mut self) -> bool {
        let free = self.out < self.rules.window && self.all_waiting() == 0;
        self.out += usize::from(free);
        free
    }

    /// Gets in line. Those who had to make room are put into `pushed_out`, also where in the end it was not enough.
    ///
    /// # Errors
    /// Where it does not get in.
    pub(super) fn wait(&mut self, now: Instant, ask: &Ask, tell: T, pushed_out: &mut Vec<T>) -> Result<Id, Turned> {
        if now + self.time_to_answer(ask) > ask.deadline {
            return Err(Turned::TooLate);
        }
        while self.is_full_for(ask) {
            match self.victim(ask) {
                Some(victim) => pushed_out.push(victim),
                None => {
                    let limit = if self.all_waiting() >= self.rules.most {
                        self.most()
                    } else {
                        self.most_bytes()
                    };
                    let retry_after = self.retry_after();
                    return Err(Turned::Full { limit, retry_after });
                }
            }
        }
        self.arrivals += 1;
        self.estimate.waiting(Some(now));
        Ok(self.lines[ask.priority as usize].push(ask, self.arrivals, tell))
    }

    /// Takes one out of the line that went away; false where it is not there any more.
    pub(super) fn leave(&mut self, id: &Id) -> bool {
        self.lines[id.priority as usize].remove(id)
    }

    /// A ticket came back after so long.
    pub(super) fn done(&mut self, now: Instant, cost: u64, held: Duration) {
        self.out = self.out.saturating_sub(1);
        let waiting = self.all_waiting() > 0;
        self.estimate.waiting(waiting.then_some(now));
        self.estimate.observe(now, cost, held);
    }

    /// A ticket came back that nobody used.
    pub(super) fn withdraw(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// The next one that goes, or has waited too long; none where no ticket is free or nobody waits.
    pub(super) fn next(&mut self, now: Instant) -> Option<Step<T>> {
        if self.out >= self.rules.window {
            return None;
        }
        let priority = self.turn()?;
        let entry = self.lines[priority as usize].pop()?;
        if entry.deadline <= now {
            return Some(Step::Expired(entry.tell));
        }
        self.account(priority, entry.cost);
        self.out += 1;
        Some(Step::Go(entry.tell, entry.cost))
    }

    /// When what waits now will be gone, by the rate at which tickets come back.
    pub(super) fn retry_after(&self) -> Duration {
        let cost = self.lines.iter().map(Line::cost).sum();
        self.estimate.drain(cost, self.rules.window).clamp(SOONEST, LATEST)
    }

    /// How long a ticket is held, of late.
    pub(super) fn service_time(&self) -> Duration {
        self.estimate.service().clamp(SOONEST, LATEST)
    }

    /// How often a ticket comes back, of late.
    pub(super) fn each(&self) -> Duration {
        self.estimate.each(self.rules.window).min(LATEST)
    }

    fn line(&self, priority: Priority) -> &Line<T> {
        &self.lines[priority as usize]
    }

    fn all_waiting(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }

    fn all_bytes(&self) -> u64 {
        self.lines.iter().map(Line::bytes).sum()
    }

    fn is_full_for(&self, ask: &Ask) -> bool {
        self.all_waiting() >= self.rules.most || self.all_bytes().saturating_add(ask.bytes) > self.rules.most_bytes
    }

    fn most(&self) -> Limit {
        Limit::new("queue", self.rules.most as u64, "documents that may wait")
    }

    fn most_bytes(&self) -> Limit {
        Limit::new("queue_bytes", self.rules.most_bytes, "bytes of documents that may wait")
    }

    /// The one of the queue's two limits that it is nearer to: what somebody is told who had to make room.
    pub(super) fn fullest(&self) -> Limit {
        let documents = self.all_waiting() as u128 * u128::from(self.rules.most_bytes);
        let bytes = u128::from(self.all_bytes()) * self.rules.most as u128;
        if documents >= bytes {
            self.most()
        } else {
            self.most_bytes()
        }
    }

    /// The priority whose turn it is.
    fn turn(&self) -> Option<Priority> {
        if self.owed > 0 && self.waiting(Priority::Bulk) > 0 {
            return Some(Priority::Bulk);
        }
        Priority::ALL.into_iter().find(|p| self.waiting(*p) > 0)
    }

    /// Keeps the account of what `BULK` is owed: its share of all that is done while both wait.
    fn account(&mut self, priority: Priority, cost: u64) {
        let others = self.all_waiting() > self.waiting(Priority::Bulk);
        let (share, rest) = (self.rules.bulk_percent, WHOLE - self.rules.bulk_percent);
        let signed = |parts: u64| i64::try_from(parts.saturating_mul(cost)).unwrap_or(i64::MAX / 4);
        match priority {
            Priority::Bulk if others => self.owed -= signed(rest),
            Priority::Bulk => self.owed = 0,
            _ if self.waiting(Priority::Bulk) == 0 => self.owed = 0,
            _ => self.owed = self.owed.saturating_add(signed(share)),
        }
    }

    /// How many documents and bytes `BULK` may have in the queue whatever else wants in.
    fn kept_for_bulk(&self) -> (usize, u64) {
        let Rules {
            most,
            most_bytes,
            bulk_percent,
            ..
        } = self.rules;
        let documents = (most as u64).saturating_mul(bulk_percent).div_ceil(WHOLE);
        (
            usize::try_from(documents).unwrap_or(most),
            most_bytes / WHOLE * bulk_percent,
        )
    }

    /// Takes out of a full queue whoever has less of a right to wait than the newcomer: the last of the longest line among
    /// the less urgent, else of its own priority where that line is longer than its own would be.
    fn victim(&mut self, ask: &Ask) -> Option<T> {
        let (documents, bytes) = self.kept_for_bulk();
        let bulk = self.line(Priority::Bulk);
        let yields = |p: Priority| p != Priority::Bulk || bulk.len() > documents || bulk.bytes() > bytes;
        let claims =
            ask.priority == Priority::Bulk && bulk.len() < documents && bulk.bytes().saturating_add(ask.bytes) <= bytes;
        let least_urgent_first = || Priority::ALL.into_iter().rev();
        let mut less_urgent = least_urgent_first().filter(|p| *p > ask.priority && yields(*p));
        let mut others = least_urgent_first().filter(|p| claims && *p != Priority::Bulk);
        let waits = |p: &Priority| self.waiting(*p) > 0;
        let entry = match less_urgent.find(waits).or_else(|| others.find(waits)) {
            Some(priority) => self.lines[priority as usize].push_out(None),
            None => self.lines[ask.priority as usize].push_out(Some(ask)),
        }?;
        Some(entry.tell)
    }

    /// How long until a newcomer would be answered: the work that goes before it, and its own. Zero where it would not have to
    /// wait, so that an estimate that went wrong is always tried against the truth again.
    fn time_to_answer(&self, ask: &Ask) -> Duration {
        if self.all_waiting() == 0 && self.out < self.rules.window {
            return Duration::ZERO;
        }
        let time = |cost| self.estimate.drain(cost, self.rules.window);
        let urgent: u64 = Priority::ALL
            .into_iter()
            .take_while(|p| *p < ask.priority)
            .map(|p| self.line(p).cost())
            .sum();
        let own = self.line(ask.priority).ahead_of(ask);
        let mut wait = time(urgent.saturating_add(own));
        if ask.priority == Priority::Bulk && self.rules.bulk_percent > 0 {
            let share = u32::try_from(self.rules.bulk_percent).unwrap_or(100);
            wait = wait.min(time(own).saturating_mul(100) / share);
        }
        wait + self.estimate.service()
    }
}

#[cfg(test)]
mod tests;
