//! The wire's messages to what the service understands, and back.

use std::{sync::LazyLock, time::Instant};

use bytes::Bytes;
use muhurdar_proto::seal::v1 as wire;
use muhurdar_xades::{DocumentType, KeyType};

use crate::{
    admission::Admitted,
    config::Priority,
    outside::{LONGEST, Outside},
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

pub(super) fn read_priority(asked: i32) -> Result<Priority, Refusal> {
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
        document_id: read_document_id(&request.document_id)?,
        priority: read_priority(request.priority)?,
        deadline,
    })
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
        document_id: receipt.document_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
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

fn wire_document_type(found: DocumentType) -> wire::DocumentType {
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
}
