//! `muhurdar token import`: a certificate beside its key, or a PKCS#12 with both, for tests.

use std::path::{Path, PathBuf};

use clap::Args;
use muhurdar_pool::admin::{ObjectKind, Token};
use muhurdar_xades::{
    Certificate,
    pem::{self, Kind},
};
use p12_keystore::Pkcs12Archive;
use zeroize::Zeroizing;

use super::{Failure, Which, cka_id, token_failure};
use crate::credentials;

/// `muhurdar token import`
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    which: Which,
    /// A certificate (PEM or DER), or a PKCS#12 (.pfx, .p12)
    file: PathBuf,
    /// File with the password of the PKCS#12
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// Environment variable with the password of the PKCS#12
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// CKA_LABEL [default: VKN and SIGN0, or ENCR0 for an encryption certificate]
    #[arg(long)]
    label: Option<String>,
    /// CKA_ID in hexadecimal [default: that of the certificate's key on the token, else the label's bytes]
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
}

impl Import {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let bytes = Zeroizing::new(std::fs::read(&self.file).map_err(|e| Failure::io(self.file.display(), &e))?);
        let named = self
            .file
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("pfx") || e.eq_ignore_ascii_case("p12"));
        let found = pem::items(&bytes).unwrap_or_default();
        if named || found.iter().any(|item| item.kind == Kind::Pkcs12) {
            self.pkcs12(&bytes)?;
        } else {
            self.certificate(&bytes)?;
        }
        self.which.announce()
    }

    /// Of several certificates the one that belongs to a key on the token, wherever in the file it stands.
    fn certificate(&self, bytes: &[u8]) -> Result<(), Failure> {
        let usage =
            |problem: &dyn std::fmt::Display| Failure::usage(format_args!("{}: {problem}", self.file.display()));
        let bundle = Certificate::all_of(bytes).map_err(|e| usage(&e))?;
        let taxpayers = bundle.certificates.iter().find(|c| c.taxpayer().is_some());
        let Some(likely) = taxpayers.or(bundle.certificates.first()) else {
            return Err(Failure::usage(credentials::passed_over(&self.file, &bundle).join("\n")));
        };
        let token = self.which.log_in()?;
        let objects = token.objects().map_err(|e| token_failure(&e))?;
        let own = bundle.certificates.iter().find_map(|certificate| {
            let public = objects.iter().filter(|o| o.kind == ObjectKind::PublicKey);
            let mut own = public.filter(|o| o.der.as_deref() == Some(certificate.spki_der()));
            own.next().map(|o| (certificate, o.cka_id.clone()))
        });
        let (certificate, own) = own.map_or((likely, None), |(certificate, id)| (certificate, Some(id)));
        let label = self.label(certificate);
        let id = match (&self.id, own) {
            (None, Some(own)) => own,
            (None, None) => {
                return Err(Failure::usage(
                    "no key on the token has this certificate's public key; where the token hides its public keys, \
                     name the key's CKA_ID with --id",
                ));
            }
            (Some(id), _) => cka_id(Some(id), &label)?,
        };
        put(&token, certificate, &label, &id)
    }

    fn pkcs12(&self, bytes: &[u8]) -> Result<(), Failure> {
        let password = self.password()?;
        let archive = Pkcs12Archive::from_pkcs12(bytes, &password)
            .map_err(|e| Failure::usage(format_args!("{}: {e}; is the password right?", self.file.display())))?;
        if archive.keys.is_empty() {
            return Err(Failure::usage(format_args!(
                "{}: holds no private key",
                self.file.display()
            )));
        }
        let token = self.which.log_in()?;
        eprintln!(
            "muhurdar: a key that has been in a file is a test key; a real seal is made on the token (keygen, csr)"
        );
        for (index, key) in archive.keys.iter().enumerate() {
            let certificate = certificate_of(&archive, key.local_key_id.as_ref().map(AsRef::as_ref));
            let certificate = certificate.as_ref();
            let label = match (certificate, &self.label) {
                (Some(certificate), _) => self.label(certificate),
                (None, Some(label)) => label.clone(),
                (None, None) => format!("imported-{index}"),
            };
            let id = cka_id(self.id.as_deref(), &label)?;
            let public = token
                .import_private_key(key.key.as_der(), &label, &id)
                .map_err(|e| token_failure(&e))?;
            match certificate {
                Some(certificate) if certificate.spki_der() != public => {
                    token.delete(&id).map_err(|e| token_failure(&e))?;
                    return Err(Failure::usage(format_args!(
                        "{}: key and certificate do not belong together",
                        self.file.display()
                    )));
                }
                Some(certificate) => put(&token, certificate, &label, &id)?,
                None => println!("imported key {label}, without a certificate"),
            }
        }
        Ok(())
    }

    fn password(&self) -> Result<Zeroizing<String>, Failure> {
        match (&self.password_file, &self.password_env) {
            (Some(path), _) => {
                let text = Zeroizing::new(read(path)?);
                Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (None, Some(name)) => std::env::var(name)
                .map(Zeroizing::new)
                .map_err(|e| Failure::usage(format_args!("--password-env {name}: {e}"))),
            (None, None) => Ok(Zeroizing::default()),
        }
    }

    fn label(&self, certificate: &Certificate) -> String {
        self.label.clone().unwrap_or_else(|| {
            let taxpayer = certificate.taxpayer().unwrap_or("UNKNOWN");
            let purpose = if certificate.fits_profile().is_ok() {
                "SIGN0"
            } else {
                "ENCR0"
            };
            format!("{taxpayer}{purpose}")
        })
    }
}

/// The certificate of a key: by localKeyId (RFC 7292, section 4.2), else the one that names a taxpayer.
fn certificate_of(archive: &Pkcs12Archive, key_id: Option<&[u8]>) -> Option<Certificate> {
    let parsed = |der: &[u8]| Certificate::from_der(der).ok();
    let by_id = archive
        .certs
        .iter()
        .find(|c| key_id.is_some() && c.local_key_id.as_deref() == key_id);
    by_id.and_then(|c| parsed(c.cert.as_der())).or_else(|| {
        archive
            .certs
            .iter()
            .filter_map(|c| parsed(c.cert.as_der()))
            .find(|c| c.taxpayer().is_some())
    })
}

fn put(token: &Token, certificate: &Certificate, label: &str, id: &[u8]) -> Result<(), Failure> {
    token
        .import_certificate(certificate.der(), label, id)
        .map_err(|e| token_failure(&e))?;
    let taxpayer = certificate.taxpayer().unwrap_or("nobody by number");
    match certificate.fit_for_sealing(jiff::Timestamp::now()) {
        Ok(()) => println!(
            "imported {label}: seals for {taxpayer} until {}",
            certificate.not_after()
        ),
        Err(unfit) => println!("imported {label}: {taxpayer}, but it cannot seal: {unfit}"),
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::io(path.display(), &e))
}
