//! A token that an operator is logged in to.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, CertificateType, ObjectClass};
use cryptoki::session::Session;
use x509_cert::der::Encode;

use super::objects::{self, Object};
use super::{Module, import};
use crate::certificate;
use crate::ckr::{CkrError, ckr};
use crate::config::{RsaMechanism, TokenConfig};
use crate::discovery;
use crate::driver::{FoundKey, SignCall, TokenFacts};
use crate::error::OpenError;
use crate::health::probe_call;
use crate::job::SignInput;
use crate::keys::{self, Curve, KeyKind, PUBLIC_PARTS};
use crate::table;

/// What kind of key pair to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generate {
    /// RSA with a modulus of 2048, 3072 or 4096 bits and the exponent 65537.
    Rsa(u32),
    /// EC on a NIST curve.
    Ec(Curve),
}

/// A login for administration: ends when it is dropped.
#[derive(Debug)]
pub struct Token {
    // Closed first: a visit to the module lasts longer than its session.
    session: Session,
    module: Module,
    name: String,
    rsa_mechanism: RsaMechanism,
    facts: TokenFacts,
}

impl Token {
    pub(super) fn new(module: Module, config: &TokenConfig, facts: TokenFacts, session: Session) -> Self {
        Self {
            module,
            name: config.name.clone(),
            rsa_mechanism: config.rsa_mechanism,
            facts,
            session,
        }
    }

    /// What the token says of itself.
    #[must_use]
    pub fn facts(&self) -> &TokenFacts {
        &self.facts
    }

    fn call<T>(&self, result: Result<T, CkrError>) -> Result<T, OpenError> {
        result.map_err(|error| OpenError::Token {
            token: self.name.clone(),
            error,
        })
    }

    fn unfit(&self, cause: impl Into<String>) -> OpenError {
        OpenError::Unfit {
            token: self.name.clone(),
            cause: cause.into(),
        }
    }

    /// Everything on the token that this login sees.
    ///
    /// # Errors
    /// Where the token does not answer.
    pub fn objects(&self) -> Result<Vec<Object>, OpenError> {
        let local = &self.module.local;
        let probe = |call: &SignCall<'_>| local.probe(self.facts.slot, &self.session, call);
        let found = self.call(discovery::discover(&self.session, &probe))?;
        self.call(objects::list(&self.session, &found))
    }

    /// Makes a key pair that never leaves the token: private, sensitive, not extractable, for signing only. Answers its
    /// SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// Where the size is none of those allowed, the CKA_ID is taken, or the token refuses.
    pub fn generate(&self, what: Generate, label: &str, cka_id: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.must_be_free(cka_id)?;
        let mut public = vec![
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(cka_id.to_vec()),
        ];
        let mechanism = match what {
            Generate::Rsa(bits @ (2048 | 3072 | 4096)) => {
                public.push(Attribute::ModulusBits(u64::from(bits).into()));
                public.push(Attribute::PublicExponent(vec![1, 0, 1]));
                Mechanism::RsaPkcsKeyPairGen
            }
            Generate::Rsa(bits) => {
                return Err(self.unfit(format!(
                    "an RSA key of {bits} bits is not made; 2048, 3072 and 4096 are"
                )));
            }
            Generate::Ec(curve) => {
                let oid = curve.oid().to_der().map_err(|e| self.unfit(e.to_string()))?;
                public.push(Attribute::EcParams(oid));
                Mechanism::EccKeyPairGen
            }
        };
        let private = private_template(label, cka_id);
        let (public, _) = self.call(
            self.session
                .generate_key_pair(&mechanism, &public, &private)
                .map_err(|e| ckr(&e)),
        )?;
        let read = self.call(keys::read(&self.session, public, &PUBLIC_PARTS))?;
        read.spki()
            .ok_or_else(|| self.unfit("the token made a key and does not show its public half"))
    }

    /// A key's SubjectPublicKeyInfo, DER, by its CKA_ID; where several have that, by their labels too.
    ///
    /// # Errors
    /// Where there is no such key that can sign, or more than one.
    pub fn public_key(&self, label: &str, cka_id: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.key(label, cka_id).map(|key| key.spki_der)
    }

