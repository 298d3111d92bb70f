//! A client's own bounds: documents a second, documents and bytes in flight, large documents.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::clock::DefaultClock;

use super::{
    comeback::{Comeback, Rate},
    unread::Tally,
};
use crate::{
    config,
    refusal::{LATER, Limit, Refusal},
};

/// What a client has used, and what it may. One for each client; a reload that leaves the rate as it was keeps it.
#[derive(Debug)]
pub(super) struct Quota {
    limits: config::Quota,
    rate: Option<Arc<Rate>>,
    used: Arc<Used>,
}

/// What is in flight. Outlives a reload, so that a document is given back to what it was taken from.
#[derive(Debug, Default)]
struct Used {
    documents: AtomicUsize,
    bytes: AtomicU64,
    /// Places of large documents, beside those of all.
    large: AtomicUsize,
    /// Of messages that are not whole yet, and so no documents.
    arriving: Arc<AtomicU64>,
    /// Of answers that it has not taken yet.
    unread: Arc<Tally>,
    /// Those who were refused for what is in flight and are to come back, in the order of [`Bound::ALL`]; the rate has its own.
    comebacks: [Comeback; Bound::ALL.len()],
    /// Those who were refused for the load of all.
    overloaded: Comeback,
    /// Documents that were refused, in the order of [`Bound::ALL`].
    refused: [AtomicU64; Bound::ALL.len()],
}

/// A document's share of a quota; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    used: Arc<Used>,
    bytes: u64,
}

/// A client's share of the places for large documents; given back when it is dropped.
#[derive(Debug)]
pub struct LargeShare(Arc<Used>);

impl Quota {
    pub(super) fn new(limits: config::Quota, before: Option<&Self>) -> Self {
        let same_rate =
            |q: &&Self| (q.limits.documents_per_second, q.limits.burst) == (limits.documents_per_second, limits.burst);
        let rate = match before.filter(same_rate) {
            Some(before) => before.rate.clone(),
            None => limits.documents_per_second.map(|rate| {
                let quota = governor::Quota::per_second(rate).allow_burst(limits.burst.unwrap_or(rate));
                Arc::new(Rate::new(quota, DefaultClock::default()))
            }),
        };
        Self {
            limits,
            rate,
            used: before.map_or_else(Arc::default, |q| Arc::clone(&q.used)),
        }
    }

    /// Its bounds.
    pub(super) fn limits(&self) -> &config::Quota {
        &self.limits
    }

    /// Bytes of its messages that are not whole yet.
    pub(super) fn arriving(&self) -> &Arc<AtomicU64> {
        &self.used.arriving
    }

    /// Bytes of its answers that it has not taken yet.
    pub(super) fn unread(&self) -> &Arc<Tally> {
        &self.used.unread
    }

    /// When one who is refused for the load of all is to come back, where one finds room after `first`, and then one every `each`.
    pub(super) fn overloaded(&self, first: Duration, each: Duration) -> Duration {
        self.used.overloaded.next(Instant::now(), first, each)
    }

