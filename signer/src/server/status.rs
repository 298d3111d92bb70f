//! The one place where a refusal becomes a gRPC status: code, message and `google.rpc` details, of which the first is always
//! `ErrorInfo`.

use std::{borrow::Cow, collections::HashMap, fmt, time::Duration};

use muhurdar_proto::ERROR_DOMAIN;
use muhurdar_xades::{self as xades, DocumentType};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetail, ErrorInfo, LocalizedMessage, QuotaFailure, RetryInfo, StatusExt as _, pb};

use super::{messages::wire_document_type, turkish};
use crate::{
    outside::shown,
    refusal::{LATER, Refusal, hex},
};

/// Bytes of a text in a status. It is told up to three times in one header block (message, message within the details,
/// violation), percent-encoded or in base64: together less than the 8 KiB that some clients take by default.
const MOST: usize = 1000;
/// The same of its Turkish sentence, which tells values that were cut already.
const LOCALIZED: usize = 600;
/// The trailer that says in milliseconds when to try again, for libraries that do so by themselves (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The gRPC code of a refusal (the contract's error table).
fn code(refusal: &Refusal) -> Code {
    use xades::RefusalKind;
    match refusal {
        Refusal::Document(document) => match document.kind() {
            RefusalKind::AlreadySealed => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        },
        Refusal::TaxpayerMismatch { .. } | Refusal::CertificateUnusable { .. } | Refusal::CertificateChanged { .. } => {
            Code::FailedPrecondition
        }
        Refusal::SealUnknown(_) => Code::NotFound,
        Refusal::DocumentType { .. }
        | Refusal::DocumentTooLarge { .. }
        | Refusal::MessageTooLarge { .. }
        | Refusal::Request { .. }
        | Refusal::KeyReused => Code::InvalidArgument,
        Refusal::Call { code, .. } => *code,
        Refusal::Unauthenticated => Code::Unauthenticated,
        Refusal::Access(_) => Code::PermissionDenied,
        Refusal::Overloaded { .. } | Refusal::Quota { .. } => Code::ResourceExhausted,
        Refusal::Deadline(_) => Code::DeadlineExceeded,
        Refusal::TokenUnavailable { .. } | Refusal::Draining => Code::Unavailable,
        Refusal::Internal => Code::Internal,
    }
}

/// When to come back. Whoever reads UNAVAILABLE or RESOURCE_EXHAUSTED is always told.
fn retry_after(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Quota { retry_after, .. }
        | Refusal::Overloaded { retry_after, .. }
        | Refusal::TokenUnavailable { retry_after, .. } => Some(*retry_after),
        _ => matches!(code(refusal), Code::Unavailable | Code::ResourceExhausted).then_some(LATER),
    }
}

/// A refusal as the status of a call.
#[must_use]
pub(super) fn status(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    let message = short(&message);
    let violation = |field: &str, problem: &str| BadRequest::with_violation(field, short(problem)).into();
    let mut details: Vec<ErrorDetail> = vec![ErrorInfo::new(refusal.reason(), ERROR_DOMAIN, metadata(refusal)).into()];
    match refusal {
        // The text of a document's begins with line and column.
        Refusal::Document(_) | Refusal::DocumentTooLarge { .. } => details.push(violation("document", &message)),
        Refusal::DocumentType { .. } => details.push(violation("options.document_type", &message)),
        Refusal::MessageTooLarge { item: Some(item), .. } => {
            details.push(violation(&format!("items[{item}].document"), &message));
        }
        Refusal::MessageTooLarge { .. } => details.push(violation("document", &message)),
        Refusal::TaxpayerMismatch { .. } => details.push(violation("taxpayer", &message)),
        Refusal::CertificateChanged { field, .. } => details.push(violation(field, &message)),
        Refusal::KeyReused => details.push(violation("idempotency_key", &message)),
        Refusal::Request { field, problem } => details.push(violation(field, problem)),
        _ => {}
    }
    let retry_after = retry_after(refusal);
    details.extend(retry_after.map(|time| RetryInfo::new(Some(time)).into()));
    if let Refusal::Quota { bound, limit, .. } = refusal {
        details.push(QuotaFailure::with_violation(bound.name(), limit.to_string()).into());
    }
    let turkish = turkish::sentence(refusal);
    details.push(LocalizedMessage::new(turkish::LOCALE, shown(&turkish, LOCALIZED)).into());
    let mut status = Status::with_error_details_vec(code(refusal), message, details);
    if let Some(time) = retry_after {
        status.metadata_mut().insert(PUSHBACK, milliseconds(time).into());
    }
    status
}

