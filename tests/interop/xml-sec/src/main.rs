//! Asks the xml-sec crate about sealed files.
//!
//! usage: verify-xml-sec KEY.der < list of files, one per line
//! KEY.der is the SubjectPublicKeyInfo of the certificate that the files are to be sealed with. Prints a line per file: "ok", or "refused: " and why.

use std::io::BufRead as _;

use xml_sec::IdAttributeRegistration;
use xml_sec::xmldsig::{DsigStatus, SignatureAlgorithm, VerificationKey, VerifyContext};

type Refused = Box<dyn std::error::Error>;

fn main() -> Result<(), Refused> {
    let spki = std::fs::read(
        std::env::args_os()
            .nth(1)
            .ok_or("usage: verify-xml-sec KEY.der < files")?,
    )?;
    for file in std::io::stdin().lock().lines() {
        match verify(&file?, &spki) {
            Ok(()) => println!("ok"),
            Err(why) => println!(
                "refused: {}",
                why.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        }
    }
    Ok(())
}

fn verify(file: &str, spki: &[u8]) -> Result<(), Refused> {
    // It reads text; a document in another encoding than UTF-8 is refused here.
    let document = std::fs::read_to_string(file)?;
    let after = document
        .split_once("SignatureMethod Algorithm=\"")
        .ok_or("no SignatureMethod")?
        .1;
    let uri = after.split_once('"').ok_or("no SignatureMethod")?.0;
    let key = VerificationKey {
        algorithm: SignatureAlgorithm::from_uri(uri).ok_or("unknown SignatureMethod")?,
        public_key_bytes: spki.to_vec(),
        certificate_der: None,
        name: None,
    };
    let ids = [IdAttributeRegistration::global("Id")];
    let result = VerifyContext::new()
        .key(&key)
        .id_attributes(&ids)
        .first_document_signature()
        .verify(document.trim_start_matches('\u{feff}'))?;
    match result.status {
        DsigStatus::Valid => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
