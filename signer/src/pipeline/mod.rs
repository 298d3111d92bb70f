//! One document's way through the service, from top to bottom: admit → digest → sign → check → splice.
//!
//! Each step is another room; this one only knows their order.

mod digest_only;
mod large;
mod receipt;
mod rules;

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use muhurdar_pool::{Hash, Pool, SignError, SignInput, Signed};
use muhurdar_xades::{self as xades, DigestAlgorithm, DocumentType, Policy, Prepared, Sealer, Sealing};

pub(crate) use self::large::{Large, MAX_PIECE};
pub use self::{
    digest_only::{DigestRequest, SignedDigest},
    large::{Incoming, LargeRequest, LargeSealed, Outgoing, Whole},
    receipt::Receipt,
    rules::Rules,
};
use crate::{
    admission::{Admitted, Caller, Door, Errand, Gate, Visit},
    catalogue::Catalogue,
    compute::Compute,
    config::{Call, Priority, UnnamedSealer, is_taxpayer},
    idempotency::Idempotency,
    outside::Outside,
    refusal::{LATER, Refusal, SealId, hex},
    seals::Seal,
    telemetry::{self, Metrics, Stage},
    trace::{self, Recorder},
};

/// What one call asks for.
#[derive(Debug)]
pub struct Request {
    /// VKN or TCKN.
    pub taxpayer: String,
    /// The document as it came.
    pub document: Bytes,
    /// What its root must be; none: whatever is found.
    pub expect: Option<DocumentType>,
    /// The certificate that must seal it; none: the one that seals now.
    pub certificate: Option<SealId>,
    /// Whether the whole sealed document is wanted back, or only the seal.
    pub whole: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
}

/// What one call gets.
#[derive(Debug)]
pub struct Sealed {
    /// The sealed document, where it was asked for.
    pub document: Option<Vec<u8>>,
    /// The seal itself and its place.
    pub seal: xades::Seal,
    /// `xades:SigningTime` as written.
    pub signing_time: String,
    /// SHA-256 of the sealed document.
    pub sha256: [u8; 32],
    /// Who sealed what with which key.
    pub receipt: Receipt,
    /// The document's share of the limits, held until the answer is handed to the wire.
    pub admitted: Admitted,
}

/// The rooms in their order.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) gate: Arc<Gate>,
    pub(crate) door: Door,
    pub(crate) answers: Arc<Idempotency>,
    pub(crate) seals: Catalogue,
    pub(crate) pool: Pool,
    pub(crate) compute: Compute,
    pub(crate) large: Large,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) rules: ArcSwap<Rules>,
    /// Whether any token wants the message itself.
    pub(crate) tokens_hash: bool,
}

