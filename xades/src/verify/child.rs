//! Reaching into the tree: a child that must be there once, what its text says, and the failure where it is not so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{Failure, Located};
use super::tree::Node;
use crate::scope::Ns;

pub(super) fn one<'t>(parent: &'t Node, ns: Ns, local: &str, what: &'static str) -> Result<&'t Node, Located> {
    at_most_one(parent, ns, local, what)?.ok_or((Failure::Missing(what), parent.ordinal))
}

pub(super) fn at_most_one<'t>(
    parent: &'t Node,
    ns: Ns,
    local: &str,
    what: &'static str,
) -> Result<Option<&'t Node>, Located> {
    let mut all = parent.all(ns, local);
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        (_, Some(second)) => Err((Failure::Doubled(what), second.ordinal)),
    }
}

pub(super) fn structure(node: &Node, what: &'static str) -> Located {
    (Failure::Structure(what), node.ordinal)
}

/// xs:base64Binary: white space anywhere.
pub(super) fn base64(node: &Node, what: &'static str) -> Result<Vec<u8>, Located> {
    let compact: String = node.text.split([' ', '\t', '\n', '\r']).collect();
    if !node.children.is_empty() || compact.is_empty() {
        return Err((Failure::Value(what), node.ordinal));
    }
    STANDARD
        .decode(compact)
        .map_err(|_| (Failure::Value(what), node.ordinal))
}
