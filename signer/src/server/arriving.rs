//! A call's body on its way in. The transport makes room for a message as soon as it announces its length, holds it until it is
//! whole, and only then asks anybody; so it is here that those bytes are bounded, by all and by one client, and that a message
//! may not take for ever.
//!
//! The transport makes room for a message when it has read the message's prefix, beside what it holds already: a frame that
//! brings the prefix and the message would be copied once more, into room for two. So a frame is cut behind each prefix.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status, body::Body};
use tower::util::MapRequestLayer;

use super::{
    Live, Peer,
    methods::shape,
    oversize::{Became, Oversized, Past, Rule},
    status::status,
};
use crate::{
    admission::{Arrival, Reading},
    pipeline::Pipeline,
    refusal::Refusal,
    telemetry::Metrics,
};

/// Watches over every call's body, of which no message may have more bytes than `largest`.
pub(super) fn layer(
    pipeline: &Arc<Pipeline>,
    live: &Arc<Live>,
    largest: u64,
) -> MapRequestLayer<impl Fn(http::Request<Body>) -> http::Request<Body> + Clone + Send + Sync + 'static> {
    let (pipeline, live) = (Arc::clone(pipeline), Arc::clone(live));
    MapRequestLayer::new(move |mut request: http::Request<Body>| {
        let peer = request.extensions().get::<Arc<Peer>>();
        let caller = live.known(peer.map(|peer| &**peer));
        let shape = shape(request.uri().path());
        let one = shape.is_some_and(|shape| !shape.many);
        // A method that is not known here may take its time.
        let reading = if one { Reading::AtOnce } else { Reading::InTurn };
        let arrival = pipeline.gate.arrivals().begin(caller.as_deref(), reading);
        let (patience, metrics) = (live.settings().arrival_timeout, Arc::clone(&pipeline.metrics));
        let rule = rule(&mut request);
        request.map(|body| {
            Body::new(Arriving {
                body,
                largest,
                one,
                framing: Framing::default(),
                prefix: Bytes::new(),
                past: None,
                rule,
                rest: Bytes::new(),
                begun: false,
                arrival,
                wait: Wait::new(patience),
                metrics,
            })
        })
    })
}

/// What becomes of a message that is too large. Who reads the items of a stream finds with the request which of them were.
fn rule(request: &mut http::Request<Body>) -> Rule {
    match request.uri().path() {
        "/muhurdar.seal.v1.SealService/SealBatch" => Rule::Batch,
        "/muhurdar.seal.v1.SealService/SealStream" => {
            let oversized = Oversized::default();
            request.extensions_mut().insert(oversized.clone());
            Rule::Stream(oversized)
        }
        _ => Rule::Call,
    }
}

/// A body that is watched over.
struct Arriving {
    body: Body,
    largest: u64,
    /// It has one message.
    one: bool,
    framing: Framing,
    /// The beginning of a prefix that is not whole: it is not passed on before it is known what it announces.
    prefix: Bytes,
    /// What becomes of a message that is too large, and the one that is read past.
    rule: Rule,
    past: Option<Past>,
    /// What came with a prefix, behind it.
    rest: Bytes,
    /// It was asked for something.
    begun: bool,
    arrival: Arrival,
    wait: Wait,
    metrics: Arc<Metrics>,
}

