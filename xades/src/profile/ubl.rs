//! The UBL family: `ext:UBLExtensions/ext:UBLExtension/ext:ExtensionContent/ds:Signature` (UBL-TR 1.2.1).
//!
//! Whom the document names as its sealer stands in `cac:Signature`, as its `cbc:ID` and as its `cac:SignatoryParty`; else it
//! is the party that issues it: the supplier of an invoice or a despatch advice, the one who received the goods in a receipt
//! advice, the sender of an answer.

use super::{Element, Family, Field, Node, Party, Register, Role, node};
use crate::scope::Ns;

const EXTENSIONS: Element = (Ns::EXT, "UBLExtensions");
const EXTENSION: Element = (Ns::EXT, "UBLExtension");
const CONTENT: Element = (Ns::EXT, "ExtensionContent");

const NO_PLACE: &str = "the document has no content; a UBL document begins with ext:UBLExtensions";

/// Where everything stands; `deep` says whether there is a `cac:Party` inside the issuing party.
const fn nodes(issuer: &'static str, deep: bool) -> [Node; 17] {
    let party = if deep { 14 } else { 13 };
    [
        node(0, Ns::NONE, "", Role::Prepend(&[EXTENSIONS, EXTENSION, CONTENT])),
        node(0, Ns::EXT, "UBLExtensions", Role::Append(&[EXTENSION, CONTENT])),
        node(1, Ns::EXT, "UBLExtension", Role::Step),
        node(2, Ns::EXT, "ExtensionContent", Role::Slot),
        node(0, Ns::CBC, "ID", Role::Text(Field::DocumentId)),
        node(0, Ns::CAC, "Signature", Role::Names(Party::Signer)),
        node(5, Ns::CBC, "ID", Role::Name(Party::Signer, Register::Tax)),
        node(5, Ns::CAC, "SignatoryParty", Role::Step),
        node(7, Ns::CAC, "PartyIdentification", Role::Step),
        node(8, Ns::CBC, "ID", Role::Name(Party::Signer, Register::Scheme)),
        node(5, Ns::CAC, "DigitalSignatureAttachment", Role::Step),
        node(10, Ns::CAC, "ExternalReference", Role::Step),
        node(11, Ns::CBC, "URI", Role::Text(Field::SignatureUri)),
        node(0, Ns::CAC, issuer, Role::Step),
        node(13, Ns::CAC, "Party", Role::Step),
        node(party, Ns::CAC, "PartyIdentification", Role::Step),
        node(15, Ns::CBC, "ID", Role::Name(Party::Identity, Register::Scheme)),
    ]
}

static ACCOUNTING_SUPPLIER_NODES: [Node; 17] = nodes("AccountingSupplierParty", true);
static DESPATCH_SUPPLIER_NODES: [Node; 17] = nodes("DespatchSupplierParty", true);
static DELIVERY_CUSTOMER_NODES: [Node; 17] = nodes("DeliveryCustomerParty", true);
static SENDER_NODES: [Node; 17] = nodes("SenderParty", false);

/// Invoice and CreditNote.
pub(super) static ACCOUNTING_SUPPLIER: Family = Family {
    nodes: &ACCOUNTING_SUPPLIER_NODES,
    no_place: NO_PLACE,
};
/// DespatchAdvice.
pub(super) static DESPATCH_SUPPLIER: Family = Family {
    nodes: &DESPATCH_SUPPLIER_NODES,
    no_place: NO_PLACE,
};
/// ReceiptAdvice: the one who received the goods answers.
pub(super) static DELIVERY_CUSTOMER: Family = Family {
    nodes: &DELIVERY_CUSTOMER_NODES,
    no_place: NO_PLACE,
};
/// ApplicationResponse.
pub(super) static SENDER: Family = Family {
    nodes: &SENDER_NODES,
    no_place: NO_PLACE,
};
