//! Documents of the tests' own.

/// The first test taxpayer of `muhurdar dev`: RSA-2048.
pub const RSA: &str = "1000000000";
/// The third of three: EC P-384.
pub const EC: &str = "1000000026";

/// An invoice that names this sealer, with `content` at the end of its root.
#[must_use]
pub fn invoice(sealer: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Invoice xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Invoice-2\" \
         xmlns:cac=\"urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2\" \
         xmlns:cbc=\"urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2\" \
         xmlns:ext=\"urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2\">\n\
         <ext:UBLExtensions><ext:UBLExtension><ext:ExtensionContent/></ext:UBLExtension></ext:UBLExtensions>\n\
         <cbc:ID>TST2026000000001</cbc:ID>\n\
         <cac:Signature><cbc:ID schemeID=\"VKN_TCKN\">{sealer}</cbc:ID></cac:Signature>\n\
         {content}</Invoice>\n"
    )
}

/// The taxpayer whom a document names in `cac:Signature`. Only the digits are read, which every encoding here that is
/// not UTF-16 has as ASCII.
#[must_use]
pub fn sealer_of(document: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(document);
    let (_, rest) = text.split_once("schemeID=\"VKN_TCKN\">")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() >= 10).then_some(digits)
}
