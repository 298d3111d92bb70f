//! The end of an answer that goes on for as long as its caller likes: at the call's deadline, and where the service drains. A
//! service that is not ours (`grpc.health.v1`, reflection) knows neither.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body};

use super::status::status;
use crate::{pipeline::Pipeline, refusal::Refusal};

/// An answer that ends.
pub(super) struct Ending {
    body: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Ending {
    pub(super) fn of(body: Body, deadline: Option<Instant>, pipeline: &Arc<Pipeline>) -> Self {
        Self {
            body,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline.into()))),
            closing: Box::pin(pipeline.gate.closing_owned()),
            over: false,
        }
    }

    /// Why it is to end now.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if self
            .deadline
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Refusal::Deadline("passed while the answer was open"));
        }
        self.closing.as_mut().poll(cx).map(|()| Refusal::Draining)
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // What there is to say goes first: a watch hears that the service stops before it hears that it has.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let this = &mut *self;
        this.poll_end(cx).map(|refusal| {
            this.over = true;
            Some(Ok(trailers(&status(&refusal))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}

/// The last frame of an answer that ends so.
pub(super) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    // It fails where a message cannot be a header, and ours are encoded for that.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
    }
    Frame::trailers(trailers)
}
