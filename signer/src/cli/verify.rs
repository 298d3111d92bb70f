//! `muhurdar verify`: seals in files, each with what it says or why it fails.

use std::path::{Path, PathBuf};

use clap::Args;
use muhurdar_xades::{Certificate, Verified, VerifyOptions, verify, verify::Chain};

use super::{Failure, exit};
use crate::credentials;

/// `muhurdar verify FILE... [--trust PEM]`
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Sealed documents
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Certificates (PEM or DER) that the sealing certificate must chain to; without it the chain is not checked
    #[arg(long, value_name = "PEM")]
    trust: Vec<PathBuf>,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut trust = Vec::new();
        for path in &self.trust {
            trust.extend(anchors(path)?);
        }
        let options = VerifyOptions::new(&trust, Some(jiff::Timestamp::now()));
        let mut failed = 0_usize;
        for path in &self.files {
            let document = std::fs::read(path).map_err(|e| Failure::io(path.display(), &e))?;
            match verify(&document, &options) {
                Ok(seal) => println!("{}: OK, {}", path.display(), describe(&seal)),
                Err(error) => {
                    failed += 1;
                    println!("{}: FAILED, {error}", path.display());
                }
            }
        }
        println!("{} verified, {failed} failed", self.files.len() - failed);
        if failed == 0 {
            Ok(())
        } else {
            Err(Failure::silent(exit::FAILED))
        }
    }
}

fn describe(seal: &Verified) -> String {
    let chain = match seal.chain {
        Chain::Trusted => "chain trusted",
        Chain::NotChecked => "chain not checked (--trust PEM would)",
    };
    format!(
        "{} sealed by {} ({}) at {}, {}, {chain}",
        seal.document_type.name(),
        seal.taxpayer,
        seal.certificate.title(),
        seal.signing_time_text,
        seal.certificate.key_type().name(),
    )
}

/// The anchors of a file. What cannot be one is said, and is not in the way of the others.
fn anchors(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let bundle = credentials::bundle(path).map_err(Failure::usage)?;
    let passed_over = credentials::passed_over(path, &bundle);
    if bundle.certificates.is_empty() {
        return Err(Failure::usage(passed_over.join("\n")));
    }
    for sentence in passed_over {
        eprintln!("muhurdar: {sentence}");
    }
    Ok(bundle.certificates)
}