impl Arriving {
    /// Passes data on, up to the end of a prefix in it.
    fn pass(&mut self, mut data: Bytes) -> Result<Frame<Bytes>, Status> {
        if let Some(past) = self.past.take() {
            return self.read_past(past, data);
        }
        if !self.prefix.is_empty() {
            let begun = std::mem::take(&mut self.prefix);
            data = [&begun[..], &data].concat().into();
        }
        let passed = self.framing.pass(&data);
        self.rest = data.split_off(passed.bytes);
        if passed.whole {
            self.wait.begin_anew();
        }
        if let Some(begun) = self.framing.step_back() {
            // It is looked at again with what follows, so that no prefix is ever in two pieces.
            self.prefix = data.split_off(data.len() - begun);
        }
        if self.framing.is_behind_a_prefix() && u64::from(self.framing.length) > self.largest {
            let prefix = data.split_off(data.len() - PREFIX);
            let (number, size) = (self.framing.whole, u64::from(self.framing.length));
            let past = Past::begin(&self.rule, number, size, self.largest, prefix[0] != 0);
            self.past = Some(past.map_err(|refusal| self.refuse(&refusal))?);
        }
        if self.one && self.framing.whole > 0 {
            if self.framing.whole > 1 || !self.framing.is_between_messages() || !self.prefix.is_empty() {
                return Err(self.refuse(&Refusal::Call {
                    code: Code::Internal,
                    problem: "too many request messages: the method takes one".to_owned(),
                }));
            }
            // The transport holds it until the call has ended, and what is held counts until then.
            return Ok(Frame::data(data));
        }
        let held = self.framing.held(self.largest) + self.prefix.len() as u64;
        if !self.one {
            // The transport keeps the room that it has made for the largest one, as long as the call is open.
            self.arrival.keep(self.framing.held(self.largest));
        }
        match self.arrival.hold(held) {
            Ok(()) => Ok(Frame::data(data)),
            Err(refusal) => Err(self.refuse(&refusal)),
        }
    }

    /// Whether a prefix has begun, or a message is read past: neither was passed on.
    fn keeps_something_back(&self) -> bool {
        !self.prefix.is_empty() || self.past.is_some()
    }

    /// Reads past a message that is too large; behind it comes what stands in its place.
    fn read_past(&mut self, mut past: Past, mut data: Bytes) -> Result<Frame<Bytes>, Status> {
        let here = data.len().min(usize::try_from(past.missing()).unwrap_or(usize::MAX));
        self.rest = data.split_off(here);
        match past.read(&data).map_err(|refusal| self.refuse(&refusal))? {
            Became::More => {
                self.past = Some(past);
                Ok(Frame::data(Bytes::new()))
            }
            Became::Instead(instead) => {
                self.framing.begin_anew();
                self.wait.begin_anew();
                drop(self.arrival.hold(0));
                Ok(Frame::data(instead))
            }
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Status {
        self.metrics.refused(refusal, None);
        status(refusal)
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.begun, true) {
            let admitted = this.arrival.admit();
            admitted.map_err(|refusal| this.refuse(&refusal))?;
        }
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(this.pass(rest)));
        }
        let Poll::Ready(came) = Pin::new(&mut this.body).poll_frame(cx) else {
            // Between two messages of a stream there is no hurry.
            if !this.arrival.is_empty() {
                ready!(this.wait.poll(cx));
                let late = Refusal::Deadline("passed while the message was arriving (limits.arrival_timeout)");
                return Poll::Ready(Some(Err(this.refuse(&late))));
            }
            return Poll::Pending;
        };
        this.wait.over();
        match came.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Poll::Ready(Some(this.pass(data))),
            Some(Err(broken)) => Poll::Ready(Some(Err(broken))),
            // Nobody else knows of what was kept back.
            Some(Ok(Err(_))) | None if this.keeps_something_back() => {
                this.prefix = Bytes::new();
                this.past = None;
                Poll::Ready(Some(Err(this.refuse(&Refusal::Call {
                    code: Code::Internal,
                    problem: "the body ends in the middle of a message".to_owned(),
                }))))
            }
            Some(Ok(Err(frame))) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.keeps_something_back() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is read past is less than what came.
        SizeHint::new()
    }
}

/// Bytes of a message's prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX: usize = 5;

/// Where in a sequence of messages a body is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// Bytes of a prefix that have come.
    head: usize,
    /// What they say; whole with the last of them.
    length: u32,
    /// Bytes of the message that have come after it.
    come: u64,
    /// Messages that have become whole.
    whole: u64,
}

/// What [`Framing::pass`] did.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    bytes: usize,
    /// Whether a message has become whole.
    whole: bool,
}

