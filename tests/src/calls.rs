//! gRPC calls whose bytes are in the test's own hands, both ways: bodies that no well-behaved client would send, and answers
//! that it would not leave unread. What is beneath a call is in [`crate::frames`].

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};

use crate::{Appliance, frames::Dialer};

/// One connection of a client, over TLS and HTTP/2.
#[derive(Debug, Clone)]
pub struct Calls(http2::SendRequest<UnsyncBoxBody<Bytes, Infallible>>);

impl Calls {
    /// A connection of the client of this name, on which each answer may have so many bytes before it is read.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn of(appliance: &Appliance, client: &str, window: u32) -> Self {
        let stream = Dialer::of(appliance, client).dial().await;
        let stream = TokioIo::new(stream.expect("a TLS connection"));
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(stream)
            .await
            .expect("an HTTP/2 connection");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Calls a method of `SealService` with these frames as its body; gives the head of the answer, and its body unread.
    ///
    /// # Errors
    /// Where the other end resets the call.
    ///
    /// # Panics
    /// Where a method's name is none.
    pub async fn call(
        &self,
        method: &str,
        frames: impl Stream<Item = Bytes> + Send + 'static,
    ) -> hyper::Result<http::Response<Incoming>> {
        self.call_with(&format!("muhurdar.seal.v1.SealService/{method}"), &[], frames)
            .await
    }

    /// Calls a method of any service, with these headers too.
    ///
    /// # Errors
    /// Where the other end resets the call.
    ///
    /// # Panics
    /// Where a method's name or a header is none.
    pub async fn call_with(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        frames: impl Stream<Item = Bytes> + Send + 'static,
    ) -> hyper::Result<http::Response<Incoming>> {
        let body = StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes))));
        let request = http::Request::post(format!("https://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(UnsyncBoxBody::new(body)).expect("the path of a method");
        self.0.clone().send_request(request).await
    }
}

/// The status in the headers of an answer, which then has no body, or in its trailers.
#[must_use]
pub fn status(headers: &http::HeaderMap) -> Option<Code> {
    let status = headers.get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// How a call ends, whether at its head or after its messages; none where it is cut off.
pub async fn end(response: http::Response<Incoming>) -> Option<Status> {
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Some(status);
    }
    let body = response.into_body().collect().await.ok()?;
    body.trailers().and_then(Status::from_header_map)
}

/// The messages in an answer that was read whole.
///
/// # Panics
/// Where one of them is none, or not whole.
#[must_use]
pub fn messages<M: Message + Default>(mut body: Bytes) -> Vec<M> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let prefix = body.split_to(5);
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        messages.push(M::decode(body.split_to(length)).expect("a message of the proto"));
    }
    messages
}

/// A message's prefix (gRPC over HTTP/2, "Length-Prefixed-Message"): not compressed, so many bytes.
///
/// # Panics
/// Where they are more than a prefix can say.
#[must_use]
pub fn prefix(length: usize) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(u32::try_from(length).expect("a message's length has 32 bits"));
    prefix.freeze()
}

/// A message behind its prefix.
#[must_use]
pub fn framed(message: &impl Message) -> Bytes {
    [prefix(message.encoded_len()), message.encode_to_vec().into()]
        .concat()
        .into()
}
