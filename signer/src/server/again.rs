//! The same key, the same request, the same answer: what is asked for is looked up among what was answered before, and what is
//! answered is remembered. A document's answer is remembered without its document, which comes again with the request: the seal is
//! put into it anew, and must give the file that was sealed.

use std::time::SystemTime;

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use muhurdar_xades::DocumentType;
use prost::Message;

use super::messages::{receipt_document_type, time};
use crate::{
    admission::{Caller, Errand, Visit},
    config::Call,
    idempotency::{Claim, Fingerprint, Found, Key},
    pipeline::Pipeline,
    refusal::Refusal,
};

/// What a key leads to, and the share of the limits of who asks.
pub(super) enum Earlier<A> {
    /// It was answered.
    Answer(A, Visit),
    /// It is to be answered, and remembered.
    None(Claim, Visit),
}

/// An answer that is remembered.
pub(super) trait Kept: Message + Default {
    /// What there is to know of its seal.
    fn result(&mut self) -> Option<&mut wire::SealResult>;
}

impl Kept for wire::SealResponse {
    fn result(&mut self) -> Option<&mut wire::SealResult> {
        self.result.as_mut()
    }
}

impl Kept for wire::SignDigestResponse {
    fn result(&mut self) -> Option<&mut wire::SealResult> {
        self.result.as_mut()
    }
}

/// Whose key it is, and for what.
pub(super) struct Looked<'a> {
    pub(super) caller: &'a Caller,
    pub(super) call: Call,
    pub(super) taxpayer: &'a str,
    pub(super) key: &'a str,
    pub(super) errand: Errand,
}

/// Looks for the answer to a request's key. Who may not have the document sealed any more is not given the seal of earlier days
/// either.
pub(super) async fn earlier<A: Kept>(
    pipeline: &Pipeline,
    looked: Looked<'_>,
    fingerprint: impl Future<Output = Result<Fingerprint, Refusal>>,
) -> Result<Earlier<A>, Refusal> {
    let Looked { caller, call, .. } = looked;
    pipeline.permits(caller, call, looked.taxpayer)?;
    let key = Key::new(&caller.name, looked.key)?;
    // Whether it waits for another with its key, or is answered at once, it asks for a document like any other: its own share first.
    let visit = pipeline.door.enter(caller, looked.errand)?;
    let fingerprint = fingerprint.await?;
    match pipeline.answers.find(key, fingerprint, visit.deadline()).await? {
        Found::Claim(claim) => Ok(Earlier::None(claim, visit)),
        Found::Answer(answer, until) => Ok(Earlier::Answer(again(caller, answer, until)?, visit)),
    }
}

/// An answer that was given before, as it is given again.
pub(super) fn again<A: Kept>(caller: &Caller, answer: Bytes, until: SystemTime) -> Result<A, Refusal> {
    let mut answer = A::decode(answer).map_err(|_| Refusal::Internal)?;
    let result = answer.result().ok_or(Refusal::Internal)?;
    if let Some(document_type) = sealed_type(result) {
        caller.may_have_sealed(document_type)?;
    }
    result.replayed = true;
    result.kept_until = time(until);
    Ok(answer)
}

/// Remembers an answer, and says in it until when.
pub(super) async fn keep<A: Kept>(claim: Claim, answer: &mut A) {
    let until = claim.keep(answer.encode_to_vec().into()).await;
    if let Some(result) = answer.result() {
        result.kept_until = until.and_then(time);
    }
}

fn sealed_type(result: &wire::SealResult) -> Option<DocumentType> {
    result.receipt.as_ref().and_then(receipt_document_type)
}

/// Refuses a request that says another type than that of the seal that it is answered with.
pub(super) fn expected(result: &wire::SealResult, expect: Option<DocumentType>) -> Result<(), Refusal> {
    match (expect, sealed_type(result)) {
        (Some(requested), Some(named)) if requested != named => Err(Refusal::DocumentType { requested, named }),
        _ => Ok(()),
    }
}

/// Puts a seal of earlier into the document that has come again.
pub(super) async fn splice(
    pipeline: &Pipeline,
    document: Bytes,
    answer: &wire::SealResponse,
) -> Result<Bytes, Refusal> {
    let (Some(wire::seal_response::Answer::Patch(patch)), Some(result)) = (&answer.answer, &answer.result) else {
        return Err(Refusal::Internal);
    };
    let (patch, sha256, bytes) = (patch.clone(), result.sealed_document_sha256.clone(), document.len());
    let work = move || {
        let start = usize::try_from(patch.offset).ok()?;
        let end = start.checked_add(usize::try_from(patch.length).ok()?)?;
        let mut sealed = Vec::with_capacity(bytes + patch.replacement.len());
        sealed.extend_from_slice(document.get(..start)?);
        sealed.extend_from_slice(&patch.replacement);
        sealed.extend_from_slice(document.get(end..)?);
        // Never another file than was sealed, whatever was remembered.
        let made = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sealed);
        (made.as_ref() == &sha256[..]).then(|| Bytes::from(sealed))
    };
    let spliced = pipeline.compute.run(bytes, work).await.map_err(|_| Refusal::Internal)?;
    spliced.ok_or(Refusal::Internal)
}
