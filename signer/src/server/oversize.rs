//! A message over the limit is refused by the transport before anybody of ours sees it, with a code of its own; here that
//! becomes what the contract promises: INVALID_ARGUMENT, XML_LIMIT.

use tonic::{Code, Status, body::Body};
use tower::util::MapResponseLayer;

use super::status::status;
use crate::refusal::Refusal;

/// Translates unary answers, whose message is decoded before the service is called.
pub(super) fn layer(
    limit: u64,
) -> MapResponseLayer<impl Fn(http::Response<Body>) -> http::Response<Body> + Clone + Send + Sync + 'static> {
    MapResponseLayer::new(
        move |response: http::Response<Body>| match Status::from_header_map(response.headers()) {
            Some(refused) if refused.code() == Code::OutOfRange => translate(refused, limit).into_http(),
            _ => response,
        },
    )
}

/// Nothing else in this service answers OUT_OF_RANGE.
pub(super) fn translate(refused: Status, limit: u64) -> Status {
    match refused.code() {
        Code::OutOfRange => status(&Refusal::TooLarge { limit }),
        _ => refused,
    }
}
