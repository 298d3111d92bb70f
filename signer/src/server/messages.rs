//! The wire's messages to what the service understands, and back.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use muhurdar_xades::{self as xades, DigestAlgorithm, DocumentType, KeyType, certificate::Unfit};

use crate::{
    admission::Admitted,
    config::Priority,
    outside::{LONGEST, Outside},
    pipeline::{self, DigestRequest, LargeRequest, Sealed},
    refusal::{Refusal, SealId},
    seals::Seal,
};

/// Bytes of a seal's id.
const ID: usize = 32;

fn unknown_value(field: &'static str) -> Refusal {
    Refusal::Request {
        field,
        problem: "is a value that this version does not know".to_owned(),
    }
}

fn nonsense(field: &'static str, problem: &str) -> Refusal {
    Refusal::Request {
        field,
        problem: problem.to_owned(),
    }
}

/// How a document is to be sealed.
#[derive(Debug)]
struct Options {
    expect: Option<DocumentType>,
    priority: Priority,
    /// Whether the whole sealed document is wanted back.
    whole: bool,
    certificate: Option<SealId>,
}

impl Options {
    fn read(asked: Option<wire::SealOptions>) -> Result<Self, Refusal> {
        let asked = asked.unwrap_or_default();
        let answer = wire::AnswerKind::try_from(asked.answer).map_err(|_| unknown_value("options.answer"))?;
        match wire::Level::try_from(asked.level) {
            Ok(wire::Level::Unspecified | wire::Level::Bes) => {}
            Ok(wire::Level::T | wire::Level::A) => {
                return Err(nonsense(
                    "options.level",
                    "is one that this server does not reach; GetServerInfo names its levels",
                ));
            }
            Err(_) => return Err(unknown_value("options.level")),
        }
        match wire::Preflight::try_from(asked.preflight) {
            Ok(wire::Preflight::Unspecified | wire::Preflight::Off) => {}
            Ok(wire::Preflight::Warn | wire::Preflight::Refuse) => {
                return Err(nonsense(
                    "options.preflight",
                    "asks for a check by rules that this server does not have; GetServerInfo says so",
                ));
            }
            Err(_) => return Err(unknown_value("options.preflight")),
        }
        Ok(Self {
            expect: read_document_type("options.document_type", asked.document_type)?,
            priority: read_priority("options.priority", asked.priority)?,
            whole: answer != wire::AnswerKind::Patch,
            certificate: match &asked.certificate_sha256[..] {
                [] => None,
                id => Some(read_id("options.certificate_sha256", id)?),
            },
        })
    }
}

pub(super) fn read_id(field: &'static str, id: &[u8]) -> Result<SealId, Refusal> {
    id.try_into().map_err(|_| Refusal::Request {
        field,
        problem: format!("must be a certificate's SHA-256, {ID} bytes; it has {}", id.len()),
    })
}

/// None where it is not said.
fn read_document_type(field: &'static str, asked: i32) -> Result<Option<DocumentType>, Refusal> {
    wire::DocumentType::try_from(asked)
        .map(document_type)
        .map_err(|_| unknown_value(field))
}