impl Pipeline {
    /// Whether new work can be sealed now.
    ///
    /// # Errors
    /// Says why not.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.gate.is_closed() {
            return Err("draining\n");
        }
        if !self.pool.status().is_ready() {
            return Err("no token can sign\n");
        }
        if !telemetry::takes_lines_of_seals() {
            return Err("the log takes no more lines (log.when_full = \"block\")\n");
        }
        Ok(())
    }

    /// Seals a document, or says why not. One that has been let in before brings its visit.
    ///
    /// # Errors
    /// Every row of the contract's error table that concerns a document.
    pub async fn seal(&self, caller: &Caller, request: Request, visit: Option<Visit>) -> Result<Sealed, Refusal> {
        let (document_type, priority, begun) = (request.expect, request.priority, Instant::now());
        let outcome = self.seal_unmeasured(caller, request, visit).await;
        match &outcome {
            Ok(sealed) => {
                self.metrics.sealed(sealed.receipt.document_type);
                self.metrics.took(priority, begun.elapsed());
            }
            Err(refusal) => self.metrics.refused(refusal, document_type),
        }
        outcome
    }

    async fn seal_unmeasured(
        &self,
        caller: &Caller,
        request: Request,
        visit: Option<Visit>,
    ) -> Result<Sealed, Refusal> {
        caller.may(Call::Seal)?;
        // Who has no seal is told so before anything is waited for.
        self.seal_of(caller, &request.taxpayer, request.certificate, Timestamp::now())?;
        let errand = Errand {
            priority: request.priority,
            bytes: request.document.len(),
            deadline: request.deadline,
        };
        let mut admitted = match visit {
            None => self.door.admit(caller, errand).await?,
            Some(visit) => {
                let deadline = Some(visit.deadline());
                self.door.turn(caller, visit, Errand { deadline, ..errand }).await?
            }
        };

        // Which certificate seals, and when, is a matter of now and not of when the queue was entered.
        let now = Timestamp::now();
        let seal = self.seal_of(caller, &request.taxpayer, request.certificate, now)?;
        let document = request.document;
        let rules = self.rules.load_full();
        let policy = rules.forms.policy(&caller.name, &request.taxpayer);
        let (limits, expect) = (rules.limits.clone(), request.expect);
        let prepared = self
            .digest(document.clone(), &seal, policy, limits, expect, now)
            .await?;
        caller.may_have_sealed(prepared.document_type())?;
        right_taxpayer(prepared.sealer(), &request.taxpayer, rules.unnamed_sealer)?;
        let described = Described::of(&prepared);
        let (token, element) = self.sign(prepared, &seal, &admitted).await?;
        admitted.signed();
        let (document, element, sha256) = self.splice(document, element, request.whole).await?;
        let receipt = Receipt {
            id: trace::request_id(),
            client: Arc::clone(&caller.name),
            used: seal,
            document_type: Some(described.document_type),
            document_id: described.document_id,
            algorithm: described.algorithm,
            token,
            sealed_at: now.into(),
        }
        .issue_for(&sha256);
        Ok(Sealed {
            document,
            seal: element,
            signing_time: described.signing_time,
            sha256,
            receipt,
            admitted,
        })
    }

    /// Whether a caller may make this call with this taxpayer's seal.
    ///
    /// # Errors
    /// ACCESS where not, SEAL_UNKNOWN where there is none.
    pub fn permits(&self, caller: &Caller, call: Call, taxpayer: &str) -> Result<(), Refusal> {
        caller.may(call)?;
        self.known_seal(caller, taxpayer, Timestamp::now()).map(drop)
    }

    /// The seal that a caller means, which must be able to seal now: the taxpayer's, or a certain one of them.
    fn seal_of(
        &self,
        caller: &Caller,
        taxpayer: &str,
        certain: Option<SealId>,
        now: Timestamp,
    ) -> Result<Arc<Seal>, Refusal> {
        let seal = self.known_seal(caller, taxpayer, now)?;
        let Some(id) = certain else {
            seal.usable(now)?;
            return Ok(seal);
        };
        let seals = self.seals.load();
        let named = seals.named(taxpayer, &id);
        if let Some(named) = named.filter(|named| named.usable(now).is_ok()) {
            return Ok(Arc::clone(named));
        }
        // Where none of them can, the reason is that of the one that was named, as far as it is known.
        seal.usable(now)
            .map_err(|none| match named.map(|named| named.usable(now)) {
                Some(Err(own)) => own,
                _ => none,
            })?;
        Err(Refusal::CertificateChanged {
            requested: id,
            named: seal.id(),
            field: "options.certificate_sha256",
        })
    }

    /// The same, whether it can or not. To one who may not use it, it does not matter whether there is one.
    fn known_seal(&self, caller: &Caller, taxpayer: &str, now: Timestamp) -> Result<Arc<Seal>, Refusal> {
        well_formed(taxpayer)?;
        caller.may_seal_for(taxpayer)?;
        let seals = self.seals.load();
        seals.at(taxpayer, now).cloned().ok_or_else(|| self.no_seal(taxpayer))
    }

    /// The seal with a certain certificate, to one who may look at it.
    ///
    /// # Errors
    /// SEAL_UNKNOWN where there is none, and to one who may not use it; TOKEN_UNAVAILABLE where nobody could look yet.
    pub fn look_up_id(&self, caller: &Caller, id: &SealId) -> Result<Arc<Seal>, Refusal> {
        let seals = self.seals.load();
        let seal = seals.with_id(id).filter(|seal| caller.may_use(&seal.taxpayer));
        seal.cloned().ok_or_else(|| self.no_seal(&format!("id {}", hex(id))))
    }

    /// The seal of a taxpayer, to one who may look at it.
    ///
    /// # Errors
    /// REQUEST; SEAL_UNKNOWN where there is none, and to one who may not use it; TOKEN_UNAVAILABLE where nobody could look yet.
    pub fn look_up(&self, caller: &Caller, taxpayer: &str, now: Timestamp) -> Result<Arc<Seal>, Refusal> {
        well_formed(taxpayer)?;
        if !caller.may_use(taxpayer) {
            return Err(Refusal::SealUnknown(Outside::new(taxpayer)));
        }
        let seals = self.seals.load();
        seals.at(taxpayer, now).cloned().ok_or_else(|| self.no_seal(taxpayer))
    }

    /// Why there is no seal of a taxpayer, or of an id: nowhere, or on a token that nobody could look into yet.
    fn no_seal(&self, wanted: &str) -> Refusal {
        match self.pool.unread() {
            Some(SignError::Unavailable { reason, retry_after }) => told(Refusal::TokenUnavailable {
                reason: format!(
                    "no seal of {wanted} is on the tokens that were read so far; others were not yet: {reason}"
                ),
                retry_after: retry_after.unwrap_or(LATER),
            }),
            _ => Refusal::SealUnknown(Outside::new(wanted)),
        }
    }

    /// Canonicalizes and digests, in one pass over the document.
    async fn digest(
        &self,
        document: Bytes,
        seal: &Arc<Seal>,
        policy: Arc<Policy>,
        limits: xades::Limits,
        expect: Option<DocumentType>,
        signing_time: Timestamp,
    ) -> Result<Prepared, Refusal> {
        let _timer = self.metrics.time(Stage::Digest);
        let (seal, bytes) = (Arc::clone(seal), document.len());
        let work = move || {
            let sealing = Sealing {
                certificate: &seal.certificate,
                policy: &policy,
                limits: &limits,
                signing_time,
                expect,
            };
            xades::prepare(&document, &sealing)
        };
        let prepared = self.compute.run(bytes, work).await.map_err(|_| Refusal::Internal)?;
        prepared.map_err(|refusal| measured_by("document_bytes", Some(bytes as u64), refusal))
    }

    /// Signs on a token until the seal is whole: once, or twice where it is counter-signed. Only a value that verifies with
    /// the certificate's public key goes on (contract, promise 1).
    async fn sign(
        &self,
        mut prepared: Prepared,
        seal: &Seal,
        admitted: &Admitted,
    ) -> Result<(Arc<str>, xades::Seal), Refusal> {
        loop {
            let input = self.input(&prepared)?;
            let mut waiting = Some(prepared);
            let check = |value: &[u8]| match add(waiting.take()?, value) {
                Ok(checked) => Some(checked),
                Err(unverified) => {
                    waiting = Some(unverified.into_prepared());
                    None
                }
            };
            let (token, checked) = self.signature(seal, input, admitted, check).await?;
            prepared = match checked {
                Checked::Whole(element) => return Ok((token, element)),
                Checked::Again(prepared) => *prepared,
            };
        }
    }

    /// What a token gets: the digest, and the SignedInfo itself only where a token wants to hash.
    fn input(&self, prepared: &Prepared) -> Result<SignInput, Refusal> {
        let hash = hash(prepared.signature_algorithm().digest())?;
        if self.tokens_hash {
            return Ok(SignInput::message(hash, prepared.signed_info()));
        }
        Ok(SignInput::digest(hash, prepared.digest())?)
    }

    /// Has a token sign until `check` takes the value, and answers with what it made of it. The pool hears each verdict: it asks
    /// another token after a wrong value, and takes one that gives many out of service.
    async fn signature<T>(
        &self,
        seal: &Seal,
        input: SignInput,
        admitted: &Admitted,
        mut check: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<(Arc<str>, T), Refusal> {
        let mut signing = Some(self.metrics.time(Stage::Sign));
        let judge = |signed: &Signed| {
            drop(signing.take());
            let checking = self.metrics.time(Stage::Check);
            let verdict = check(&signed.value);
            drop(checking);
            if verdict.is_none() {
                let request = trace::request_id();
                tracing::error!(%request, token = %signed.token, taxpayer = %seal.taxpayer, "a wrong signature was not released");
                signing = Some(self.metrics.time(Stage::Sign));
            }
            verdict
        };
        let (deadline, turn) = (Some(admitted.deadline), admitted.turn);
        let signed = self.pool.sign_checked(seal.key, input, deadline, turn, judge).await;
        let (signed, checked) = signed.map_err(|error| told(error.into()))?;
        Ok((signed.token, checked))
    }

    /// Puts the seal into the document, and takes the digest of the file that it becomes.
    async fn splice(
        &self,
        document: Bytes,
        seal: xades::Seal,
        whole: bool,
    ) -> Result<(Option<Vec<u8>>, xades::Seal, [u8; 32]), Refusal> {
        let _timer = self.metrics.time(Stage::Splice);
        let bytes = document.len();
        let work = move || {
            let sha256 = seal.sealed_sha256(&document);
            (whole.then(|| seal.splice(&document)), seal, sha256)
        };
        self.compute.run(bytes, work).await.map_err(|_| Refusal::Internal)
    }
}

