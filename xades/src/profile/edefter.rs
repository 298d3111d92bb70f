//! e-Defter: the seal is the last child of the root (edefter.xsd).
//!
//! A ledger carries `xbrli:xbrl` and then its seal. A berat carries, between the two, the `ds:SignatureValue` of the
//! ledger that it belongs to (or, where the ledger was too large to seal at once, its HashValue).

use super::{Family, Field, Node, Party, Register, Role, node};
use crate::scope::Ns;

const NO_PLACE: &str =
    "the seal of an e-Defter document follows xbrli:xbrl, and in a berat the ledger's ds:SignatureValue";
const HASHED: &str = "the ledger carries a HashValue, which stands in the place of the seal";

const fn nodes(hash: Role, value: Role) -> [Node; 10] {
    [
        node(0, Ns::EDEFTER, "", Role::Append(&[])),
        node(0, Ns::XBRLI, "xbrl", Role::Step),
        node(1, Ns::XBRLI, "context", Role::Step),
        node(2, Ns::XBRLI, "entity", Role::Step),
        node(3, Ns::XBRLI, "identifier", Role::Name(Party::Identity, Register::Tax)),
        node(1, Ns::GL_COR, "accountingEntries", Role::Step),
        node(5, Ns::GL_COR, "documentInfo", Role::Step),
        node(6, Ns::GL_COR, "uniqueID", Role::Text(Field::DocumentId)),
        node(0, Ns::EDEFTER, "HashValue", hash),
        node(0, Ns::DS, "SignatureValue", value),
    ]
}

static LEDGER_NODES: [Node; 10] = nodes(Role::Forbidden(HASHED), Role::Step);
static BERAT_NODES: [Node; 10] = nodes(Role::Required, Role::Required);

/// Yevmiye and kebir.
pub(super) static LEDGER: Family = Family {
    nodes: &LEDGER_NODES,
    no_place: NO_PLACE,
};
/// The berat of one.
pub(super) static BERAT: Family = Family {
    nodes: &BERAT_NODES,
    no_place: NO_PLACE,
};
