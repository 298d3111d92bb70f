//! Messages on their way in: bytes that are held in memory before anybody can say what they are, and so before the door.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Caller;
use crate::refusal::{Refusal, SOON};

/// How many bytes of messages that are not whole yet may be held, by all and by one.
#[derive(Debug)]
pub struct Arrivals {
    held: Arc<AtomicU64>,
    /// Of those whom no client of the configuration is.
    strangers: Arc<AtomicU64>,
    most: AtomicU64,
    /// A whole message must always find room.
    least: u64,
}

/// What one call holds of messages that are not whole; given back when it is dropped.
#[derive(Debug)]
pub struct Arrival {
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
            least,
        }
    }

    /// So many from now on.
    pub fn reconfigure(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The share of a call that begins.
    #[must_use]
    pub fn begin(&self, caller: Option<&Caller>) -> Arrival {
        let most = self.most.load(Ordering::Relaxed);
        let by_one = caller.map_or(&self.strangers, |caller| caller.quota().arriving());
        Arrival {
            held: 0,
            by_all: Arc::clone(&self.held),
            by_one: Arc::clone(by_one),
            most: most.max(self.least),
            most_of_one: (most / 2).max(self.least),
        }
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
        self.held == 0
    }

    /// So many bytes are held now.
    ///
    /// # Errors
    /// OVERLOADED where they are too many.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut self.held, bytes);
        if bytes <= before {
            self.by_all.fetch_sub(before - bytes, Ordering::Relaxed);
            self.by_one.fetch_sub(before - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let more = bytes - before;
        let all = self.by_all.fetch_add(more, Ordering::Relaxed) + more;
        let own = self.by_one.fetch_add(more, Ordering::Relaxed) + more;
        let limit = if own > self.most_of_one {
            format!(
                "the {} bytes that messages of one client may have before they are whole",
                self.most_of_one
            )
        } else if all > self.most {
            format!("the {} bytes that messages may have before they are whole", self.most)
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

    fn example() -> Access {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");
        Access::new(&Config::load(path.as_ref()).unwrap().clients)
    }

    #[test]
    fn one_client_holds_half_and_leaves_the_rest_to_others() {
        let access = example();
        let caller = access.anybody();
        let arrivals = Arrivals::new(100, 10);
        let (mut first, mut second) = (arrivals.begin(Some(&caller)), arrivals.begin(Some(&caller)));
        first.hold(40).unwrap();
        assert!(matches!(second.hold(11), Err(Refusal::Overloaded { .. })));
        drop(second);
        assert_eq!(arrivals.bytes(), 40);
        let mut stranger = arrivals.begin(None);
        stranger.hold(50).unwrap();
        let again = arrivals.begin(Some(&caller)).hold(11);
        assert!(again.is_err(), "of all");
        first.hold(5).unwrap();
        arrivals.begin(Some(&caller)).hold(11).unwrap();
        drop((first, stranger));
        assert_eq!(arrivals.bytes(), 0);
    }

    #[test]
    fn a_whole_message_always_finds_room() {
        let arrivals = Arrivals::new(10, 16);
        arrivals.begin(None).hold(16).unwrap();
        assert!(arrivals.begin(None).hold(17).is_err());
    }
}
