//! `muhurdar verify`: seals in files, each with what it says or why it fails.

use std::path::{Path, PathBuf};

use clap::Args;
use muhurdar_xades::{Certificate, Verified, VerifyOptions, verify, verify::Chain};

use super::{Failure, exit};

/// `muhurdar verify FILE... [--trust PEM]`
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Sealed documents
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Certificates (PEM) that the sealing certificate must chain to; without it the chain is not checked
    #[arg(long, value_name = "PEM")]
    trust: Vec<PathBuf>,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut trust = Vec::new();
        for path in &self.trust {
            trust.extend(read_pem(path)?);
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

fn read_pem(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let pem = std::fs::read(path).map_err(|e| Failure::io(path.display(), &e))?;
    let certificates = Certificate::all_from_pem(&pem);
    match certificates {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Failure::usage(format_args!(
            "{}: holds no certificate (PEM)",
            path.display()
        ))),
        Err(error) => Err(Failure::usage(format_args!("{}: {error}", path.display()))),
    }
}
