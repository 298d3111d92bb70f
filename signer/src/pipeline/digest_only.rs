//! Hash-only: the document never leaves the branch. The caller has prepared it with the same engine and shows the digest of
//! its SignedInfo; here it is signed and checked, and nothing else can be said of it.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use muhurdar_pool::SignInput;
use muhurdar_xades::{DigestAlgorithm, DocumentType, KeyType, SignatureAlgorithm};

use super::{Pipeline, Receipt, hash};
use crate::{
    admission::{Admitted, Caller, Errand, Visit},
    config::{Call, Priority},
    outside::Outside,
    refusal::{Refusal, SealId},
    trace,
};

/// What a hash-only call asks for.
#[derive(Debug)]
pub struct DigestRequest {
    /// VKN or TCKN.
    pub taxpayer: String,
    /// Digest of the canonical SignedInfo.
    pub digest: Vec<u8>,
    /// By which it was made, and the seal's signature is.
    pub algorithm: DigestAlgorithm,
    /// The certificate that the SignedInfo was made for.
    pub certificate: SealId,
    /// What the caller says it is, for the receipt.
    pub document_type: Option<DocumentType>,
    /// What the caller says its identifier is, for the receipt.
    pub document_id: Option<Outside>,
    /// How urgent it is.
    pub priority: Priority,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
}

/// What it gets.
#[derive(Debug)]
pub struct SignedDigest {
    /// The signature value, checked.
    pub value: Vec<u8>,
    /// Who signed what with which key.
    pub receipt: Receipt,
    /// The request's share of the limits.
    pub admitted: Admitted,
}

impl Pipeline {
    /// Signs a digest with a taxpayer's seal, or says why not. One that has been let in before brings its visit.
    ///
    /// # Errors
    /// Every row of the contract's error table that does not concern a document.
    pub async fn sign_digest(
        &self,
        caller: &Caller,
        request: DigestRequest,
        visit: Option<Visit>,
    ) -> Result<SignedDigest, Refusal> {
        let (document_type, priority, begun) = (request.document_type, request.priority, Instant::now());
        let outcome = self.sign_digest_unmeasured(caller, request, visit).await;
        match &outcome {
            Ok(signed) => {
                self.metrics.sealed(signed.receipt.document_type);
                self.metrics.took(priority, begun.elapsed());
            }
            Err(refusal) => self.metrics.refused(refusal, document_type),
        }
        outcome
    }

    async fn sign_digest_unmeasured(
        &self,
        caller: &Caller,
        request: DigestRequest,
        visit: Option<Visit>,
    ) -> Result<SignedDigest, Refusal> {
        caller.may(Call::Digest)?;
        // Who has no seal, or one of another kind, is told so before anything is waited for.
        let certain = Some(request.certificate);
        let seal = self
            .seal_of(caller, &request.taxpayer, certain, Timestamp::now())
            .map_err(of_a_digest)?;
        let algorithm = algorithm(seal.certificate.key_type(), request.algorithm)?;
        let errand = Errand {
            priority: request.priority,
            bytes: request.digest.len(),
            deadline: request.deadline,
        };
        let mut admitted = match visit {
            None => self.door.admit(caller, errand).await?,
            Some(visit) => {
                let deadline = Some(visit.deadline());
                self.door.turn(caller, visit, Errand { deadline, ..errand }).await?
            }
        };

        // It is the same certificate, but its time may be over.
        let now = Timestamp::now();
        let seal = self
            .seal_of(caller, &request.taxpayer, certain, now)
            .map_err(of_a_digest)?;
        let input = SignInput::digest(hash(algorithm.digest())?, &request.digest)?;
        let key = seal.certificate.public_key();
        let check = |value: &[u8]| {
            let verified = key.verify_prehashed(algorithm, &request.digest, value);
            verified.ok().map(|()| value.to_vec())
        };
        let (token, value) = self.signature(&seal, input, &admitted, check).await?;
        admitted.signed();
        let receipt = Receipt {
            id: trace::request_id(),
            client: Arc::clone(&caller.name),
            used: seal,
            document_type: request.document_type,
            document_id: request.document_id,
            algorithm: algorithm.uri(),
            token,
            sealed_at: now.into(),
        }
        .issue();
        Ok(SignedDigest {
            value,
            receipt,
            admitted,
        })
    }
}

/// What a digest's request calls the field.
fn of_a_digest(mut refusal: Refusal) -> Refusal {
    if let Refusal::CertificateChanged { field, .. } = &mut refusal {
        *field = "certificate_sha256";
    }
    refusal
}

/// The signature algorithm of a key with a digest: a curve takes only its own.
fn algorithm(key: KeyType, digest: DigestAlgorithm) -> Result<SignatureAlgorithm, Refusal> {
    let algorithm = SignatureAlgorithm::for_key_with(key, digest);
    if algorithm.digest() == digest {
        return Ok(algorithm);
    }
    let bits = |digest: DigestAlgorithm| digest.output_len() * 8;
    Err(Refusal::Request {
        field: "digest_algorithm",
        problem: format!(
            "is SHA-{}; this seal signs by SHA-{}",
            bits(digest),
            bits(algorithm.digest())
        ),
    })
}
