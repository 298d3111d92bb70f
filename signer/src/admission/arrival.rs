//! Messages on their way in: memory that is held before anybody can say what they are, and so before the door. A message counts with
//! the length that it announces, since room is made for it then; and a call that is open counts too, with what the transport holds
//! for it while nobody reads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Caller;
use crate::refusal::{Limit, Refusal, SOON};

/// What an open call takes by itself: its task, its headers, the beginnings of its buffers.
const CALL: u64 = 16 << 10;
/// Bytes of one call that may have come and not been read, which is what its HTTP/2 window lets come.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;

/// When a call's messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As they come.
    AtOnce,
    /// One after the other, each when those before it leave room: meanwhile the transport holds as much as a window lets come.
    InTurn,
}

impl Reading {
    /// What a call holds that has not begun a message.
    fn bytes(self) -> u64 {
        match self {
            Self::AtOnce => CALL,
            Self::InTurn => CALL + u64::from(STREAM_WINDOW),
        }
    }
}

/// How many bytes of open calls, and of messages that are not whole yet, may be held, by all and by one.
#[derive(Debug)]
pub struct Arrivals {
    held: Arc<AtomicU64>,
    /// Of those whom no client of the configuration is.
    strangers: Arc<AtomicU64>,
    most: AtomicU64,
    /// A call with a whole message must always find room.
    least: u64,
}

/// What one open call holds; given back when it is dropped.
#[derive(Debug)]
pub struct Arrival {
    /// By itself.
    call: u64,
    /// The most that one of its messages has had, where the transport keeps the room for it.
    kept: u64,
    /// Of the message that is not whole.
    message: u64,
    /// All of it.
    held: u64,
    by_all: Arc<AtomicU64>,
    by_one: Arc<AtomicU64>,
    most: u64,
    most_of_one: u64,
}

impl Arrivals {
    /// At most so many bytes, of which half may be one client's; messages have up to `least`.
    #[must_use]
    pub fn new(most: u64, least: u64) -> Self {
        Self {
            held: Arc::default(),
            strangers: Arc::default(),
            most: AtomicU64::new(most),
            least: least + Reading::InTurn.bytes(),
        }
    }

