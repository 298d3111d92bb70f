//! Where each family carries its seal: the names from the root to the signature's parent, all of them.

use super::error::Failure;
use super::tree::{Found, Step};
use crate::DocumentType;
use crate::scope::Ns;

const UBL: &str = "a UBL document (ext:UBLExtensions/ext:UBLExtension/ext:ExtensionContent, below the root)";
const EARSIV: &str = "an e-Arşiv report (baslik)";
const EDEFTER: &str = "an e-Defter (the root element)";
const USER_ACCOUNT: &str = "a user account document (oa:ApplicationArea/oa:Signature)";

/// The document's type, where the signature stands in the right place of its family.
pub(super) fn check(found: &Found) -> Result<DocumentType, Failure> {
    let (ns, local) = found.root.as_ref().ok_or(Failure::DocumentType)?;
    let below_root = found.path.get(1..).unwrap_or_default();
    let (document_type, family, place): (_, _, &[(Ns, &str)]) = match (*ns, &**local) {
        (Ns::INVOICE, "Invoice") => ubl(DocumentType::Invoice),
        (Ns::CREDIT_NOTE, "CreditNote") => ubl(DocumentType::CreditNote),
        (Ns::DESPATCH_ADVICE, "DespatchAdvice") => ubl(DocumentType::DespatchAdvice),
        (Ns::RECEIPT_ADVICE, "ReceiptAdvice") => ubl(DocumentType::ReceiptAdvice),
        (Ns::APPLICATION_RESPONSE, "ApplicationResponse") => ubl(DocumentType::ApplicationResponse),
        (Ns::EARSIV, "eArsivRaporu") => (DocumentType::EArsivReport, EARSIV, &[(Ns::EARSIV, "baslik")]),
        (Ns::EDEFTER, "defter") => (DocumentType::EDefterLedger, EDEFTER, &[]),
        (Ns::EDEFTER, "berat") => (DocumentType::EDefterBerat, EDEFTER, &[]),
        (Ns::HR_XML, "ProcessUserAccount" | "CancelUserAccount") => (
            DocumentType::UserAccount,
            USER_ACCOUNT,
            &[(Ns::OAGIS, "ApplicationArea"), (Ns::OAGIS, "Signature")],
        ),
        _ => return Err(Failure::DocumentType),
    };
    let is = |(step, place): (&Step, &(Ns, &str))| step.0 == place.0 && step.1 == place.1;
    if below_root.len() == place.len() && below_root.iter().zip(place).all(is) {
        Ok(document_type)
    } else {
        Err(Failure::Place(family))
    }
}

fn ubl(document_type: DocumentType) -> (DocumentType, &'static str, &'static [(Ns, &'static str)]) {
    let place = &[
        (Ns::EXT, "UBLExtensions"),
        (Ns::EXT, "UBLExtension"),
        (Ns::EXT, "ExtensionContent"),
    ];
    (document_type, UBL, place)
}
