//! The opening of a call: what its headers say, before anybody reads its body. They must fit, and its deadline is kept here,
//! from its first byte to its answer, whether its body comes or not. tonic would answer a deadline with a status of its own
//! (CANCELLED, without details), so it is not shown any.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::sleep_until;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{Live, MAX_HEADERS, ending::Ending, methods::shape, status::status};
use crate::{pipeline::Pipeline, refusal::Refusal};

/// gRPC over HTTP/2, "Timeout".
const TIMEOUT: &str = "grpc-timeout";
/// What a field of a header list counts beside its name and value (RFC 9113, section 10.5.1).
const FIELD: usize = 32;
/// The calls that stay with their caller for longer than one message, and end by themselves when the service drains.
const STREAMS: [&str; 2] = [
    "/muhurdar.seal.v1.SealService/SealStream",
    "/muhurdar.seal.v1.SealService/SealLarge",
];

/// When the answer to a call is worth nothing any more, where its caller says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Option<Instant>);

/// Opens every call.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) live: Arc<Live>,
}

impl<S> Layer<S> for Opening {
    type Service = Opened<S>;

    fn layer(&self, inner: S) -> Opened<S> {
        Opened {
            inner,
            opening: self.clone(),
        }
    }
}

/// A service whose calls are opened.
#[derive(Clone)]
pub(super) struct Opened<S> {
    inner: S,
    opening: Opening,
}

impl<S> Service<Request<Body>> for Opened<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let pipeline = Arc::clone(&self.opening.pipeline);
        let refuse = move |refusal: &Refusal| {
            pipeline.metrics.refused(refusal, None);
            Ok(status(refusal).into_http())
        };
        let timeout = match fits(&request).and_then(|()| timeout(request.headers_mut())) {
            Ok(timeout) => timeout,
            Err(refusal) => return std::future::ready(refuse(&refusal)).boxed(),
        };
        let settings = self.opening.live.settings();
        let (now, longest) = (Instant::now(), settings.request_timeout + settings.arrival_timeout);
        // One that is further away than the clock can say is none.
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let end = deadline.map_or(now + longest, |deadline| deadline.min(now + longest));
        request.extensions_mut().insert(Deadline(deadline));
        let ends_itself = STREAMS.contains(&request.uri().path());
        let goes_on = !ends_itself && shape(request.uri().path()).is_some_and(|shape| shape.many_answers);
        let ending = goes_on.then(|| Arc::clone(&self.opening.pipeline));
        if !ends_itself {
            let pipeline = Arc::clone(&self.opening.pipeline);
            request = request.map(|body| {
                Body::new(Awaited {
                    body,
                    pipeline,
                    closing: None,
                })
            });
        }
        let answer = self.inner.call(request).map_ok(move |response| match ending {
            Some(pipeline) => response.map(|body| Body::new(Ending::of(body, deadline, &pipeline))),
            None => response,
        });
        async move {
            tokio::select! {
                // Whoever has the request knows better what it waited for.
                biased;
                answer = answer => answer,
                () = sleep_until(end.into()) => refuse(&Refusal::Deadline("passed before the call was answered")),
            }
        }
        .boxed()
    }
}

/// Ready when a deadline passes; never, where there is none.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a call's headers are as small as they must be.
fn fits(request: &Request<Body>) -> Result<(), Refusal> {
    let fields = request.headers().iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum();
    let size = fields + request.uri().path().len();
    if size <= MAX_HEADERS as usize {
        return Ok(());
    }
    Err(Refusal::Request {
        field: "metadata",
        problem: format!("the call's headers have {size} bytes; at most {MAX_HEADERS} are taken"),
    })
}

/// Takes the caller's timeout out of a call's headers.
fn timeout(headers: &mut HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.remove(TIMEOUT) else {
        return Ok(None);
    };
    let read = value.to_str().ok().and_then(read_timeout);
    // What gRPC's own servers answer (grpc/grpc#26401).
    read.map(Some).ok_or_else(|| Refusal::Call {
        code: Code::Internal,
        problem: "malformed grpc-timeout: it is at most 8 digits and one of H, M, S, m, u, n".to_owned(),
    })
}

fn read_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The body of a call that has one message: it is refused where it has not come when the service drains, since nobody has
/// admitted it yet.
struct Awaited {
    body: Body,
    pipeline: Arc<Pipeline>,
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(came) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(came);
        }
        let closing = || Box::pin(this.pipeline.gate.closing_owned());
        ready!(this.closing.get_or_insert_with(closing).as_mut().poll(cx));
        this.pipeline.metrics.refused(&Refusal::Draining, None);
        Poll::Ready(Some(Err(status(&Refusal::Draining))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(text: &str) -> Result<Option<Duration>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, HeaderValue::from_str(text).unwrap());
        let read = timeout(&mut headers);
        assert!(headers.is_empty(), "nobody else reads it");
        read
    }

    #[test]
    fn a_grpc_timeout_is_read_in_each_of_its_units() {
        for (text, seconds) in [
            ("2H", 7200.0),
            ("3M", 180.0),
            ("4S", 4.0),
            ("5000m", 5.0),
            ("6000000u", 6.0),
            ("99999999n", 0.099_999_999),
            ("0n", 0.0),
        ] {
            assert_eq!(read(text).unwrap(), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(timeout(&mut HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_malformed_grpc_timeout_is_refused_as_grpc_does() {
        for text in ["", "S", "12", "-1S", "+1S", "123456789S", "1x", "1 S", "1.5S"] {
            let refused = matches!(
                read(text),
                Err(Refusal::Call {
                    code: Code::Internal,
                    ..
                })
            );
            assert!(refused, "{text}");
        }
    }
}
