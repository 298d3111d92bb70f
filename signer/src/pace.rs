//! How fast the tokens sign, as the pool tells: for the door, that lets in as much as keeps them busy.

use std::time::Duration;

use muhurdar_pool::Pool;

use crate::admission::Pace;

/// Looks at the pool now and then.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Signatures and time in the token's calls at the last look.
    signatures: u64,
    time: Duration,
    /// What a signature took between the last two looks that saw one.
    signature: Duration,
}

impl Watch {
    /// The lanes of all tokens that are ready, at least one so that a request finds out; and how long a signature takes of late.
    pub(crate) fn look(&mut self, pool: &Pool) -> Pace {
        let status = pool.status();
        let ready = status.tokens.iter().filter(|t| t.is_ready());
        let lanes = ready.map(|t| t.cap.sessions).sum::<usize>().max(1);
        let time: Duration = status.tokens.iter().map(|t| t.token_time).sum();
        self.saw(status.signatures, time);
        Pace {
            lanes,
            signature: self.signature,
        }
    }

    fn saw(&mut self, signatures: u64, time: Duration) {
        let made = u32::try_from(signatures.saturating_sub(self.signatures)).unwrap_or(u32::MAX);
        if let Some(each) = time.saturating_sub(self.time).checked_div(made) {
            (self.signatures, self.time, self.signature) = (signatures, time, each);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_signature_is_that_of_late_and_stays_where_none_was_made() {
        let mut watch = Watch::default();
        watch.saw(10, Duration::from_millis(10));
        assert_eq!(watch.signature, Duration::from_millis(1));
        watch.saw(12, Duration::from_millis(50));
        watch.saw(12, Duration::from_millis(50));
        assert_eq!(watch.signature, Duration::from_millis(20));
    }
}
