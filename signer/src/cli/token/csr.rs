//! `muhurdar token csr`: a certificate request whose key signs it on the token.

use std::path::PathBuf;

use clap::Args;
use muhurdar_pool::{Hash, SignInput, admin::Token};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, PublicKeyData, SignatureAlgorithm, SigningKey,
    SubjectPublicKeyInfo,
};
use x509_cert::der::{Encode as _, asn1::UintRef};

use super::{Failure, Which, cka_id, exit, token_failure};
use crate::cli::output;
use crate::config::is_taxpayer;

/// id-at-serialNumber (RFC 5280, appendix A.1): where a mali mühür certificate has the VKN.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// `muhurdar token csr`
#[derive(Debug, Args)]
pub(super) struct Csr {
    #[command(flatten)]
    which: Which,
    /// CKA_LABEL of the key
    #[arg(long)]
    label: String,
    /// CKA_ID in hexadecimal [default: the label's bytes]
    #[arg(long, value_name = "HEX")]
    id: Option<String>,
    /// VKN or TCKN, for the subject's serialNumber
    #[arg(long, value_name = "VKN")]
    taxpayer: String,
    /// The taxpayer's title, for the subject's common name
    #[arg(long)]
    title: String,
    /// Where the request (PEM) goes; without it to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Csr {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if !is_taxpayer(&self.taxpayer) {
            return Err(Failure::usage("--taxpayer: a VKN has 10 digits, a TCKN 11"));
        }
        if self
            .out
            .as_ref()
            .is_some_and(|out| output::same(out, &self.which.config))
        {
            return Err(Failure::usage(
                "--out would be written over the configuration; choose another file",
            ));
        }
        let id = cka_id(self.id.as_deref(), &self.label)?;
        let token = self.which.log_in()?;
        let spki = token.public_key(&self.label, &id).map_err(|e| token_failure(&e))?;
        let public = SubjectPublicKeyInfo::from_der(&spki).map_err(defect)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CommonName, self.title.as_str()),
            (DnType::CustomDnType(SERIAL_NUMBER.to_vec()), self.taxpayer.as_str()),
            (DnType::CountryName, "TR"),
        ] {
            params
                .distinguished_name
                .push(kind, DnValue::Utf8String(value.to_owned()));
        }
        let key = TokenKey {
            token,
            label: self.label.clone(),
            id,
            public,
        };
        let pem = params.serialize_request(&key).map_err(defect)?.pem().map_err(defect)?;
        match &self.out {
            Some(path) => output::write(path, pem.as_bytes()),
            None => {
                print!("{pem}");
                Ok(())
            }
        }
    }
}

fn defect(error: impl std::fmt::Display) -> Failure {
    Failure::new(exit::SOFTWARE, format_args!("the request could not be made: {error}"))
}

/// A key on the token, as rcgen wants to use one.
struct TokenKey {
    token: Token,
    label: String,
    id: Vec<u8>,
    public: SubjectPublicKeyInfo,
}

impl PublicKeyData for TokenKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl SigningKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let algorithm = self.public.algorithm();
        let (hash, is_ec) = if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
            (Hash::Sha384, true)
        } else if algorithm == &rcgen::PKCS_ECDSA_P521_SHA512 {
            (Hash::Sha512, true)
        } else {
            (Hash::Sha256, algorithm == &rcgen::PKCS_ECDSA_P256_SHA256)
        };
        let value = self
            .token
            .sign(&self.label, &self.id, &SignInput::message(hash, message.to_vec()))
            .map_err(|error| {
                eprintln!("muhurdar: {error}");
                rcgen::Error::RemoteKeyError
            })?;
        if is_ec {
            ecdsa_der(&value).ok_or(rcgen::Error::RemoteKeyError)
        } else {
            Ok(value)
        }
    }
}

/// r‖s, as PKCS#11 gives it, to the `ECDSA-Sig-Value` of a certificate request (RFC 3279, section 2.2.3).
fn ecdsa_der(value: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = value.split_at(value.len() / 2);
    let (r, s) = (UintRef::new(r).ok()?, UintRef::new(s).ok()?);
    let length = (r.encoded_len().ok()? + s.encoded_len().ok()?).ok()?;
    let mut der = Vec::with_capacity(u32::from(length) as usize + 4);
    x509_cert::der::Header::new(x509_cert::der::Tag::Sequence, length)
        .ok()?
        .encode(&mut der)
        .ok()?;
    r.encode(&mut der).ok()?;
    s.encode(&mut der).ok()?;
    Some(der)
}