impl Framing {
    /// Passes bytes up to the end of the first prefix that ends in them, or all where none does.
    fn pass(&mut self, data: &[u8]) -> Passed {
        let (mut at, mut whole) = (0, false);
        loop {
            if self.head == PREFIX {
                let missing = u64::from(self.length) - self.come;
                let here = (data.len() - at) as u64;
                if here < missing {
                    self.come += here;
                    return Passed {
                        bytes: data.len(),
                        whole,
                    };
                }
                // No more than there are, so they fit.
                at += usize::try_from(missing).unwrap_or(data.len());
                (self.head, self.length, self.come) = (0, 0, 0);
                self.whole += 1;
                whole = true;
            }
            while self.head < PREFIX {
                let Some(byte) = data.get(at) else {
                    return Passed { bytes: at, whole };
                };
                if self.head > 0 {
                    self.length = self.length << 8 | u32::from(*byte);
                }
                (self.head, at) = (self.head + 1, at + 1);
            }
            if self.length > 0 {
                return Passed { bytes: at, whole };
            }
        }
    }

    /// Passes all bytes.
    pub(super) fn pass_all(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let passed = self.pass(data);
            data = &data[passed.bytes..];
        }
    }

    /// Steps back before a prefix that is not whole, and tells how many of its bytes have come.
    fn step_back(&mut self) -> Option<usize> {
        let begun = Some(self.head).filter(|head| (1..PREFIX).contains(head))?;
        (self.head, self.length, self.come) = (0, 0, 0);
        Some(begun)
    }

    /// Whether a prefix is whole, and nothing of its message has come.
    fn is_behind_a_prefix(&self) -> bool {
        self.head == PREFIX && self.come == 0
    }

    /// The message is over, whatever has become of it.
    fn begin_anew(&mut self) {
        (self.head, self.length, self.come) = (0, 0, 0);
        self.whole += 1;
    }

    /// Whether no message has begun that is not whole.
    pub(super) fn is_between_messages(&self) -> bool {
        self.head == 0
    }

    /// Bytes that are held for the message that is not whole: those that it has announced. For one that is larger than the
    /// largest, which the transport refuses, no room is made.
    fn held(&self, largest: u64) -> u64 {
        let announced = u64::from(self.length);
        let announced = if self.head < PREFIX || announced > largest {
            0
        } else {
            announced
        };
        self.head as u64 + announced
    }
}

