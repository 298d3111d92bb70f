//! The one place where a refusal becomes a gRPC status: code, message and `google.rpc` details.

use std::collections::HashMap;

use muhurdar_proto::ERROR_DOMAIN;
use muhurdar_xades as xades;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

use crate::refusal::Refusal;

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
    let mut details = ErrorDetails::new();
    if let Some(reason) = refusal.reason() {
        details.set_error_info(reason, ERROR_DOMAIN, metadata(refusal));
    }
    match refusal {
        Refusal::Document(document) => {
            // Its text begins with line and column.
            details.add_bad_request_violation("document", document.to_string());
        }
        Refusal::TooLarge { .. } => {
            details.add_bad_request_violation("document", refusal.to_string());
        }
        Refusal::Request { field, problem } => {
            details.add_bad_request_violation(*field, problem);
        }
        Refusal::Quota {
            bound,
            limit,
            retry_after,
        } => {
            details.set_retry_info(Some(*retry_after));
            details.add_quota_failure_violation(bound.name(), limit);
        }
        Refusal::Overloaded { retry_after, .. } | Refusal::TokenUnavailable { retry_after, .. } => {
            details.set_retry_info(Some(*retry_after));
        }
        _ => {}
    }
    Status::with_error_details(code(refusal), refusal.to_string(), details)
}

/// A refusal as the error of one item in a stream or batch.
#[must_use]
pub(super) fn item_status(refusal: &Refusal) -> pb::Status {
    let status = status(refusal);
    // `with_error_details` has encoded exactly this message into grpc-status-details-bin.
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
    use super::*;

    #[test]
    fn every_refusal_carries_its_stable_reason_and_domain() {
        let refusal = Refusal::Overloaded {
            limit: "x".to_owned(),
            retry_after: std::time::Duration::from_millis(250),
        };
        let status = status(&refusal);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|i| i.reason.as_str()), Some("OVERLOADED"));
        assert_eq!(details.error_info().map(|i| i.domain.as_str()), Some("muhurdar"));
        assert_eq!(
            details.retry_info().and_then(|r| r.retry_delay),
            Some(std::time::Duration::from_millis(250)),
            "a caller must be told when to come back"
        );
    }

    #[test]
    fn an_items_error_is_the_same_message_as_a_calls_status() {
        let refusal = Refusal::SealUnknown("1234567890".to_owned());
        let item = item_status(&refusal);
        assert_eq!(item.code, Code::NotFound as i32);
        assert_eq!(item.details.len(), 1);
        assert!(item.details[0].type_url.ends_with("google.rpc.ErrorInfo"));
    }
}
