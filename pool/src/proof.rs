//! A signature on a session of its own before a slot takes work: an opened token that cannot sign is not open, and one that signed wrongly is
//! let back by signatures that are right.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::ckr::CkrError;
use crate::driver::{Driver, SignCall, TokenSession};
use crate::health::{PROBE, probe_call};
use crate::job::SignInput;
use crate::keys::KeyId;
use crate::ladder::{self, Rung, WRONG_VALUE};
use crate::module::lock;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::table::{Entry, Handles};

/// Signatures of each key, one after another, that a token has to give rightly after it gave wrong ones; fewer where they take longer than
/// one call may.
const ROUNDS: u32 = 16;
/// Keys beside the suspects that are tried, one after another, as long as no key has been right.
const OTHERS: usize = 4;
/// Signatures of a key from which on it is told from its token.
const ENOUGH: u32 = 3;

pub(crate) struct Proof {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    /// After wrong values: the keys that gave them.
    suspects: Option<Vec<KeyId>>,
}

/// A key, and what came of trying it.
struct Tried {
    entry: Arc<Entry>,
    handle: u64,
    made: u32,
    wrong: u32,
}

impl Proof {
    /// `suspects`: keys whose values were wrong, where that is what the slot lost its place for.
    pub(crate) fn of(shared: &Arc<Shared>, slot: &Arc<Slot>, suspects: Option<Vec<KeyId>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            slot: Arc::clone(slot),
            suspects,
        }
    }

    /// Makes it, in slot `id` of the module. Answers the keys that are wrong by themselves, where the token is not.
    pub(crate) fn made(&self, driver: &dyn Driver, id: u64) -> Result<Vec<KeyId>, CkrError> {
        let handles = Arc::clone(&lock(&self.slot.opened).handles);
        let suspects = self.suspects.as_deref().unwrap_or_default();
        let mut others = handles.keys().filter(|key| !suspects.contains(key)).take(OTHERS);
        let mut another = || self.tried(&handles, others.next()?);
        let mut tried: Vec<_> = suspects.iter().filter_map(|key| self.tried(&handles, *key)).collect();
        tried.extend(another());
        let begun = Instant::now();
        let mut session = None;
        for round in 0..ROUNDS {
            if round > 0 && begun.elapsed() > self.slot.config.call_budget {
                break;
            }
            self.each_signs(driver, id, &mut session, &mut tried)?;
            if tried.iter().all(|key| key.wrong > 0) {
                // The token, or only these keys?
                let Some(another) = another() else { break };
                tried.push(another);
            } else if self.suspects.is_none() && tried.iter().all(|key| key.wrong == 0) {
                break;
            }
        }
        let found: Vec<_> = tried.iter().map(|key| (key.entry.id, key.made, key.wrong)).collect();
        let odd = judge(&found)?;
        if !found.is_empty() {
            let counters = &self.slot.counters;
            counters
                .last_signature
                .store(self.shared.clock.now(), Ordering::Relaxed);
        }
        Ok(odd)
    }

    fn tried(&self, handles: &Handles, key: KeyId) -> Option<Tried> {
        Some(Tried {
            entry: self.shared.keys.get(key)?,
            handle: handles.of(key)?,
            made: 0,
            wrong: 0,
        })
    }

    /// A signature of each key. One that the token does not sign with at all is left out.
    fn each_signs(
        &self,
        driver: &dyn Driver,
        id: u64,
        session: &mut Option<Box<dyn TokenSession>>,
        tried: &mut Vec<Tried>,
    ) -> Result<(), CkrError> {
        let mut at = 0;
        while let Some(key) = tried.get_mut(at) {
            let with = match &mut *session {
                Some(session) => session,
                none => none.insert(driver.session(id, self.slot.config.single_session)?),
            };
            match self.sign(&mut **with, key) {
                Ok(()) => at += 1,
                // A token that only wants another mechanism is `check`'s to tell and must not be brought down for it.
                Err(error) if ladder::classify(&error, &self.slot.config.module_fault_codes) == Rung::Request => {
                    tracing::warn!(token = %self.slot.name, %error, "the token answers but does not sign; `muhurdar check` says what it wants");
                    tried.remove(at);
                    // After an error it is to be dropped.
                    *session = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sign(&self, session: &mut dyn TokenSession, key: &mut Tried) -> Result<(), CkrError> {
        let kind = key.entry.kind;
        let input = SignInput::message(kind.default_hash(), PROBE);
        let mut data = Vec::new();
        let mechanism = probe_call(kind, self.slot.config.rsa_mechanism, &input, &mut data);
        let made = session.sign(&SignCall {
            handle: key.handle,
            mechanism,
            data: &data,
            length: kind.signature_len(),
        })?;
        key.made += 1;
        if key.entry.verify(&input, &made.value) == Some(false) {
            key.wrong += 1;
            self.slot.counters.wrong.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// From each key's signatures, made and wrong: the keys that never sign rightly while another of the token's always does. They are not the
/// private halves of the public keys beside them.
///
/// # Errors
/// Where the token itself is wrong.
fn judge(tried: &[(KeyId, u32, u32)]) -> Result<Vec<KeyId>, CkrError> {
    let right = tried.iter().any(|(_, made, wrong)| *made >= ENOUGH && *wrong == 0);
    let mut odd = Vec::new();
    for (key, made, wrong) in tried.iter().filter(|(.., wrong)| *wrong > 0) {
        if !right || *made < ENOUGH || wrong < made {
            return Err(WRONG_VALUE);
        }
        odd.push(*key);
    }
    Ok(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: KeyId = KeyId(0);
    const B: KeyId = KeyId(1);

    #[test]
    fn a_key_that_is_always_wrong_beside_one_that_is_always_right_is_at_fault_itself() {
        assert_eq!(judge(&[(A, 16, 16), (B, 16, 0)]), Ok(vec![A]));
    }

    #[test]
    fn a_token_is_at_fault_where_no_key_is_always_right_or_one_is_wrong_now_and_then() {
        assert_eq!(judge(&[(A, 16, 16)]), Err(WRONG_VALUE));
        assert_eq!(judge(&[(A, 16, 16), (B, 16, 1)]), Err(WRONG_VALUE));
        assert_eq!(judge(&[(A, 16, 2), (B, 16, 0)]), Err(WRONG_VALUE));
        // Too few to tell.
        assert_eq!(judge(&[(A, 1, 1), (B, 1, 0)]), Err(WRONG_VALUE));
    }

    #[test]
    fn a_token_that_is_right_is_let_back() {
        assert_eq!(judge(&[(A, 16, 0), (B, 16, 0)]), Ok(vec![]));
        assert_eq!(judge(&[(A, 1, 0)]), Ok(vec![]));
        assert_eq!(
            judge(&[]),
            Ok(vec![]),
            "no key can sign: there is nothing to be wrong about"
        );
    }
}
