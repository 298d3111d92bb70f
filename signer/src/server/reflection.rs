//! Reflection as tonic has it, but for its end: whatever of a call it cannot read, it takes for the end of the call and answers OK.
//! So the call's body is listened to here, and who was not heard to its end is told why.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{arriving::Framing, ending::trailers, status::status};
use crate::refusal::Refusal;

/// Whose calls are listened to, whichever version.
const REFLECTION: &str = "/grpc.reflection.";

/// Sees to it that reflection ends as other calls do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Honest;

impl<S> Layer<S> for Honest {
    type Service = Heard<S>;

    fn layer(&self, inner: S) -> Heard<S> {
        Heard { inner }
    }
}

/// A service whose reflection is honest.
#[derive(Debug, Clone)]
pub(super) struct Heard<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Heard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with(REFLECTION) {
            return self.inner.call(request).boxed();
        }
        let end = Arc::<Mutex<End>>::default();
        let listened = Listened {
            framing: Framing::default(),
            end: Arc::clone(&end),
            body: Body::empty(),
        };
        let request = request.map(|body| Body::new(Listened { body, ..listened }));
        let answer = self.inner.call(request);
        answer
            .map_ok(|response| response.map(|body| Body::new(Answer { body, end })))
            .boxed()
    }
}

/// How far a call was heard.
#[derive(Debug, Default)]
enum End {
    /// Not to its end.
    #[default]
    Open,
    /// To its end, which was that of a message.
    Whole,
    /// It was cut off, or refused.
    Broken(Status),
}

/// A call's body that is listened to.
struct Listened {
    body: Body,
    framing: Framing,
    end: Arc<Mutex<End>>,
}

impl http_body::Body for Listened {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        let end = match &frame {
            Some(Ok(frame)) => {
                this.framing.pass_all(frame.data_ref().map_or(&[], |data| data));
                None
            }
            Some(Err(status)) => Some(End::Broken(status.clone())),
            None if this.framing.is_between_messages() => Some(End::Whole),
            None => Some(End::Broken(unheard("the call ended within a message"))),
        };
        if let Some(end) = end {
            *this.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Asked for its end, rather: it is told there.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn unheard(problem: &str) -> Status {
    status(&Refusal::Call {
        code: Code::Internal,
        problem: problem.to_owned(),
    })
}

/// An answer that says at its end whether all was heard.
struct Answer {
    body: Body,
    end: Arc<Mutex<End>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        Pin::new(&mut this.body).poll_frame(cx).map_ok(|frame| {
            let said = frame.trailers_ref().and_then(Status::from_header_map);
            if said.is_none_or(|said| said.code() != Code::Ok) {
                return frame;
            }
            match &*this.end.lock().unwrap_or_else(PoisonError::into_inner) {
                End::Whole => frame,
                End::Broken(status) => trailers(status),
                End::Open => trailers(&unheard(
                    "bytes that are no message of this method, or more than it takes",
                )),
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
