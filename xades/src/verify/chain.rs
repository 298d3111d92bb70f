//! From a certificate to a trust anchor.

use jiff::Timestamp;

use crate::certificate::Certificate;

/// Whether a path leads from `leaf` to one of `anchors`, over `others` where needed: each issued by the next, each
/// issuer an authority and within its path length, all valid at `at` (RFC 5280 section 6, without policies and name
/// constraints, which Kamu SM's certificates do not have). An anchor is believed as it is. Revocation is not asked.
pub(super) fn leads_to_anchor(
    leaf: &Certificate,
    others: &[Certificate],
    anchors: &[Certificate],
    at: Timestamp,
) -> bool {
    let others = others.iter().collect();
    Climb { others, anchors, at }.leads_on(leaf, 0)
}

struct Climb<'c> {
    /// Not tried yet. Each is tried once: certificates made to issue each other cost no more than honest ones.
    others: Vec<&'c Certificate>,
    anchors: &'c [Certificate],
    at: Timestamp,
}

impl Climb<'_> {
    /// `below` counts the authorities from the leaf up to `from`, `from` included.
    fn leads_on(&mut self, from: &Certificate, below: usize) -> bool {
        let at = self.at;
        let valid = |issuer: &Certificate| issuer.not_before() <= at && at <= issuer.not_after();
        if self.anchors.contains(from)
            || self
                .anchors
                .iter()
                .any(|anchor| valid(anchor) && from.is_issued_by(anchor))
        {
            return true;
        }
        let issues = |issuer: &Certificate| {
            issuer.is_authority()
                && issuer.path_length().is_none_or(|limit| below <= limit)
                && valid(issuer)
                && from.is_issued_by(issuer)
        };
        while let Some(found) = self.others.iter().position(|issuer| issues(issuer)) {
            let issuer = self.others.swap_remove(found);
            if self.leads_on(issuer, below + 1) {
                return true;
            }
        }
        false
    }
}
