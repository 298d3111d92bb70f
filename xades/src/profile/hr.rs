//! HR-XML user account messages: the seal stands in `oa:ApplicationArea/oa:Signature` and carries a counter-signature
//! (OAGIS 9: `Sender`, `Receiver`, `CreationDateTime`, `Signature`, `BODID`, `UserArea`).

use super::{Element, Family, Node, Party, Register, Role, node};
use crate::scope::Ns;

const SIGNATURE: &[Element] = &[(Ns::OAGIS, "Signature")];

static NODES: [Node; 7] = [
    node(0, Ns::HR_XML, "", Role::Step),
    node(0, Ns::OAGIS, "ApplicationArea", Role::Append(SIGNATURE)),
    node(1, Ns::OAGIS, "Signature", Role::Slot),
    node(1, Ns::OAGIS, "BODID", Role::Before(SIGNATURE)),
    node(1, Ns::OAGIS, "UserArea", Role::Before(SIGNATURE)),
    node(1, Ns::OAGIS, "Sender", Role::Step),
    node(5, Ns::OAGIS, "LogicalID", Role::Name(Party::Identity, Register::Tax)),
];

/// ProcessUserAccount and CancelUserAccount.
pub(super) static USER_ACCOUNT: Family = Family {
    nodes: &NODES,
    no_place: "the message has no oa:ApplicationArea, where the seal must be",
};