/// Tells an operator what a caller can do nothing about.
fn told(refusal: Refusal) -> Refusal {
    if let Refusal::TokenUnavailable { reason, .. } = &refusal {
        tracing::warn!(request = %trace::request_id(), reason, "refused: no token can sign");
    }
    refusal
}

/// Of a document's size it is told which limit it was measured by.
fn measured_by(name: &'static str, size: Option<u64>, refusal: xades::Refusal) -> Refusal {
    match refusal.reason() {
        xades::Reason::Limit {
            what: "bytes of input",
            limit,
        } => Refusal::DocumentTooLarge {
            name,
            limit: *limit,
            size,
        },
        _ => refusal.into(),
    }
}

/// What is no number of a taxpayer is not looked for.
fn well_formed(taxpayer: &str) -> Result<(), Refusal> {
    if is_taxpayer(taxpayer) {
        return Ok(());
    }
    Err(Refusal::Request {
        field: "taxpayer",
        problem: "must be a VKN (10 digits) or a TCKN (11 digits)".to_owned(),
    })
}

/// The seal must be that of whom the document names as its sealer (contract, promise 2).
fn right_taxpayer(sealer: &Sealer, taxpayer: &str, unnamed: UnnamedSealer) -> Result<(), Refusal> {
    let (named, problem) = match sealer {
        Sealer::Signature(named) | Sealer::Identity(named) if named == taxpayer => return Ok(()),
        Sealer::Signature(named) => (Some(named), format!("cac:Signature names {named}")),
        Sealer::Identity(named) => (Some(named), format!("the document's own identity fields name {named}")),
        Sealer::Unclear(unclear) => (None, unclear.to_string()),
        Sealer::Unnamed if unnamed == UnnamedSealer::Allow => return Ok(()),
        Sealer::Unnamed => {
            let nobody = "the document names no sealer, neither in cac:Signature nor in its identity fields";
            (None, nobody.to_owned())
        }
    };
    Err(Refusal::TaxpayerMismatch {
        requested: Outside::new(taxpayer),
        named: named.map(|named| Outside::new(named)),
        problem,
    })
}

