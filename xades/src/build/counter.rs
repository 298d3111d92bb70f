//! A counter-signature: a seal over the value of another (XAdES 1.4.2 section 7.2.4), as HR-XML documents carry it.

use super::signature::canonical_value;
use super::signed_info::{Reference, Target};
use super::{Draft, Unsigned};

impl Draft<'_> {
    /// Writes the counter-signature over the value of the seal that this draft is of. It is to be signed by the same
    /// certificate; its Ids are [`Ids::counter`](super::Ids::counter) of the draft's.
    #[must_use]
    pub fn build_counter(&self, value: &[u8]) -> Unsigned {
        let ids = self.ids.counter();
        let place = self.place.within();
        let digest = self.policy.signature_algorithm(self.certificate).digest();
        let digest = digest.digest(canonical_value(&place, self.ids, value).as_bytes());
        let reference = Reference {
            target: Target::Value(self.ids.value()),
            digest: digest.as_ref(),
        };
        Draft {
            place: &place,
            ids: &ids,
            ..*self
        }
        .build_over(reference)
    }
}