    /// So many from now on.
    pub fn reconfigure(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The share of a call that begins. Whether it may is told by [`Arrival::admit`].
    #[must_use]
    pub fn begin(&self, caller: Option<&Caller>, reading: Reading) -> Arrival {
        let most = self.most.load(Ordering::Relaxed);
        let by_one = caller.map_or(&self.strangers, |caller| caller.quota().arriving());
        let call = reading.bytes();
        self.held.fetch_add(call, Ordering::Relaxed);
        by_one.fetch_add(call, Ordering::Relaxed);
        Arrival {
            call,
            kept: 0,
            message: 0,
            held: call,
            by_all: Arc::clone(&self.held),
            by_one: Arc::clone(by_one),
            most: most.max(self.least),
            most_of_one: (most / 2).max(self.least),
        }
    }

    /// The share of a message that asks for so many answers: each costs what a call does, also where nothing comes of it.
    ///
    /// # Errors
    /// OVERLOADED where they are too many, with all that is held.
    pub fn batch(&self, caller: &Caller, items: usize) -> Result<Arrival, Refusal> {
        let mut share = self.begin(Some(caller), Reading::AtOnce);
        share.hold(CALL.saturating_mul(items as u64))?;
        Ok(share)
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Arrival {
    /// Whether it holds the beginning of a message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.message == 0
    }

    /// The room for a message of so many bytes is kept when it is whole, and used again for the next.
    pub fn keep(&mut self, bytes: u64) {
        self.kept = self.kept.max(bytes);
    }

    /// So many bytes are held now of a message that is not whole.
    ///
    /// # Errors
    /// OVERLOADED where they are too many, with all that is held.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.message = bytes;
        let bytes = bytes.max(self.kept).saturating_add(self.call);
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes <= before {
            self.by_all.fetch_sub(before - bytes, Ordering::Relaxed);
            self.by_one.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let more = bytes - before;
        let all = self.by_all.fetch_add(more, Ordering::Relaxed) + more;
        let own = self.by_one.fetch_add(more, Ordering::Relaxed) + more;
        self.bounded(all, own)
    }

    /// Whether one more call may be open.
    ///
    /// # Errors
    /// OVERLOADED where too much is held.
    pub fn admit(&self) -> Result<(), Refusal> {
        self.bounded(self.by_all.load(Ordering::Relaxed), self.by_one.load(Ordering::Relaxed))
    }

    fn bounded(&self, all: u64, own: u64) -> Result<(), Refusal> {
        let limit = if own > self.most_of_one {
            Limit::new(
                "in_flight_bytes",
                self.most_of_one,
                "bytes that calls of one client may hold before their messages are whole",
            )
        } else if all > self.most {
            Limit::new(
                "in_flight_bytes",
                self.most,
                "bytes that calls may hold before their messages are whole",
            )
        } else {
            return Ok(());
        };
        let retry_after = SOON;
        Err(Refusal::Overloaded { limit, retry_after })
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.by_all.fetch_sub(self.held, Ordering::Relaxed);
        self.by_one.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::Access, config::Config};

    const MIB: u64 = 1 << 20;

    fn example() -> Access {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");
        Access::new(&Config::load(path.as_ref()).unwrap().clients)
    }

    #[test]
    fn one_client_holds_half_and_leaves_the_rest_to_others() {
        let access = example();
        let caller = access.anybody();
        let arrivals = Arrivals::new(100 * MIB, 10 * MIB);
        let begin = |caller| arrivals.begin(caller, Reading::AtOnce);
        let (mut first, mut second) = (begin(Some(&*caller)), begin(Some(&*caller)));
        first.hold(40 * MIB).unwrap();
        assert!(matches!(second.hold(11 * MIB), Err(Refusal::Overloaded { .. })));
        drop(second);
        assert_eq!(arrivals.bytes(), 40 * MIB + CALL);
        let mut stranger = begin(None);
        stranger.hold(50 * MIB - CALL).unwrap();
        let again = begin(Some(&*caller)).hold(11 * MIB);
        assert!(again.is_err(), "of all");
        first.hold(5 * MIB).unwrap();
        begin(Some(&*caller)).hold(11 * MIB).unwrap();
        drop((first, stranger));
        assert_eq!(arrivals.bytes(), 0);
    }

    #[test]
    fn a_whole_message_always_finds_room_in_whatever_call() {
        let arrivals = Arrivals::new(MIB, 16 * MIB);
        arrivals.begin(None, Reading::InTurn).hold(16 * MIB).unwrap();
        assert!(arrivals.begin(None, Reading::InTurn).hold(16 * MIB + 1).is_err());
    }

    #[test]
    fn calls_that_say_nothing_are_counted_for_what_may_lie_in_their_windows() {
        let access = example();
        let caller = access.anybody();
        let arrivals = Arrivals::new(100 * MIB, MIB);
        let mut open = Vec::new();
        let refused = loop {
            let call = arrivals.begin(Some(&caller), Reading::InTurn);
            if let Err(refused) = call.admit() {
                break refused;
            }
            open.push(call);
        };
        assert!(matches!(refused, Refusal::Overloaded { .. }));
        assert_eq!(open.len(), 49, "half of a hundred mebibytes");
        assert!(arrivals.begin(None, Reading::InTurn).hold(MIB).is_ok(), "others");
    }

    #[test]
    fn the_room_of_the_largest_message_counts_until_its_call_ends() {
        let arrivals = Arrivals::new(100 * MIB, 16 * MIB);
        let mut call = arrivals.begin(None, Reading::InTurn);
        let idle = arrivals.bytes();
        call.keep(16 * MIB);
        call.hold(16 * MIB).unwrap();
        assert!(!call.is_empty());
        call.hold(0).unwrap();
        assert!(call.is_empty(), "nobody is waited for");
        assert_eq!(arrivals.bytes(), idle + 16 * MIB);
        // The next one is where that one was.
        call.hold(MIB).unwrap();
        assert_eq!(arrivals.bytes(), idle + 16 * MIB);
        let mut others = Vec::new();
        loop {
            let mut other = arrivals.begin(None, Reading::InTurn);
            other.keep(16 * MIB);
            if other.hold(16 * MIB).is_err() {
                break;
            }
            other.hold(0).unwrap();
            others.push(other);
            assert!(others.len() < 10, "idle streams hold what the transport holds for them");
        }
        drop((call, others));
        assert_eq!(arrivals.bytes(), 0);
    }
}