/// Checks a value with the certificate's public key and puts it into the seal. Its cost does not depend on the document.
fn add(prepared: Prepared, value: &[u8]) -> Result<Checked, xades::Unverified> {
    if prepared.wants_countersignature() {
        prepared.countersign(value).map(|p| Checked::Again(Box::new(p)))
    } else {
        prepared.finish(value).map(Checked::Whole)
    }
}

/// A value that has verified.
#[derive(Debug)]
enum Checked {
    /// The seal is whole.
    Whole(xades::Seal),
    /// Its counter-signature is wanted.
    Again(Box<Prepared>),
}

/// What of a prepared document outlives its signing.
struct Described {
    document_type: DocumentType,
    document_id: Option<Outside>,
    algorithm: &'static str,
    signing_time: String,
}

impl Described {
    fn of(prepared: &Prepared) -> Self {
        Self {
            document_type: prepared.document_type(),
            document_id: prepared.document_id().map(Outside::new),
            algorithm: prepared.signature_algorithm().uri(),
            signing_time: prepared.signing_time().to_owned(),
        }
    }
}

/// The pool's word for a digest algorithm.
fn hash(digest: DigestAlgorithm) -> Result<Hash, Refusal> {
    match digest {
        DigestAlgorithm::Sha256 => Ok(Hash::Sha256),
        DigestAlgorithm::Sha384 => Ok(Hash::Sha384),
        DigestAlgorithm::Sha512 => Ok(Hash::Sha512),
        // The engine knows no other; one that it learns must be taught to the tokens too.
        _ => Err(Refusal::Internal),
    }
}