/// Whole milliseconds, none of them too early, and no more than the 32 bits that the libraries read.
fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

fn short(text: &str) -> Cow<'_, str> {
    shown(text, MOST)
}

/// A refusal as the error of one item in a stream or batch.
#[must_use]
pub(super) fn item_status(refusal: &Refusal) -> pb::Status {
    let status = status(refusal);
    // `with_error_details_vec` has encoded exactly this message into grpc-status-details-bin.
    pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// The name that a limit of the engine has on the wire: that of `ServerLimits`, or, of those that nobody can set, one of its own.
fn limit_name(what: &'static str) -> &'static str {
    match what {
        "bytes of input" => "document_bytes",
        "elements inside each other" => "depth",
        "attributes of an element" => "attributes",
        "a tag" => "tag_bytes",
        "a name" => "name_bytes",
        "an attribute value" => "attribute_value_bytes",
        "a reference" => "reference_bytes",
        "a namespace name" => "namespace_name_bytes",
        "namespaces in scope" => "namespaces",
        "an identifier" => "identifier_bytes",
        "bytes of Ids" => "identifiers_bytes",
        own => own,
    }
}

/// What the wire calls a document that has this name.
fn document_type_name(name: &str) -> &str {
    let known = DocumentType::ALL.into_iter().find(|known| known.name() == name);
    known.map_or(name, |known| wire_document_type(known).as_str_name())
}

/// What a program reads of a refusal: `Reason` in reason.proto names the keys, and what each looks like.
fn metadata(refusal: &Refusal) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let mut put = |key: &str, value: &dyn fmt::Display| drop(metadata.insert(key.to_owned(), value.to_string()));
    match refusal {
        Refusal::Document(document) => {
            if let Some(at) = document.position() {
                put("line", &at.line);
                put("column", &at.column);
                put("offset", &at.offset);
            }
            match document.reason() {
                xades::Reason::Limit { what, limit } => {
                    put("limit", &limit_name(what));
                    put("value", limit);
                }
                xades::Reason::DocumentUnexpected { found, expected } => {
                    put("requested", &document_type_name(expected));
                    put("named", &document_type_name(found));
                }
                _ => {}
            }
        }
        Refusal::DocumentType { requested, named } => {
            put("requested", &wire_document_type(*requested).as_str_name());
            put("named", &wire_document_type(*named).as_str_name());
        }
        Refusal::DocumentTooLarge { name, limit, size } => {
            put("limit", name);
            put("value", limit);
            size.iter().for_each(|size| put("size", size));
        }
        Refusal::MessageTooLarge { limit, size, item } => {
            put("limit", &"message_bytes");
            put("value", limit);
            size.iter().for_each(|size| put("size", size));
            item.iter().for_each(|item| put("item", item));
        }
        Refusal::TaxpayerMismatch { requested, named, .. } => {
            put("requested", requested);
            named.iter().for_each(|named| put("named", named));
        }
        Refusal::CertificateUnusable { id, .. } => put("named", &hex(id)),
        Refusal::CertificateChanged { requested, named, .. } => {
            put("requested", &hex(requested));
            put("named", &hex(named));
        }
        Refusal::SealUnknown(wanted) => {
            let text = wanted.as_str();
            put("requested", &text.strip_prefix("id ").unwrap_or(text));
        }
        Refusal::Request { field, .. } => put("field", field),
        Refusal::Quota { limit, .. } | Refusal::Overloaded { limit, .. } => {
            put("limit", &limit.name);
            limit.value.iter().for_each(|value| put("value", value));
        }
        _ => {}
    }
    metadata
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::pb::ErrorInfo;

    use super::*;
    use crate::{
        admission::Bound,
        outside::Outside,
        refusal::{Limit, Refusal},
    };

    /// One of each that has details of its own.
    fn refusals(text: &str) -> Vec<Refusal> {
        let retry_after = Duration::from_millis(250);
        let limit = Limit::new("in_flight", 7, "documents in flight");
        let said = text.to_owned();
        let wanted = Outside::new(text);
        vec![
            Refusal::Draining,
            Refusal::Overloaded { limit, retry_after },
            Refusal::Quota {
                bound: Bound::ALL[0],
                limit,
                retry_after,
            },
            Refusal::TokenUnavailable {
                reason: said.clone(),
                retry_after,
            },
            Refusal::Request {
                field: "x",
                problem: said.clone(),
            },
            Refusal::Access(said.clone()),
            Refusal::TaxpayerMismatch {
                requested: wanted.clone(),
                named: Some(wanted.clone()),
                problem: said.clone(),
            },
            Refusal::CertificateUnusable {
                taxpayer: wanted,
                serial: "1".repeat(50),
                id: [7; 32],
                problem: said,
            },
            Refusal::CertificateChanged {
                requested: [1; 32],
                named: [2; 32],
                field: "x",
            },
            Refusal::KeyReused,
            Refusal::DocumentType {
                requested: DocumentType::Invoice,
                named: DocumentType::CreditNote,
            },
            Refusal::MessageTooLarge {
                limit: 1,
                size: Some(2),
                item: Some(3),
            },
            Refusal::SealUnknown(Outside::new(text)),
            Refusal::Call {
                code: Code::Unimplemented,
                problem: text.to_owned(),
            },
            Refusal::DocumentTooLarge {
                name: "large_document_bytes",
                limit: 1,
                size: None,
            },
            Refusal::Deadline("passed"),
            Refusal::Unauthenticated,
            Refusal::Internal,
        ]
    }

    #[test]
    fn the_first_detail_of_every_refusal_is_its_stable_reason_in_our_domain() {
        for refusal in refusals("x") {
            let status = item_status(&refusal);
            let first = &status.details[0];
            assert_eq!(
                first.type_url, "type.googleapis.com/google.rpc.ErrorInfo",
                "{refusal:?}"
            );
            let info = ErrorInfo::decode(&*first.value).unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str()),
                (refusal.reason(), ERROR_DOMAIN)
            );
            assert!(Refusal::REASONS.contains(&refusal.reason()), "{refusal:?}");
        }
    }

    #[test]
    fn who_is_to_come_back_is_told_when() {
        for refusal in &refusals("x")[1..4] {
            let retry = status(refusal).get_details_retry_info();
            assert_eq!(
                retry.and_then(|r| r.retry_delay),
                Some(Duration::from_millis(250)),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn whatever_may_be_tried_again_says_when_in_its_details_and_in_the_trailer_of_its_call() {
        let call = |code| Refusal::Call {
            code,
            problem: "x".to_owned(),
        };
        let others = [call(Code::Unavailable), call(Code::ResourceExhausted)];
        let mut told = 0;
        for refusal in refusals("x").into_iter().chain(others) {
            let status = status(&refusal);
            let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
            let wants = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(wait.is_some(), wants, "{refusal:?}");
            let trailer = status.metadata().get(PUSHBACK).map(|value| value.to_str().unwrap());
            let milliseconds = wait.map(|wait| wait.as_millis().to_string());
            assert_eq!(trailer, milliseconds.as_deref(), "{refusal:?}");
            assert!(item_status(&refusal).details.len() > usize::from(wants), "{refusal:?}");
            told += usize::from(wants);
        }
        assert_eq!(
            told, 6,
            "OVERLOADED, QUOTA, TOKEN_UNAVAILABLE, DRAINING, and what the transport says"
        );
    }

    #[test]
    fn nobody_is_called_back_before_the_time_that_the_details_name() {
        for (time, trailer) in [
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(250), 250),
            (Duration::from_micros(50_001), 51),
            (Duration::from_secs(1 << 40), i32::MAX),
        ] {
            assert_eq!(milliseconds(time), trailer, "{time:?}");
        }
    }

    #[test]
    fn a_status_fits_into_the_headers_of_any_client_whatever_text_it_tells() {
        for text in ["x".repeat(7000), "ş\n".repeat(100_000), "𝒳".repeat(3000)] {
            for refusal in refusals(&text) {
                let headers = status(&refusal).into_http::<()>().into_parts().0.headers;
                let bytes: usize = headers
                    .iter()
                    .map(|(name, value)| name.as_str().len() + value.len() + 32)
                    .sum();
                assert!(bytes < 8 << 10, "{bytes} bytes of {refusal:.60?}");
            }
        }
    }

    #[test]
    fn an_items_error_is_the_same_message_as_a_calls_status() {
        let refusal = Refusal::SealUnknown(Outside::new("1234567890"));
        let item = item_status(&refusal);
        assert_eq!(item.code, Code::NotFound as i32);
        let kinds: Vec<_> = item
            .details
            .iter()
            .map(|detail| detail.type_url.rsplit('.').next().unwrap())
            .collect();
        assert_eq!(kinds, ["ErrorInfo", "LocalizedMessage"]);
    }
}
