//! A call's answer on its way out: its bytes are the client's until they were written to its connection. The transport keeps
//! what the other end does not read, so they are counted here, and who has too much unread is not answered anew. A call is
//! over when the last of its bytes was written; until then its connection owes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, TryFutureExt as _,
    future::{BoxFuture, ready},
};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    Live, Peer,
    line::{Line, OpenCall},
    status::status,
};
use crate::{
    admission::{Departure, Held},
    pipeline::Pipeline,
};

/// The calls that ask for something; others, such as a watch of `grpc.health.v1`, may stay for ever.
const ASKING: &str = "/muhurdar.seal.v1.SealService/";

/// Counts what every call answers, whatever it asks for.
#[derive(Clone)]
pub(super) struct Counting {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) live: Arc<Live>,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            counting: self.clone(),
        }
    }
}

/// A service whose answers are counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    inner: S,
    counting: Counting,
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Counting { pipeline, live } = &self.counting;
        let peer = request.extensions().get::<Arc<Peer>>();
        // To whom nobody knows, nothing but refusals is said.
        let Some(caller) = live.known(peer.map(|peer| &**peer)) else {
            return self.inner.call(request).boxed();
        };
        let unread = pipeline.gate.unread();
        let departure = unread.of(&caller);
        if let Err(refusal) = unread.admit(&departure) {
            pipeline.metrics.refused(&refusal, None);
            return ready(Ok(status(&refusal).into_http())).boxed();
        }
        let line = request.extensions().get::<Arc<Line>>();
        let asks = request.uri().path().starts_with(ASKING);
        let open = line
            .filter(|_| asks)
            .map(|line| Arc::new(line.call(pipeline.gate.call())));
        let leaving = |body| Leaving { body, departure, open };
        self.inner
            .call(request)
            .map_ok(|response| response.map(|body| Body::new(leaving(body))))
            .boxed()
    }
}

/// A body whose bytes are counted.
struct Leaving {
    body: Body,
    departure: Departure,
    open: Option<Arc<OpenCall>>,
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let count = |data: Bytes| {
            let held = self.departure.hold(data.len());
            let open = self.open.clone();
            Bytes::from_owner(Counts {
                data,
                _held: held,
                _open: open,
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(count))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that are unread as long as they are here.
struct Counts {
    data: Bytes,
    _held: Held,
    /// Their call is not answered as long as they are here, either.
    _open: Option<Arc<OpenCall>>,
}

impl AsRef<[u8]> for Counts {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Answers of a stream that wait for the transport, and what each holds until the transport takes it.
pub(super) struct Answers<T, H>(pub(super) mpsc::Receiver<(T, H)>);

impl<T, H> Stream for Answers<T, H> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx).map(|taken| taken.map(|(answer, _held)| answer))
    }
}
