//! `GetServerInfo`: what this service is and takes, and what its caller may.

use std::time::SystemTime;

use muhurdar_proto::seal::v1 as wire;

use super::messages::{time, wire_document_type};
use crate::{
    admission::{Caller, MESSAGE_OVERHEAD},
    config::{Call, Config, Priority, Quota},
    pipeline::MAX_PIECE,
};

/// Taxpayers, or patterns of them, that are told.
const TAXPAYERS: usize = 1000;

/// What is the same for every caller; made anew at each reload.
pub(super) fn of(config: &Config) -> wire::GetServerInfoResponse {
    let limits = &config.limits;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let kept = config.idempotency.entries > 0;
    wire::GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: Some(wire::ServerLimits {
            document_bytes: limits.document.as_u64(),
            message_bytes: limits.document.as_u64() + MESSAGE_OVERHEAD as u64,
            large_document_bytes: limits.large_document.as_u64(),
            chunk_bytes: MAX_PIECE as u64,
            batch_items: count(limits.batch_items),
            stream_in_flight: count(limits.stream_in_flight),
            depth: limits.depth,
            attributes: limits.attributes,
            request_timeout: limits.request_timeout.try_into().ok(),
            large_timeout: limits.large_timeout.try_into().ok(),
        }),
        idempotency_window: config.idempotency.window.try_into().ok().filter(|_| kept),
        levels: vec![wire::Level::Bes.into()],
        preflight: false,
        caller: None,
    }
}

/// The same, to a caller whose certificate ends so.
pub(super) fn to(
    info: &wire::GetServerInfoResponse,
    caller: &Caller,
    certificate_ends: Option<SystemTime>,
) -> wire::GetServerInfoResponse {
    let rights = caller.rights().iter().map(|call| match call {
        Call::Seal => wire::Right::Seal,
        Call::List => wire::Right::List,
        Call::Digest => wire::Right::Digest,
    });
    let priorities = caller.priorities().iter().map(|priority| match priority {
        Priority::Interactive => wire::Priority::Interactive,
        Priority::Normal => wire::Priority::Normal,
        Priority::Bulk => wire::Priority::Bulk,
    });
    let documents = caller.documents().unwrap_or_default();
    wire::GetServerInfoResponse {
        caller: Some(wire::CallerRights {
            client: caller.name.to_string(),
            certificate_not_after: certificate_ends.and_then(time),
            rights: rights.map(Into::into).collect(),
            taxpayers: caller.taxpayers(TAXPAYERS),
            document_types: documents
                .iter()
                .map(|document| wire_document_type(*document).into())
                .collect(),
            priorities: priorities.map(Into::into).collect(),
            quota: Some(quota(caller.limits())),
        }),
        ..info.clone()
    }
}

fn quota(limits: &Quota) -> wire::QuotaLimits {
    wire::QuotaLimits {
        documents_per_second: limits.documents_per_second.map(Into::into),
        burst: limits.burst.map(Into::into),
        in_flight: limits.in_flight.map(|most| most as u64),
        in_flight_bytes: limits.in_flight_bytes.map(|most| most.as_u64()),
        large_in_flight: limits.large_in_flight.map(|most| most as u64),
    }
}
