//! What the transport says in our place: a message over the limit, bytes that are no message, a method that nobody has. It
//! becomes what the contract promises of every refusal: a reason in the first of its details, and a text that is short,
//! whatever of the caller's stands in it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};
use tower::util::MapResponseLayer;

use super::status::status;
use crate::refusal::Refusal;

/// Words every answer, where a message may have so many bytes.
pub(super) fn layer(
    limit: u64,
) -> MapResponseLayer<impl Fn(http::Response<Body>) -> http::Response<Body> + Clone + Send + Sync + 'static> {
    MapResponseLayer::new(move |response: http::Response<Body>| {
        match Status::from_header_map(response.headers()) {
            // A call that was refused before it had an answer.
            Some(said) if is_the_transports(&said) => translate(said, limit).into_http(),
            Some(_) => response,
            None => response.map(|body| Body::new(Worded { body, limit })),
        }
    })
}

/// A status of the transport's in our words.
pub(super) fn translate(said: Status, limit: u64) -> Status {
    if !is_the_transports(&said) {
        return said;
    }
    let refusal = match said.code() {
        // Nothing else in this service answers OUT_OF_RANGE.
        Code::OutOfRange => Refusal::MessageTooLarge {
            limit,
            size: None,
            item: None,
        },
        Code::Unimplemented if said.message().is_empty() => Refusal::Call {
            code: said.code(),
            problem: "no such method; the service's methods are told by reflection".to_owned(),
        },
        code => Refusal::Call {
            code,
            problem: said.message().to_owned(),
        },
    };
    status(&refusal)
}

/// Ours have details.
fn is_the_transports(said: &Status) -> bool {
    said.code() != Code::Ok && said.details().is_empty()
}

/// A body whose end is worded.
struct Worded {
    body: Body,
    limit: u64,
}

impl http_body::Body for Worded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let limit = self.limit;
        Pin::new(&mut self.body).poll_frame(cx).map_ok(|frame| {
            let Some(said) = frame.trailers_ref().and_then(Status::from_header_map) else {
                return frame;
            };
            if !is_the_transports(&said) {
                return frame;
            }
            let mut trailers = http::HeaderMap::new();
            match translate(said, limit).add_header(&mut trailers) {
                Ok(()) => Frame::trailers(trailers),
                Err(_) => frame,
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