    /// The bounds that there are, and how many documents each has refused.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (Bound, u64)> {
        let limits = &self.limits;
        let bounded = move |bound: &Bound| match bound {
            Bound::Rate => limits.documents_per_second.is_some(),
            Bound::Documents => limits.in_flight.is_some(),
            Bound::Bytes => limits.in_flight_bytes.is_some(),
            Bound::Large => true,
        };
        let count = |bound: Bound| self.used.refused[bound as usize].load(Ordering::Relaxed);
        Bound::ALL
            .into_iter()
            .filter(bounded)
            .map(move |bound| (bound, count(bound)))
    }

    /// Takes a document's share. `soon`: when a document in flight is likely to be answered.
    ///
    /// # Errors
    /// QUOTA, with the bound that was reached.
    pub(super) fn take(&self, bytes: u64, soon: impl Fn() -> Duration) -> Result<Share, Refusal> {
        self.try_take(bytes, soon).inspect_err(|refusal| self.count(refusal))
    }

    /// Takes a place of a large document, of which a client may have `most` where its quota says nothing.
    ///
    /// # Errors
    /// QUOTA where it has as many as it may.
    pub(super) fn take_large(&self, most: usize) -> Result<LargeShare, Refusal> {
        let taken = self.used.large.fetch_add(1, Ordering::Relaxed);
        let share = LargeShare(Arc::clone(&self.used));
        let most = self.limits.large_in_flight.unwrap_or(most);
        if taken < most {
            return Ok(share);
        }
        let wait = self.used.wait(Bound::Large, LATER, most);
        let refusal = refusal(Bound::Large, most as u64, "large documents in flight", wait);
        self.count(&refusal);
        Err(refusal)
    }

    fn count(&self, refusal: &Refusal) {
        if let Refusal::Quota { bound, .. } = refusal {
            self.used.refused[*bound as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_take(&self, bytes: u64, soon: impl Fn() -> Duration) -> Result<Share, Refusal> {
        // It would be told to come back for ever.
        if let Some(limit) = self
            .limits
            .in_flight_bytes
            .map(|limit| limit.as_u64())
            .filter(|limit| bytes > *limit)
        {
            return Err(Refusal::DocumentTooLarge {
                name: Bound::Bytes.name(),
                limit,
                size: Some(bytes),
            });
        }
        let used = Arc::clone(&self.used);
        let documents = used.documents.fetch_add(1, Ordering::Relaxed);
        let held = used.bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { used, bytes };
        if let Some(most) = self.limits.in_flight.filter(|most| documents >= *most) {
            let wait = share.used.wait(Bound::Documents, soon(), most);
            return Err(refusal(Bound::Documents, most as u64, "documents in flight", wait));
        }
        let most = self.limits.in_flight_bytes.map(|most| most.as_u64());
        if let Some(most) = most.filter(|most| held.saturating_add(bytes) > *most) {
            let wait = share.used.wait(Bound::Bytes, soon(), documents);
            return Err(refusal(Bound::Bytes, most, "bytes in flight", wait));
        }
        // Last, so that what is refused for another reason spends nothing.
        if let Some(Err(wait)) = self.rate.as_ref().map(|rate| rate.take()) {
            let most = self.limits.documents_per_second.map_or(0, std::num::NonZeroU32::get);
            return Err(refusal(Bound::Rate, most.into(), "documents a second", wait));
        }
        Ok(share)
    }
}

impl Used {
    /// When one who is refused for so many documents in flight finds room: one of them is likely to be answered `soon`, and the
    /// others in their turn.
    fn wait(&self, bound: Bound, soon: Duration, documents: usize) -> Duration {
        let documents = u32::try_from(documents.max(1)).unwrap_or(u32::MAX);
        self.comebacks[bound as usize].next(Instant::now(), soon, soon / documents)
    }
}

/// Which bound of a quota was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Bound {
    /// Documents a second.
    Rate,
    /// Documents in flight.
    Documents,
    /// Bytes in flight.
    Bytes,
    /// Large documents in flight.
    Large,
}

impl Bound {
    pub(crate) const ALL: [Self; 4] = [Self::Rate, Self::Documents, Self::Bytes, Self::Large];

    /// Its key in `[client.quota]`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "documents_per_second",
            Self::Documents => "in_flight",
            Self::Bytes => "in_flight_bytes",
            Self::Large => "large_in_flight",
        }
    }
}

fn refusal(bound: Bound, value: u64, unit: &'static str, retry_after: Duration) -> Refusal {
    Refusal::Quota {
        bound,
        limit: Limit::new(bound.name(), value, unit),
        retry_after: retry_after.max(Duration::from_millis(1)),
    }
}