    fn key(&self, label: &str, cka_id: &[u8]) -> Result<FoundKey, OpenError> {
        let probe = |call: &SignCall<'_>| self.module.local.probe(self.facts.slot, &self.session, call);
        let mut found = self.call(discovery::discover(&self.session, &probe))?;
        found.retain(|key| key.cka_id == cka_id);
        if found.len() > 1 {
            found.retain(|key| key.label == label);
        }
        let id = keys::hex(cka_id);
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(self.unfit(format!(
                "no key is called {label} and has CKA_ID {id}; `muhurdar token list` shows those that are there (--label, --id)"
            ))),
            (Some(_), false) => Err(self.unfit(format!(
                "several keys are called {label} and have CKA_ID {id}; give one of them another label (pkcs11-tool or the vendor's tool)"
            ))),
            (Some(key), true) => match key.refused {
                Some(why) => Err(self.unfit(format!("the key {label} cannot sign: {why}"))),
                None => Ok(key),
            },
        }
    }

    /// Puts a certificate beside its key.
    ///
    /// # Errors
    /// Where it is no certificate, or the token refuses.
    pub fn import_certificate(&self, certificate_der: &[u8], label: &str, cka_id: &[u8]) -> Result<(), OpenError> {
        let parts = certificate::parts(certificate_der).map_err(|e| self.unfit(format!("not a certificate: {e}")))?;
        let template = [
            Attribute::Class(ObjectClass::CERTIFICATE),
            Attribute::CertificateType(CertificateType::X_509),
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(cka_id.to_vec()),
            Attribute::Subject(parts.subject.to_vec()),
            Attribute::Issuer(parts.issuer.to_vec()),
            Attribute::SerialNumber(parts.serial_number.to_vec()),
            Attribute::Value(certificate_der.to_vec()),
        ];
        self.call(self.session.create_object(&template).map_err(|e| ckr(&e)))?;
        Ok(())
    }

    /// Brings a private key from outside (PKCS#8, DER), as the PKCS#12 files of test seals hold it, and its public key beside it. On the token it is
    /// sensitive and not extractable; that it was elsewhere before shows in CKA_LOCAL and CKA_NEVER_EXTRACTABLE. Answers its
    /// SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// Where the key cannot be read, its CKA_ID is taken, or the token refuses.
    pub fn import_private_key(&self, pkcs8_der: &[u8], label: &str, cka_id: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.must_be_free(cka_id)?;
        let parts = import::parse(pkcs8_der).map_err(|why| self.unfit(why))?;
        let mut private = private_template(label, cka_id);
        private.extend(parts.private);
        let mut public = vec![
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(cka_id.to_vec()),
        ];
        public.extend(parts.public);
        self.call(self.session.create_object(&private).map_err(|e| ckr(&e)))?;
        let public = self.call(self.session.create_object(&public).map_err(|e| ckr(&e)))?;
        let read = self.call(keys::read(&self.session, public, &PUBLIC_PARTS))?;
        read.spki()
            .ok_or_else(|| self.unfit("the token took a key and does not show its public half"))
    }

    /// Signs once, as a key ceremony does for a certificate request: PKCS#1 v1.5, or r‖s. What does not verify is not released.
    ///
    /// # Errors
    /// Where there is no such key, or the token refuses, or answers with a signature that is none.
    pub fn sign(&self, label: &str, cka_id: &[u8], input: &SignInput) -> Result<Vec<u8>, OpenError> {
        let key = self.key(label, cka_id)?;
        let kind = KeyKind::of_spki(&key.spki_der).ok_or_else(|| self.unfit("the key is of no type that can seal"))?;
        let mut data = Vec::new();
        let mechanism = probe_call(kind, self.rsa_mechanism, input, &mut data);
        let call = SignCall {
            handle: key.handle,
            mechanism,
            data: &data,
            length: kind.signature_len(),
        };
        let value = self.call(self.module.local.sign(&self.session, &call))?.value;
        if table::verifies(kind, &key.spki_der, input, &value) {
            Ok(value)
        } else {
            Err(self.unfit("it gave a signature that does not verify with the public key; nothing was made of it"))
        }
    }

    /// Deletes everything with this CKA_ID: key pair and certificates. Answers how many objects.
    ///
    /// # Errors
    /// Where the token refuses.
    pub fn delete(&self, cka_id: &[u8]) -> Result<usize, OpenError> {
        let objects = self.call(
            self.session
                .find_objects(&[Attribute::Token(true), Attribute::Id(cka_id.to_vec())])
                .map_err(|e| ckr(&e)),
        )?;
        for object in &objects {
            self.call(self.session.destroy_object(*object).map_err(|e| ckr(&e)))?;
        }
        Ok(objects.len())
    }

    fn must_be_free(&self, cka_id: &[u8]) -> Result<(), OpenError> {
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Token(true),
            Attribute::Id(cka_id.to_vec()),
        ];
        let taken = self.call(self.session.find_objects(&template).map_err(|e| ckr(&e)))?;
        if taken.is_empty() {
            Ok(())
        } else {
            Err(self.unfit(format!(
                "CKA_ID {} is taken; give the new key another (--id)",
                keys::hex(cka_id)
            )))
        }
    }
}

/// A key for signing that stays where it is.
fn private_template(label: &str, cka_id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(cka_id.to_vec()),
    ]
}
