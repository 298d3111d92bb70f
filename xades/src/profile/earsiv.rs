//! The e-Arşiv report: the seal is the last child of `baslik` (EArsiv.xsd, `baslikType`).

use super::{Family, Field, Node, Party, Register, Role, node};
use crate::scope::Ns;

static NODES: [Node; 9] = [
    node(0, Ns::EARSIV, "eArsivRaporu", Role::Step),
    node(0, Ns::EARSIV, "baslik", Role::Append(&[])),
    node(1, Ns::EARSIV, "raporNo", Role::Text(Field::DocumentId)),
    // Who prepared the report seals it: the taxpayer itself, or its integrator.
    node(1, Ns::EARSIV, "hazirlayan", Role::Names(Party::Identity)),
    node(3, Ns::EARSIV, "vkn", Role::Name(Party::Identity, Register::Tax)),
    node(3, Ns::EARSIV, "tckn", Role::Name(Party::Identity, Register::Tax)),
    node(1, Ns::EARSIV, "mukellef", Role::Names(Party::IdentityElse)),
    node(6, Ns::EARSIV, "vkn", Role::Name(Party::IdentityElse, Register::Tax)),
    node(6, Ns::EARSIV, "tckn", Role::Name(Party::IdentityElse, Register::Tax)),
];

/// The report.
pub(super) static REPORT: Family = Family {
    nodes: &NODES,
    no_place: "the report has no baslik, whose last child the seal must be",
};
