//! Where each family carries its seal: the names from the root to the signature's parent, all of them.

use super::error::Failure;
use super::tree::Step;
use crate::DocumentType;
use crate::scope::Ns;

/// Whether the signature stands in the right place of its family. `path` leads from the root to its parent.
pub(super) fn check(document_type: DocumentType, path: &[Step]) -> Result<(), Failure> {
    let (family, place): (_, &[(Ns, &str)]) = match document_type {
        DocumentType::Invoice
        | DocumentType::CreditNote
        | DocumentType::DespatchAdvice
        | DocumentType::ReceiptAdvice
        | DocumentType::ApplicationResponse => (
            "a UBL document (ext:UBLExtensions/ext:UBLExtension/ext:ExtensionContent, below the root)",
            &[
                (Ns::EXT, "UBLExtensions"),
                (Ns::EXT, "UBLExtension"),
                (Ns::EXT, "ExtensionContent"),
            ],
        ),
        DocumentType::EArsivReport => ("an e-Arşiv report (baslik)", &[(Ns::EARSIV, "baslik")]),
        DocumentType::EDefterLedger | DocumentType::EDefterBerat => ("an e-Defter (the root element)", &[]),
        DocumentType::UserAccount => (
            "a user account document (oa:ApplicationArea/oa:Signature)",
            &[(Ns::OAGIS, "ApplicationArea"), (Ns::OAGIS, "Signature")],
        ),
    };
    let below_root = path.get(1..).unwrap_or_default();
    let is = |(step, place): (&Step, &(Ns, &str))| step.0 == place.0 && step.1 == place.1;
    if below_root.len() == place.len() && below_root.iter().zip(place).all(is) {
        Ok(())
    } else {
        Err(Failure::Place(family))
    }
}
