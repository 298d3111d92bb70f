//! From a certificate to a trust anchor.

use jiff::Timestamp;

use crate::certificate::Certificate;

/// Certificates between a leaf and its anchor; Kamu SM has one or two.
const MAX_PATH: usize = 6;

/// Whether a path leads from `leaf` to one of `anchors`, over `others` where needed: each issued by the next, each
/// issuer an authority, all valid at `at` (RFC 5280 section 6, without policies and name constraints, which Kamu SM's
/// certificates do not have). An anchor is believed as it is. Revocation is not asked.
pub(super) fn leads_to_anchor(
    leaf: &Certificate,
    others: &[Certificate],
    anchors: &[Certificate],
    at: Timestamp,
) -> bool {
    climb(leaf, others, anchors, at, MAX_PATH)
}

fn climb(from: &Certificate, others: &[Certificate], anchors: &[Certificate], at: Timestamp, left: usize) -> bool {
    if anchors.contains(from) {
        return true;
    }
    let valid = |issuer: &Certificate| issuer.not_before() <= at && at <= issuer.not_after();
    if anchors.iter().any(|anchor| valid(anchor) && from.is_issued_by(anchor)) {
        return true;
    }
    left > 0
        && others.iter().any(|issuer| {
            issuer != from
                && issuer.is_authority()
                && valid(issuer)
                && from.is_issued_by(issuer)
                && climb(issuer, others, anchors, at, left - 1)
        })
}