/// How long a message has been waited for; the time that its reader takes does not count.
struct Wait {
    patience: Duration,
    waited: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            waited: Duration::ZERO,
            since: None,
            timer: None,
        }
    }

    /// Ready when the patience is at its end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let end = now + self.patience.saturating_sub(self.waited);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(sleep_until(end))),
            }
        }
        self.timer
            .as_mut()
            .map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// Something has come.
    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// The next message has all the time again.
    fn begin_anew(&mut self) {
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body::Body as _;
    use muhurdar_proto::seal::v1::{SealRequest, SealStreamRequest};
    use prost::Message as _;

    use super::*;
    use crate::admission::Arrivals;

    fn message(length: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(length).unwrap().to_be_bytes());
        message.extend(vec![7; length]);
        message
    }

    #[test]
    fn what_is_held_is_what_was_announced_and_is_not_whole_wherever_it_is_cut() {
        let bytes = [message(3), message(0), message(300), message(1)].concat();
        let whole_at = [8, 13, 318, 324];
        // Behind the prefixes of messages that are not empty, so that room can be made for each before it comes.
        let cut_at = [5, 18, 323];
        for size in 1..=bytes.len() {
            let (mut framing, mut passed, mut cuts) = (Framing::default(), 0, Vec::new());
            for mut piece in bytes.chunks(size) {
                while !piece.is_empty() {
                    let before = passed;
                    let Passed { bytes, whole } = framing.pass(piece);
                    (passed, piece) = (passed + bytes, &piece[bytes..]);
                    if cut_at.contains(&passed) {
                        cuts.push(passed);
                    } else {
                        assert!(piece.is_empty(), "{size}: cut at {passed}");
                    }
                    assert_eq!(
                        whole,
                        whole_at.iter().any(|at| (before + 1..=passed).contains(at)),
                        "{size}: {passed}"
                    );
                    let last = whole_at.iter().rfind(|at| **at <= passed).copied().unwrap_or(0);
                    let next = whole_at.iter().find(|at| **at > passed).copied().unwrap_or(last);
                    let head = (passed - last).min(PREFIX);
                    let announced = if head < PREFIX { head } else { next - last };
                    assert_eq!(framing.held(300), announced as u64, "{size}: {passed}");
                    let without_the_largest = if announced > 299 { PREFIX } else { announced };
                    assert_eq!(framing.held(299), without_the_largest as u64, "{size}: {passed}");
                }
            }
            assert_eq!((passed, &cuts[..]), (bytes.len(), &cut_at[..]), "{size}");
        }
    }

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// What the transport gets of a stream's body that comes in these pieces.
    async fn passed_on(pieces: Vec<Bytes>, largest: u64) -> Result<Vec<u8>, Status> {
        let whole: Vec<u8> = pieces.concat();
        let arrivals = Arrivals::new(1 << 20, 1 << 20);
        let nothing = arrivals.begin(None, Reading::InTurn);
        let by_itself = arrivals.bytes();
        drop(nothing);
        let mut arriving = Arriving {
            body: Body::new(Pieces(pieces.into())),
            largest,
            one: false,
            framing: Framing::default(),
            prefix: Bytes::new(),
            rule: Rule::Stream(Oversized::default()),
            past: None,
            rest: Bytes::new(),
            begun: false,
            arrival: arrivals.begin(None, Reading::InTurn),
            wait: Wait::new(Duration::from_secs(60)),
            metrics: Metrics::new().unwrap(),
        };
        let mut passed = Vec::new();
        let mut arriving = Pin::new(&mut arriving);
        while let Some(frame) = std::future::poll_fn(|cx| arriving.as_mut().poll_frame(cx)).await {
            passed.extend_from_slice(&frame?.into_data().unwrap());
        }
        // A message of three bytes has come whole: the transport keeps the room, and so it counts while the call is open.
        if whole.len() >= 13 {
            assert!(arrivals.bytes() >= by_itself + 3, "{} of {by_itself}", arrivals.bytes());
        }
        Ok(passed)
    }

    #[tokio::test]
    async fn nothing_is_lost_or_moved_wherever_a_body_is_cut() {
        let item = |id: &str, bytes: usize| {
            let request = SealRequest {
                document: vec![b'x'; bytes].into(),
                ..SealRequest::default()
            };
            let item = SealStreamRequest {
                id: id.to_owned(),
                request: Some(request).filter(|_| bytes > 0),
            };
            let encoded = item.encode_to_vec();
            let mut framed = message(0)[..1].to_vec();
            framed.extend(u32::try_from(encoded.len()).unwrap().to_be_bytes());
            [framed, encoded].concat()
        };
        let body = [
            message(0),
            message(3),
            message(0),
            message(0),
            item("a", 30),
            message(0),
            message(2),
        ]
        .concat();
        let expected = [
            message(0),
            message(3),
            message(0),
            message(0),
            item("a", 0),
            message(0),
            message(2),
        ]
        .concat();
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let pieces = [&body[..first], &body[first..second], &body[second..]];
                let pieces = pieces.map(Bytes::copy_from_slice).to_vec();
                let passed = passed_on(pieces, 20).await.unwrap();
                assert_eq!(passed, expected, "cut at {first} and {second}");
            }
        }
        let bytes = body.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect();
        assert_eq!(passed_on(bytes, 20).await.unwrap(), expected, "byte by byte");
        // What ends in the middle is told, wherever that is.
        let whole: Vec<usize> = vec![
            0,
            5,
            13,
            18,
            23,
            23 + item("a", 30).len(),
            28 + item("a", 30).len(),
            body.len(),
        ];
        for end in 0..body.len() {
            let passed = passed_on(vec![Bytes::copy_from_slice(&body[..end])], 20).await;
            let in_a_message = passed.is_ok() && !expected.starts_with(&passed.clone().unwrap_or_default());
            assert!(!in_a_message, "cut at {end}");
            if whole.contains(&end) {
                assert!(passed.is_ok(), "cut at {end}: {passed:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_that_was_waited_counts() {
        let second = Duration::from_secs(1);
        let mut wait = Wait::new(3 * second);
        let mut late = async |most: Duration| {
            let waited = std::future::poll_fn(|cx| wait.poll(cx));
            let late = tokio::time::timeout(most, waited).await.is_ok();
            wait.over();
            // The reader is busy with something else.
            tokio::time::sleep(10 * second).await;
            late
        };
        assert!(!late(2 * second).await);
        assert!(late(2 * second).await);
    }
}
