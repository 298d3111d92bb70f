//! The wire's messages to what the service understands, and back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use muhurdar_xades::{DocumentType, KeyType};
use tonic::metadata::MetadataMap;

use crate::{
    admission::Admitted,
    config::Priority,
    pipeline::{self, DigestRequest, LargeRequest, Sealed},
    refusal::Refusal,
    seals::Seal,
};

fn unknown_value(field: &'static str) -> Refusal {
    Refusal::Request {
        field,
        problem: "is a value that this version does not know".to_owned(),
    }
}

/// None where it is not said.
pub(super) fn read_document_type(asked: i32) -> Result<Option<DocumentType>, Refusal> {
    wire::DocumentType::try_from(asked)
        .map(document_type)
        .map_err(|_| unknown_value("document_type"))
}

fn read_priority(asked: i32) -> Result<Priority, Refusal> {
    match wire::Priority::try_from(asked) {
        Ok(wire::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(wire::Priority::Unspecified | wire::Priority::Normal) => Ok(Priority::Normal),
        Ok(wire::Priority::Bulk) => Ok(Priority::Bulk),
        Err(_) => Err(unknown_value("priority")),
    }
}

pub(super) fn read(request: wire::SealRequest, deadline: Option<Instant>) -> Result<pipeline::Request, Refusal> {
    let expect = read_document_type(request.document_type)?;
    let answer = wire::Answer::try_from(request.answer).map_err(|_| unknown_value("answer"))?;
    Ok(pipeline::Request {
        taxpayer: request.taxpayer,
        document: request.document,
        expect,
        whole: answer != wire::Answer::SignatureOnly,
        priority: read_priority(request.priority)?,
        deadline,
    })
}

/// What is asked for, and whether the whole sealed document is wanted back.
pub(super) fn read_large(
    header: wire::SealLargeHeader,
    deadline: Option<Instant>,
) -> Result<(LargeRequest, bool), Refusal> {
    let answer = wire::Answer::try_from(header.answer).map_err(|_| unknown_value("answer"))?;
    let request = LargeRequest {
        taxpayer: header.taxpayer,
        expect: read_document_type(header.document_type)?,
        priority: read_priority(header.priority)?,
        size: Some(header.size).filter(|size| *size > 0),
        deadline,
    };
    Ok((request, answer != wire::Answer::SignatureOnly))
}

pub(super) fn read_digest(
    request: wire::SealDigestRequest,
    deadline: Option<Instant>,
) -> Result<DigestRequest, Refusal> {
    Ok(DigestRequest {
        taxpayer: request.taxpayer,
        digest: request.digest.to_vec(),
        document_type: read_document_type(request.document_type)?,
        document_id: Some(request.document_id).filter(|id| !id.is_empty()),
        priority: read_priority(request.priority)?,
        deadline,
    })
}

/// The answer, and the share of the limits that it holds until it is handed on.
pub(super) fn split(sealed: Sealed) -> (wire::SealResponse, Admitted) {
    let Sealed {
        document,
        seal,
        signing_time,
        sha256,
        receipt,
        admitted,
    } = sealed;
    let result = match document {
        Some(document) => wire::seal_response::Result::SealedDocument(document.into()),
        None => wire::seal_response::Result::Seal(wire::DetachedSeal {
            offset: seal.range().start as u64,
            length: seal.range().len() as u64,
            replacement: Bytes::copy_from_slice(seal.replacement()),
        }),
    };
    let response = wire::SealResponse {
        result: Some(result),
        signature_value: Bytes::copy_from_slice(seal.signature_value()),
        signing_time,
        sealed_document_sha256: Bytes::copy_from_slice(&sha256),
        certificate_serial_number: receipt.used.certificate.serial_decimal().to_owned(),
        receipt: Some(wire_receipt(receipt)),
    };
    (response, admitted)
}

pub(super) fn wire_receipt(receipt: pipeline::Receipt) -> wire::Receipt {
    wire::Receipt {
        id: receipt.id.to_string(),
        taxpayer: receipt.used.taxpayer.to_string(),
        client: receipt.client.to_string(),
        document_type: receipt.document_type.map_or(0, |t| wire_document_type(t).into()),
        document_id: receipt.document_id.unwrap_or_default(),
        certificate_sha256: Bytes::copy_from_slice(&receipt.used.certificate.sha256()),
        signature_algorithm: receipt.algorithm.to_owned(),
        token: receipt.token.to_string(),
        sealed_at: Some(receipt.sealed_at.into()),
    }
}

pub(super) fn seal_info(seal: &Seal, now: jiff::Timestamp) -> wire::SealInfo {
    let certificate = &seal.certificate;
    let unusable = seal.usable(now).err().map(|refusal| refusal.to_string());
    let timestamp = |at: jiff::Timestamp| Some(std::time::SystemTime::from(at).into());
    wire::SealInfo {
        taxpayer: seal.taxpayer.to_string(),
        title: certificate.title().to_owned(),
        key_type: key_type(certificate.key_type()).into(),
        certificate: Bytes::copy_from_slice(certificate.der()),
        certificate_serial_number: certificate.serial_decimal().to_owned(),
        not_before: timestamp(certificate.not_before()),
        not_after: timestamp(certificate.not_after()),
        usable: unusable.is_none(),
        unusable: unusable.unwrap_or_default(),
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

const DOCUMENT_TYPES: [(wire::DocumentType, DocumentType); 9] = [
    (wire::DocumentType::Invoice, DocumentType::Invoice),
    (wire::DocumentType::CreditNote, DocumentType::CreditNote),
    (wire::DocumentType::DespatchAdvice, DocumentType::DespatchAdvice),
    (wire::DocumentType::ReceiptAdvice, DocumentType::ReceiptAdvice),
    (
        wire::DocumentType::ApplicationResponse,
        DocumentType::ApplicationResponse,
    ),
    (wire::DocumentType::EarsivReport, DocumentType::EArsivReport),
    (wire::DocumentType::EdefterLedger, DocumentType::EDefterLedger),
    (wire::DocumentType::EdefterBerat, DocumentType::EDefterBerat),
    (wire::DocumentType::UserAccount, DocumentType::UserAccount),
];

fn document_type(asked: wire::DocumentType) -> Option<DocumentType> {
    DOCUMENT_TYPES.iter().find(|(w, _)| *w == asked).map(|(_, d)| *d)
}

fn wire_document_type(found: DocumentType) -> wire::DocumentType {
    DOCUMENT_TYPES
        .iter()
        .find(|(_, d)| *d == found)
        .map_or(wire::DocumentType::Unspecified, |(w, _)| *w)
}

/// The caller's deadline, from the `grpc-timeout` header (gRPC over HTTP/2, "Timeout").
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        deadline(&metadata).map(|d| d.saturating_duration_since(Instant::now()))
    }

    #[test]
    fn a_grpc_timeout_is_read_in_each_of_its_units() {
        let near = |text, expected: f64| {
            let seconds = timeout(text).unwrap().as_secs_f64();
            assert!((expected - 0.5..=expected).contains(&seconds), "{text}: {seconds}");
        };
        near("2H", 7200.0);
        near("3M", 180.0);
        near("4S", 4.0);
        near("5000m", 5.0);
        near("6000000u", 6.0);
        near("99999999n", 0.1);
    }

    #[test]
    fn a_malformed_grpc_timeout_is_none() {
        for text in ["", "S", "12", "-1S", "123456789S", "1x"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
