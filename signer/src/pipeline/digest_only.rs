//! Hash-only: the document never leaves the branch. The caller has prepared it with the same engine and shows the digest of
//! its SignedInfo; here it is signed and checked, and nothing else can be said of it.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use muhurdar_pool::SignInput;
use muhurdar_xades::{DigestAlgorithm, DocumentType, KeyType, SignatureAlgorithm};

use super::{Pipeline, Receipt, hash};
use crate::{
    admission::{Admitted, Caller, Errand},
    config::{Call, Priority},
    outside::Outside,
    refusal::Refusal,
    trace,
};

/// What a hash-only call asks for.
#[derive(Debug)]
pub struct DigestRequest {
    /// VKN or TCKN.
    pub taxpayer: String,
    /// Digest of the canonical SignedInfo, with the hash of the seal's algorithm: for RSA its length says which.
    pub digest: Vec<u8>,
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
    /// Signs a digest with a taxpayer's seal, or says why not.
    ///
    /// # Errors
    /// Every row of the contract's error table that does not concern a document.
    pub async fn seal_digest(&self, caller: &Caller, request: DigestRequest) -> Result<SignedDigest, Refusal> {
        let (document_type, priority, begun) = (request.document_type, request.priority, Instant::now());
        let outcome = self.seal_digest_unmeasured(caller, request).await;
        match &outcome {
            Ok(signed) => {
                self.metrics.sealed(signed.receipt.document_type);
                self.metrics.took(priority, begun.elapsed());
            }
            Err(refusal) => self.metrics.refused(refusal, document_type),
        }
        outcome
    }

    async fn seal_digest_unmeasured(&self, caller: &Caller, request: DigestRequest) -> Result<SignedDigest, Refusal> {
        caller.may(Call::Digest)?;
        // Who has no seal, or one of another kind, is told so before anything is waited for.
        let seal = self.seal_of(caller, &request.taxpayer, Timestamp::now())?;
        algorithm(seal.certificate.key_type(), request.digest.len())?;
        let errand = Errand {
            priority: request.priority,
            bytes: request.digest.len(),
            deadline: request.deadline,
        };
        let mut admitted = self.door.admit(caller, errand).await?;

        let now = Timestamp::now();
        let seal = self.seal_of(caller, &request.taxpayer, now)?;
        let algorithm = algorithm(seal.certificate.key_type(), request.digest.len())?;
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

/// The signature algorithm that goes with a key and a digest of so many bytes.
fn algorithm(key: KeyType, length: usize) -> Result<SignatureAlgorithm, Refusal> {
    let fits = |digest: DigestAlgorithm| {
        let algorithm = SignatureAlgorithm::for_key_with(key, digest);
        (algorithm.digest().output_len() == length).then_some(algorithm)
    };
    DigestAlgorithm::ALL.into_iter().find_map(fits).ok_or_else(|| {
        let wanted = SignatureAlgorithm::for_key(key).digest().output_len();
        Refusal::Request {
            field: "digest",
            problem: format!("has {length} bytes; this seal's algorithm wants {wanted}"),
        }
    })
}
