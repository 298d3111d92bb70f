//! Answers on their way out: bytes that a client has asked for and not taken yet. What it has asked for before is kept for it;
//! it is what it asks for next that has to wait, or is refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::Caller;
use crate::refusal::{Limit, Refusal, SOON};

/// How many bytes of answers may be unread before no more is done for a client.
#[derive(Debug)]
pub struct Unread {
    by_all: Arc<AtomicU64>,
    most: AtomicU64,
    /// A whole answer is always made.
    least: u64,
}

/// Those of one client. Outlives a reload.
#[derive(Debug, Default)]
pub(super) struct Tally {
    bytes: AtomicU64,
    less: Notify,
}

/// Where one client's answers are counted.
#[derive(Debug, Clone)]
pub struct Departure {
    by_all: Arc<AtomicU64>,
    by_one: Arc<Tally>,
}

/// Bytes that are unread until this is dropped.
#[derive(Debug)]
pub struct Held {
    departure: Departure,
    bytes: u64,
}

impl Unread {
    /// A client may have half of so many, and `least` where all together have more; answers have up to `least`.
    #[must_use]
    pub fn new(most: u64, least: u64) -> Self {
        Self {
            by_all: Arc::default(),
            most: AtomicU64::new(most),
            least,
        }
    }

    /// So many from now on.
    pub fn reconfigure(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Where a client's answers are counted.
    #[must_use]
    pub fn of(&self, caller: &Caller) -> Departure {
        Departure {
            by_all: Arc::clone(&self.by_all),
            by_one: Arc::clone(caller.quota().unread()),
        }
    }

    /// Bytes that are unread now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.by_all.load(Ordering::Relaxed)
    }

    /// Whether more may be done for a client.
    ///
    /// # Errors
    /// OVERLOADED where it has too much unread.
    pub fn admit(&self, departure: &Departure) -> Result<(), Refusal> {
        match self.exceeded(departure) {
            None => Ok(()),
            Some(most) => Err(Refusal::Overloaded {
                limit: Limit::new(
                    "in_flight_bytes",
                    most,
                    "bytes of answers that a client may leave unread",
                ),
                retry_after: SOON,
            }),
        }
    }

    /// Waits until more may be done for a client.
    pub async fn room(&self, departure: &Departure) {
        loop {
            let less = departure.by_one.less.notified();
            tokio::pin!(less);
            less.as_mut().enable();
            if self.exceeded(departure).is_none() {
                return;
            }
            less.await;
        }
    }

    /// The limit that a client is over.
    fn exceeded(&self, departure: &Departure) -> Option<u64> {
        let own = departure.by_one.bytes.load(Ordering::Relaxed);
        if own <= self.least {
            return None;
        }
        let most = self.most.load(Ordering::Relaxed);
        // Where there is no room left, those who read what they get are served on.
        let most = if self.bytes() > most { 0 } else { most / 2 }.max(self.least);
        (own > most).then_some(most)
    }
}

impl Departure {
    /// So many bytes more are unread.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Held {
        let bytes = bytes as u64;
        self.by_all.fetch_add(bytes, Ordering::Relaxed);
        self.by_one.bytes.fetch_add(bytes, Ordering::Relaxed);
        Held {
            departure: self.clone(),
            bytes,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Departure { by_all, by_one } = &self.departure;
        by_all.fetch_sub(self.bytes, Ordering::Relaxed);
        by_one.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        by_one.less.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{admission::Access, config::Config};

    fn departures(unread: &Unread) -> (Departure, Departure) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");
        let clients = Config::load(path.as_ref()).unwrap().clients;
        let one = || unread.of(&Access::new(&clients).anybody());
        (one(), one())
    }

    #[test]
    fn one_client_leaves_half_unread_and_less_where_there_is_no_room() {
        let unread = Unread::new(100, 10);
        let (one, other) = departures(&unread);
        let held = one.hold(50);
        unread.admit(&one).unwrap();
        let one_more = one.hold(1);
        assert!(matches!(unread.admit(&one), Err(Refusal::Overloaded { .. })));
        unread.admit(&other).unwrap();

        let others = other.hold(50);
        assert_eq!(unread.bytes(), 101);
        assert!(unread.admit(&other).is_err(), "there is no room");
        drop((others, one_more));
        unread.admit(&one).unwrap();
        let others = other.hold(10);
        let too_much = one.hold(60);
        unread.admit(&other).unwrap();
        drop((held, others, too_much));
        assert_eq!(unread.bytes(), 0);
    }

    #[tokio::test]
    async fn a_client_waits_until_it_has_read() {
        let unread = Unread::new(100, 10);
        let (one, _) = departures(&unread);
        unread.room(&one).await;
        let held = one.hold(51);
        assert!(timeout(Duration::from_millis(10), unread.room(&one)).await.is_err());
        let (room, ()) = tokio::join!(timeout(Duration::from_secs(10), unread.room(&one)), async {
            drop(held);
        });
        room.unwrap();
    }
}