fn read_priority(field: &'static str, asked: i32) -> Result<Priority, Refusal> {
    match wire::Priority::try_from(asked) {
        Ok(wire::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(wire::Priority::Unspecified | wire::Priority::Normal) => Ok(Priority::Normal),
        Ok(wire::Priority::Bulk) => Ok(Priority::Bulk),
        Err(_) => Err(unknown_value(field)),
    }
}

/// When the answer is worth nothing any more: by the call's deadline, or the request's own timeout, whichever comes first.
fn read_timeout(asked: Option<prost_types::Duration>, call: Option<Instant>) -> Result<Option<Instant>, Refusal> {
    let Some(asked) = asked else { return Ok(call) };
    let timeout = match (u64::try_from(asked.seconds), u32::try_from(asked.nanos)) {
        (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => Duration::new(seconds, nanos),
        _ => {
            return Err(nonsense(
                "timeout",
                "must be a time of 0 or more, with less than a second of nanoseconds",
            ));
        }
    };
    // One that is further away than the clock can say is none.
    let own = Instant::now().checked_add(timeout);
    Ok(own.into_iter().chain(call).min())
}

/// A document, and the key by which its answer is remembered, where there is one.
#[derive(Debug)]
pub(super) struct Asked<T> {
    pub(super) request: T,
    pub(super) key: Option<String>,
}

impl<T> Asked<T> {
    fn new(request: T, key: String) -> Self {
        let key = Some(key).filter(|key| !key.is_empty());
        Self { request, key }
    }
}

pub(super) fn read(request: wire::SealRequest, deadline: Option<Instant>) -> Result<Asked<pipeline::Request>, Refusal> {
    let options = Options::read(request.options)?;
    let read = pipeline::Request {
        taxpayer: request.taxpayer,
        document: request.document,
        expect: options.expect,
        certificate: options.certificate,
        whole: options.whole,
        priority: options.priority,
        deadline: read_timeout(request.timeout, deadline)?,
    };
    Ok(Asked::new(read, request.idempotency_key))
}

/// What is asked for, and whether the whole sealed document is wanted back.
pub(super) fn read_large(
    header: wire::SealLargeHeader,
    deadline: Option<Instant>,
) -> Result<(Asked<LargeRequest>, bool), Refusal> {
    let options = Options::read(header.options)?;
    let request = LargeRequest {
        taxpayer: header.taxpayer,
        expect: options.expect,
        certificate: options.certificate,
        priority: options.priority,
        size: header.size,
        identify: !header.idempotency_key.is_empty(),
        deadline,
    };
    Ok((Asked::new(request, header.idempotency_key), options.whole))
}

pub(super) fn read_digest(
    request: wire::SignDigestRequest,
    deadline: Option<Instant>,
) -> Result<Asked<DigestRequest>, Refusal> {
    let algorithm = match wire::DigestAlgorithm::try_from(request.digest_algorithm) {
        Ok(wire::DigestAlgorithm::Sha256) => DigestAlgorithm::Sha256,
        Ok(wire::DigestAlgorithm::Sha384) => DigestAlgorithm::Sha384,
        Ok(wire::DigestAlgorithm::Sha512) => DigestAlgorithm::Sha512,
        Ok(wire::DigestAlgorithm::Unspecified) => return Err(nonsense("digest_algorithm", "is missing")),
        Err(_) => return Err(unknown_value("digest_algorithm")),
    };
    let (wanted, length) = (algorithm.output_len(), request.digest.len());
    if length != wanted {
        return Err(Refusal::Request {
            field: "digest",
            problem: format!("has {length} bytes; its digest_algorithm gives {wanted}"),
        });
    }
    let read = DigestRequest {
        taxpayer: request.taxpayer,
        digest: request.digest.to_vec(),
        algorithm,
        certificate: read_id("certificate_sha256", &request.certificate_sha256)?,
        document_type: read_document_type("document_type", request.document_type)?,
        document_id: read_document_id(&request.document_id)?,
        priority: read_priority("priority", request.priority)?,
        deadline: read_timeout(request.timeout, deadline)?,
    };
    Ok(Asked::new(read, request.idempotency_key))
}

/// An identifier stands in the receipt as the caller wrote it, or the caller is told that it cannot.
fn read_document_id(said: &str) -> Result<Option<Outside>, Refusal> {
    let id = Outside::new(said);
    if id.as_str() != said {
        return Err(Refusal::Request {
            field: "document_id",
            problem: format!("must have at most {LONGEST} bytes, and none that control how a text is shown"),
        });
    }
    Ok(Some(id).filter(|id| !id.as_str().is_empty()))
}

/// What there is to know of a seal: its signature value, its time as written, the digest of the file.
pub(super) fn result(
    value: &[u8],
    signing_time: String,
    sha256: &[u8],
    receipt: pipeline::Receipt,
) -> wire::SealResult {
    wire::SealResult {
        signature_value: Bytes::copy_from_slice(value),
        signing_time,
        sealed_document_sha256: Bytes::copy_from_slice(sha256),
        certificate_serial_number: receipt.used.certificate.serial_decimal().to_owned(),
        receipt: Some(wire_receipt(receipt)),
        findings: Vec::new(),
        level: wire::Level::Bes.into(),
        replayed: false,
        kept_until: None,
    }
}

pub(super) fn patch(seal: &xades::Seal) -> wire::SealPatch {
    wire::SealPatch {
        offset: seal.range().start as u64,
        length: seal.range().len() as u64,
        replacement: Bytes::copy_from_slice(seal.replacement()),
    }
}

/// An answer without its document, as it is remembered; the document, where it was asked for; and the share of the limits that the
/// answer holds until it is handed on.
pub(super) fn split(sealed: Sealed) -> (wire::SealResponse, Option<Bytes>, Admitted) {
    let value = sealed.seal.signature_value();
    let response = wire::SealResponse {
        answer: Some(wire::seal_response::Answer::Patch(patch(&sealed.seal))),
        result: Some(result(value, sealed.signing_time, &sealed.sha256, sealed.receipt)),
    };
    (response, sealed.document.map(Bytes::from), sealed.admitted)
}

pub(super) fn time(at: SystemTime) -> Option<prost_types::Timestamp> {
    Some(at.into())
}

fn wire_receipt(receipt: pipeline::Receipt) -> wire::Receipt {
    wire::Receipt {
        id: receipt.id.to_string(),
        taxpayer: receipt.used.taxpayer.to_string(),
        client: receipt.client.to_string(),
        document_type: receipt.document_type.map_or(0, |t| wire_document_type(t).into()),
        document_id: receipt.document_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
        certificate_sha256: Bytes::copy_from_slice(&receipt.used.id()),
        signature_algorithm: receipt.algorithm.to_owned(),
        token: receipt.token.to_string(),
        sealed_at: time(receipt.sealed_at),
    }
}

/// What was sealed, by a receipt of ours.
pub(super) fn receipt_document_type(receipt: &wire::Receipt) -> Option<DocumentType> {
    document_type(receipt.document_type())
}

/// A seal, and whether it is the best that its taxpayer has: where it can seal, the one that does.
pub(super) fn seal_info(seal: &Seal, best: bool, now: jiff::Timestamp) -> wire::SealInfo {
    let certificate = &seal.certificate;
    let unfit = certificate.fit_for_sealing(now).err();
    wire::SealInfo {
        id: Bytes::copy_from_slice(&seal.id()),
        taxpayer: seal.taxpayer.to_string(),
        title: certificate.title().to_owned(),
        key_type: key_type(certificate.key_type()).into(),
        certificate: Bytes::copy_from_slice(certificate.der()),
        certificate_serial_number: certificate.serial_decimal().to_owned(),
        not_before: time(certificate.not_before().into()),
        not_after: time(certificate.not_after().into()),
        chosen: best && unfit.is_none(),
        state: state(unfit.as_ref()).into(),
        state_detail: unfit.map(|unfit| unfit.to_string()).unwrap_or_default(),
    }
}

fn state(unfit: Option<&Unfit>) -> wire::SealState {
    match unfit {
        None => wire::SealState::Usable,
        Some(Unfit::Expired { .. }) => wire::SealState::Expired,
        Some(Unfit::NotYetValid { .. }) => wire::SealState::NotYetValid,
        Some(_) => wire::SealState::NotForSealing,
    }
}

fn key_type(key: KeyType) -> wire::KeyType {
    match key {
        KeyType::Rsa2048 => wire::KeyType::Rsa2048,
        KeyType::Rsa3072 => wire::KeyType::Rsa3072,
        KeyType::Rsa4096 => wire::KeyType::Rsa4096,
        KeyType::EcP256 => wire::KeyType::EcP256,
        KeyType::EcP384 => wire::KeyType::EcP384,
        KeyType::EcP521 => wire::KeyType::EcP521,
        _ => wire::KeyType::Unspecified,
    }
}

/// What the wire calls each: its own name, in capitals, after that of the list.
static DOCUMENT_TYPES: LazyLock<[(wire::DocumentType, DocumentType); DocumentType::ALL.len()]> = LazyLock::new(|| {
    DocumentType::ALL.map(|document| {
        let name = format!("DOCUMENT_TYPE_{}", document.id().to_ascii_uppercase());
        (wire::DocumentType::from_str_name(&name).unwrap_or_default(), document)
    })
});

fn document_type(asked: wire::DocumentType) -> Option<DocumentType> {
    DOCUMENT_TYPES.iter().find(|(w, _)| *w == asked).map(|(_, d)| *d)
}

pub(super) fn wire_document_type(found: DocumentType) -> wire::DocumentType {
    DOCUMENT_TYPES
        .iter()
        .find(|(_, d)| *d == found)
        .map_or(wire::DocumentType::Unspecified, |(w, _)| *w)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_knows_the_documents_that_are_sealed_and_no_others() {
        let of_wire: Vec<_> = (1..)
            .map_while(|value| wire::DocumentType::try_from(value).ok())
            .map(|known| {
                (
                    known,
                    document_type(known).unwrap_or_else(|| panic!("{known:?} is sealed as what?")),
                )
            })
            .collect();
        assert_eq!(of_wire, *DOCUMENT_TYPES, "in the same order");
        assert_eq!(document_type(wire::DocumentType::Unspecified), None);
    }

    #[test]
    fn a_request_has_the_shorter_of_its_own_time_and_its_calls() {
        let now = Instant::now();
        let call = Some(now + Duration::from_secs(10));
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(read_timeout(None, call).unwrap(), call);
        assert_eq!(read_timeout(seconds(20, 0), call).unwrap(), call);
        let own = read_timeout(seconds(2, 0), call).unwrap().unwrap();
        assert!(own >= now + Duration::from_secs(2) && own < now + Duration::from_secs(10));
        assert_eq!(read_timeout(seconds(i64::MAX, 0), None).unwrap(), None, "for ever");
        for (s, n) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, i32::MIN)] {
            assert!(matches!(
                read_timeout(seconds(s, n), None),
                Err(Refusal::Request { field: "timeout", .. })
            ));
        }
    }

    #[test]
    fn what_is_not_reached_is_refused_and_never_a_lower_one_given_in_its_place() {
        let options = |level: wire::Level, preflight: wire::Preflight| {
            let options = wire::SealOptions {
                level: level.into(),
                preflight: preflight.into(),
                ..wire::SealOptions::default()
            };
            Options::read(Some(options)).map(drop)
        };
        for level in [wire::Level::Unspecified, wire::Level::Bes] {
            assert!(options(level, wire::Preflight::Off).is_ok());
        }
        for level in [wire::Level::T, wire::Level::A] {
            let refused = options(level, wire::Preflight::Unspecified);
            assert!(matches!(
                refused,
                Err(Refusal::Request {
                    field: "options.level",
                    ..
                })
            ));
        }
        for preflight in [wire::Preflight::Warn, wire::Preflight::Refuse] {
            let refused = options(wire::Level::Bes, preflight);
            assert!(matches!(
                refused,
                Err(Refusal::Request {
                    field: "options.preflight",
                    ..
                })
            ));
        }
    }
}
