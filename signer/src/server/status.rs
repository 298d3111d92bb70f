//! The one place where a refusal becomes a gRPC status: code, message and `google.rpc` details, of which the first is always
//! `ErrorInfo`.

use std::{borrow::Cow, collections::HashMap};

use muhurdar_proto::ERROR_DOMAIN;
use muhurdar_xades as xades;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetail, ErrorInfo, QuotaFailure, RetryInfo, StatusExt as _, pb};

use crate::{outside::shown, refusal::Refusal};

/// Bytes of a text in a status. It is told up to three times in one header block (message, message within the details,
/// violation), percent-encoded or in base64: together less than the 8 KiB that some clients take by default.
const MOST: usize = 1000;

/// The gRPC code of a refusal (the contract's error table).
fn code(refusal: &Refusal) -> Code {
    use xades::RefusalKind;
    match refusal {
        Refusal::Document(document) => match document.kind() {
            RefusalKind::AlreadySealed => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        },
        Refusal::TaxpayerMismatch(_) | Refusal::CertificateUnusable(_) => Code::FailedPrecondition,
        Refusal::SealUnknown(_) => Code::NotFound,
        Refusal::Request { .. } | Refusal::TooLarge { .. } => Code::InvalidArgument,
        Refusal::Call { code, .. } => *code,
        Refusal::Unauthenticated => Code::Unauthenticated,
        Refusal::Access(_) => Code::PermissionDenied,
        Refusal::Overloaded { .. } | Refusal::Quota { .. } => Code::ResourceExhausted,
        Refusal::Deadline(_) => Code::DeadlineExceeded,
        Refusal::TokenUnavailable { .. } | Refusal::Draining => Code::Unavailable,
        Refusal::Internal => Code::Internal,
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
        Refusal::Document(_) | Refusal::TooLarge { .. } => details.push(violation("document", &message)),
        Refusal::Request { field, problem } => details.push(violation(field, problem)),
        Refusal::Quota {
            bound,
            limit,
            retry_after,
        } => {
            details.push(RetryInfo::new(Some(*retry_after)).into());
            details.push(QuotaFailure::with_violation(bound.name(), short(limit)).into());
        }
        Refusal::Overloaded { retry_after, .. } | Refusal::TokenUnavailable { retry_after, .. } => {
            details.push(RetryInfo::new(Some(*retry_after)).into());
        }
        _ => {}
    }
    Status::with_error_details_vec(code(refusal), message, details)
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

fn metadata(refusal: &Refusal) -> HashMap<String, String> {
    let Refusal::Document(document) = refusal else {
        return HashMap::new();
    };
    let Some(at) = document.position() else {
        return HashMap::new();
    };
    HashMap::from([
        ("line".to_owned(), at.line.to_string()),
        ("column".to_owned(), at.column.to_string()),
        ("offset".to_owned(), at.offset.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::pb::ErrorInfo;

    use super::*;
    use crate::{admission::Bound, outside::Outside};

    /// One of each that has details of its own.
    fn refusals(text: &str) -> Vec<Refusal> {
        let retry_after = Duration::from_millis(250);
        let limit = text.to_owned();
        vec![
            Refusal::Overloaded {
                limit: limit.clone(),
                retry_after,
            },
            Refusal::Quota {
                bound: Bound::ALL[0],
                limit: limit.clone(),
                retry_after,
            },
            Refusal::TokenUnavailable {
                message: limit.clone(),
                retry_after,
            },
            Refusal::Request {
                field: "x",
                problem: limit.clone(),
            },
            Refusal::Access(limit.clone()),
            Refusal::TaxpayerMismatch(limit.clone()),
            Refusal::CertificateUnusable(limit),
            Refusal::SealUnknown(Outside::new(text)),
            Refusal::Call {
                code: Code::Unimplemented,
                problem: text.to_owned(),
            },
            Refusal::TooLarge { limit: 1 },
            Refusal::Deadline("passed"),
            Refusal::Unauthenticated,
            Refusal::Draining,
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
        for refusal in &refusals("x")[..3] {
            let retry = status(refusal).get_details_retry_info();
            assert_eq!(
                retry.and_then(|r| r.retry_delay),
                Some(Duration::from_millis(250)),
                "{refusal:?}"
            );
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
        assert_eq!(item.details.len(), 1);
    }
}