impl Drop for LargeShare {
    fn drop(&mut self) {
        self.0.large.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.documents.fetch_sub(1, Ordering::Relaxed);
        self.used.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytesize::ByteSize;

    use super::*;

    const SOON: Duration = Duration::from_millis(7);

    fn soon() -> Duration {
        SOON
    }

    fn refused(outcome: Result<Share, Refusal>) -> (Bound, Duration) {
        match outcome {
            Err(Refusal::Quota { bound, retry_after, .. }) => (bound, retry_after),
            other => panic!("{other:?}"),
        }
    }

    /// The bound of one who was refused alone, and is told to come soon.
    fn bound(outcome: Result<Share, Refusal>) -> Bound {
        let (bound, wait) = refused(outcome);
        assert!(wait >= SOON && wait <= SOON * 2, "{wait:?}");
        bound
    }

    #[test]
    fn documents_and_bytes_in_flight_are_given_back() {
        let quota = Quota::new(
            config::Quota {
                in_flight: Some(2),
                in_flight_bytes: Some(ByteSize(100)),
                ..config::Quota::default()
            },
            None,
        );
        let first = quota.take(60, soon).unwrap();
        assert_eq!(bound(quota.take(41, soon)), Bound::Bytes);
        let refused: Vec<_> = quota.refusals().collect();
        assert_eq!(refused, [(Bound::Documents, 0), (Bound::Bytes, 1), (Bound::Large, 0)]);
        let second = quota.take(40, soon).unwrap();
        assert_eq!(bound(quota.take(0, soon)), Bound::Documents);
        drop((first, second));
        assert!(quota.take(100, soon).is_ok());
    }

    #[test]
    fn a_rate_allows_its_burst_and_says_when_to_come_back() {
        let limits = config::Quota {
            documents_per_second: NonZeroU32::new(1),
            burst: NonZeroU32::new(3),
            ..config::Quota::default()
        };
        let quota = Quota::new(limits, None);
        for _ in 0..3 {
            drop(quota.take(1, soon).unwrap());
        }
        let (reached, wait) = refused(quota.take(1, soon));
        assert_eq!(reached, Bound::Rate);
        assert!(
            wait > Duration::from_millis(100) && wait <= Duration::from_secs(2),
            "{wait:?}"
        );
        // A reload that leaves the rate alone gives nothing new; another rate begins anew.
        let again = refused(Quota::new(limits, Some(&quota)).take(1, soon));
        assert!(
            again.0 == Bound::Rate && again.1 > wait,
            "behind the other: {again:?}, {wait:?}"
        );
        let more = config::Quota {
            burst: NonZeroU32::new(4),
            ..limits
        };
        assert!(Quota::new(more, Some(&quota)).take(1, soon).is_ok());
    }

    #[test]
    fn large_documents_have_places_of_their_own_whether_or_not_the_quota_names_them() {
        let large = |outcome: Result<LargeShare, Refusal>| match outcome {
            Err(Refusal::Quota { bound, limit, .. }) => (bound, limit.to_string()),
            other => panic!("{other:?}"),
        };
        let quota = Quota::new(config::Quota::default(), None);
        let first = quota.take_large(1).unwrap();
        let refused = large(quota.take_large(1));
        assert_eq!(refused, (Bound::Large, "1 large documents in flight".to_owned()));
        assert!(quota.refusals().any(|refused| refused == (Bound::Large, 1)));
        drop(first);
        drop(quota.take_large(1).unwrap());

        let none = config::Quota {
            large_in_flight: Some(0),
            ..config::Quota::default()
        };
        assert!(Quota::new(none, None).take_large(1).is_err());
    }

    #[test]
    fn what_is_in_flight_outlives_a_reload() {
        let limits = config::Quota {
            in_flight: Some(1),
            ..config::Quota::default()
        };
        let before = Quota::new(limits, None);
        let share = before.take(1, soon).unwrap();
        let after = Quota::new(limits, Some(&before));
        assert_eq!(bound(after.take(1, soon)), Bound::Documents);
        drop(share);
        assert!(after.take(1, soon).is_ok());
    }
}
