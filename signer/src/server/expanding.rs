//! Messages that come compressed (`grpc-encoding: gzip`): whoever is behind this reads them as if they had come plain.
//!
//! tonic could do so itself, but only when a message is whole, and at once: nobody would know what it holds before it is there, and
//! sixteen kilobytes that become sixteen mebibytes are a lever in the hands of one client. So a message is expanded here as it
//! comes, by pieces. Each counts among what its client may have on its way in ([`Arrivals`](crate::admission::Arrivals)) before room
//! is made for it, none is made beyond what a message may have, and after each few of them it is another call's turn. Answers
//! are never compressed: a seal is noise, and what is around it the caller has.

use std::{
    collections::VecDeque,
    io::{self, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::write::GzDecoder;
use futures_util::future::{Either, Ready, ready as at_once};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{Live, Peer, arriving::PREFIX, methods::shape, status::status};
use crate::{
    admission::{Arrival, Reading},
    pipeline::Pipeline,
    refusal::Refusal,
};

const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";
/// Bytes of a piece: room is made by so much at a time, and it is free again when its bytes were handed on.
const PIECE: usize = 64 << 10;
/// Bytes that are expanded before others have their turn: about a millisecond.
const TURN: usize = 512 << 10;

/// Expands the messages of every call, of which none may have more than `largest` bytes then.
#[derive(Clone)]
pub(super) struct Expanding {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) live: Arc<Live>,
    pub(super) largest: u64,
}

impl<S> Layer<S> for Expanding {
    type Service = Expanded<S>;

    fn layer(&self, inner: S) -> Expanded<S> {
        Expanded {
            inner,
            expanding: self.clone(),
        }
    }
}

/// A service whose calls' messages are plain.
#[derive(Clone)]
pub(super) struct Expanded<S> {
    inner: S,
    expanding: Expanding,
}

impl<S> Service<Request<Body>> for Expanded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match request.headers().get(ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Either::Left(self.inner.call(request)),
            Some(b"gzip") => {
                request.headers_mut().remove(ENCODING);
                Either::Left(self.inner.call(self.expanding.expand(request)))
            }
            Some(other) => Either::Right(at_once(Ok(self.expanding.refuse(other)))),
        }
    }
}

impl Expanding {
    fn expand(&self, request: Request<Body>) -> Request<Body> {
        let peer = request.extensions().get::<Arc<Peer>>();
        let caller = self.live.known(peer.map(|peer| &**peer));
        let share = self.pipeline.gate.arrivals().begin(caller.as_deref(), Reading::AtOnce);
        let one = shape(request.uri().path()).is_some_and(|shape| !shape.many);
        let pipeline = Arc::clone(&self.pipeline);
        let expander = Expander::new(self.largest, one, share);
        request.map(|body| {
            Body::new(Plain {
                body,
                rest: Bytes::new(),
                expander,
                pipeline,
            })
        })
    }

    /// As gRPC has it ("Message-Encoding"): UNIMPLEMENTED, and which there are.
    fn refuse(&self, encoding: &[u8]) -> Response<Body> {
        let encoding = String::from_utf8_lossy(encoding);
        let refusal = Refusal::Call {
            code: Code::Unimplemented,
            problem: format!("messages are taken plain or compressed by gzip, not by {encoding}"),
        };
        self.pipeline.metrics.refused(&refusal, None);
        let mut response = status(&refusal).into_http();
        let accepted = HeaderValue::from_static("gzip,identity");
        response.headers_mut().insert(ACCEPTED, accepted);
        response
    }
}

/// A body whose messages are plain.
struct Plain {
    body: Body,
    /// What came and was not looked at yet.
    rest: Bytes,
    expander: Expander,
    pipeline: Arc<Pipeline>,
}

impl http_body::Body for Plain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let refuse = |refusal: Refusal| {
            this.pipeline.metrics.refused(&refusal, None);
            Poll::Ready(Some(Err(status(&refusal))))
        };
        loop {
            if let Some(data) = this.expander.next() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if this.rest.is_empty() {
                match ready!(Pin::new(&mut this.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => this.rest = data,
                    Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                    Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                    None if this.expander.is_within_a_message() => {
                        return refuse(malformed("it ends within a message"));
                    }
                    None => return Poll::Ready(None),
                }
            }
            match this.expander.take(&mut this.rest) {
                Ok(Turn::Goes) => {}
                Ok(Turn::IsOver) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Err(refusal) => return refuse(refusal),
            }
        }
    }
}

fn malformed(problem: &str) -> Refusal {
    Refusal::Call {
        code: Code::Internal,
        problem: format!("a message that is compressed cannot be read: {problem}"),
    }
}

/// Whether more may be done at once.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Goes,
    IsOver,
}

/// Bytes of a sequence of messages in, the same with all of them plain out.
#[derive(Debug)]
struct Expander {
    at: At,
    largest: u64,
    /// The call has one message, which the transport holds until the call's end.
    one: bool,
    share: Option<Arrival>,
    ready: VecDeque<Bytes>,
}

/// Where in a sequence of messages.
#[derive(Debug)]
enum At {
    Prefix(BytesMut),
    /// So many bytes are left of a message that is plain.
    Plain(u64),
    /// So many are left of one that is not.
    Packed(u64, Box<GzDecoder<Pieces>>),
}

impl Expander {
    fn new(largest: u64, one: bool, share: Arrival) -> Self {
        Self {
            at: At::Prefix(BytesMut::new()),
            largest,
            one,
            share: Some(share),
            ready: VecDeque::new(),
        }
    }

    /// What is ready to be handed on.
    fn next(&mut self) -> Option<Bytes> {
        let next = self.ready.pop_front()?;
        if self.ready.is_empty()
            && !self.one
            && let Some(share) = &mut self.share
        {
            // Less never fails.
            drop(share.hold(0));
        }
        Some(next)
    }

    fn is_within_a_message(&self) -> bool {
        !matches!(&self.at, At::Prefix(head) if head.is_empty())
    }

    /// Takes some of what came.
    fn take(&mut self, data: &mut Bytes) -> Result<Turn, Refusal> {
        match &mut self.at {
            At::Prefix(head) => {
                head.put(data.split_to((PREFIX - head.len()).min(data.len())));
                if let Ok(prefix) = <[u8; PREFIX]>::try_from(&head[..]) {
                    self.begin(prefix)?;
                }
            }
            At::Plain(left) => {
                let here = data.split_to(usize::try_from(*left).unwrap_or(usize::MAX).min(data.len()));
                *left -= here.len() as u64;
                if *left == 0 {
                    self.at = At::Prefix(BytesMut::new());
                }
                self.ready.push_back(here);
            }
            At::Packed(left, decoder) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                let before = decoder.get_ref().bytes;
                let mut taken = 0;
                while taken < here && decoder.get_ref().bytes - before < TURN as u64 {
                    match decoder.write(&data[taken..here]) {
                        Ok(0) => return Err(malformed("there is something behind it")),
                        Ok(more) => taken += more,
                        Err(error) => return Err(refused(decoder, &error)),
                    }
                }
                *left -= taken as u64;
                drop(data.split_to(taken));
                if *left == 0 {
                    return self.finish();
                }
                if taken < here {
                    return Ok(Turn::IsOver);
                }
            }
        }
        Ok(Turn::Goes)
    }

    fn begin(&mut self, prefix: [u8; PREFIX]) -> Result<(), Refusal> {
        let [flag, length @ ..] = prefix;
        let length = u64::from(u32::from_be_bytes(length));
        if flag != 1 {
            // Also where the flag is none: whoever is behind this says so.
            self.ready.push_back(Bytes::copy_from_slice(&prefix));
            self.at = match length {
                0 => At::Prefix(BytesMut::new()),
                length => At::Plain(length),
            };
            return Ok(());
        }
        if length > self.largest {
            return Err(self.too_large());
        }
        if length == 0 {
            return Err(malformed("it is empty"));
        }
        // Those before it were handed on, so that it has the share.
        let share = self.share.take().ok_or(Refusal::Internal)?;
        let pieces = Pieces::new(self.largest, length, share);
        self.at = At::Packed(length, Box::new(GzDecoder::new(pieces)));
        Ok(())
    }

    fn finish(&mut self) -> Result<Turn, Refusal> {
        let At::Packed(_, mut decoder) = std::mem::replace(&mut self.at, At::Prefix(BytesMut::new())) else {
            return Ok(Turn::Goes);
        };
        if let Err(error) = decoder.try_finish() {
            return Err(refused(&mut decoder, &error));
        }
        let pieces = std::mem::take(decoder.get_mut());
        let length = u32::try_from(pieces.bytes).map_err(|_| self.too_large())?;
        let mut prefix = BytesMut::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(length);
        // By itself, as `arriving` has it: room for the message is made where its prefix is read.
        self.ready.push_back(prefix.freeze());
        self.share = pieces.share;
        if let Some(share) = self.share.as_mut().filter(|_| !self.one) {
            // As in `arriving`: the transport keeps the room of the largest one, and that is of what it has become.
            share.keep(pieces.bytes);
        }
        self.ready.extend(pieces.whole);
        self.ready
            .extend(Some(pieces.last.freeze()).filter(|last| !last.is_empty()));
        Ok(Turn::IsOver)
    }

    fn too_large(&self) -> Refusal {
        too_large(self.largest)
    }
}

/// As wherever else a message is too large; what comes compressed cannot be told apart, so it ends its call.
fn too_large(largest: u64) -> Refusal {
    Refusal::MessageTooLarge {
        limit: largest,
        size: None,
        item: None,
    }
}

/// Why a decoder went no further: what it was to write was refused, or it could not read.
fn refused(decoder: &mut GzDecoder<Pieces>, error: &io::Error) -> Refusal {
    let refused = decoder.get_mut().refused.take();
    refused.unwrap_or_else(|| malformed(&error.to_string()))
}

/// What a message has become so far.
#[derive(Debug, Default)]
struct Pieces {
    whole: Vec<Bytes>,
    last: BytesMut,
    bytes: u64,
    largest: u64,
    /// Bytes that count already, since they were announced.
    announced: u64,
    share: Option<Arrival>,
    refused: Option<Refusal>,
}

impl Pieces {
    fn new(largest: u64, announced: u64, share: Arrival) -> Self {
        Self {
            largest,
            announced,
            share: Some(share),
            ..Self::default()
        }
    }

    /// Makes room for one more piece.
    fn room(&mut self) -> Result<(), Refusal> {
        let (bytes, announced) = (self.bytes + PIECE as u64, self.announced);
        if let Some(share) = &mut self.share {
            share.hold(bytes.saturating_sub(announced))?;
        }
        let full = std::mem::replace(&mut self.last, BytesMut::with_capacity(PIECE));
        self.whole.extend(Some(full.freeze()).filter(|full| !full.is_empty()));
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let refuse = |this: &mut Self, refusal| {
            this.refused = Some(refusal);
            Err(io::Error::other("refused"))
        };
        if self.bytes + data.len() as u64 > self.largest {
            return refuse(self, too_large(self.largest));
        }
        if self.last.len() == self.last.capacity()
            && let Err(refusal) = self.room()
        {
            return refuse(self, refusal);
        }
        let here = data.len().min(self.last.capacity() - self.last.len());
        self.last.put_slice(&data[..here]);
        self.bytes += here as u64;
        Ok(here)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::admission::Arrivals;

    const MIB: u64 = 1 << 20;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn message(flag: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[flag][..], &length, bytes].concat()
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|n| b"<cbc:ID>"[n * n % 8]).collect()
    }

    /// All that comes out, and how many turns it took.
    fn expanded(expander: &mut Expander, bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize), Refusal> {
        let (mut out, mut turns) = (Vec::new(), 0);
        for piece in bytes.chunks(size) {
            let mut data = Bytes::copy_from_slice(piece);
            while !data.is_empty() {
                turns += usize::from(expander.take(&mut data)? == Turn::IsOver);
                while let Some(ready) = expander.next() {
                    assert!(ready.len() <= PIECE.max(piece.len()));
                    out.extend(ready);
                }
            }
        }
        Ok((out, turns))
    }

    #[test]
    fn messages_come_out_plain_wherever_they_are_cut() {
        let arrivals = Arrivals::new(100 * MIB, MIB);
        let (short, long) = (text(11), text(200_000));
        let plain = [&short[..], &[], &long, &short].map(|bytes| message(0, bytes)).concat();
        let packed = [
            message(1, &gzip(&short)),
            message(0, &[]),
            message(1, &gzip(&long)),
            message(0, &short),
        ];
        for size in [1, 3, 5, 7, 1000, 1 << 20] {
            let mut expander = Expander::new(MIB, false, arrivals.begin(None, Reading::AtOnce));
            let (out, _) = expanded(&mut expander, &packed.concat(), size).unwrap();
            assert!(out == plain, "in pieces of {size}");
            assert!(!expander.is_within_a_message());
        }
        assert_eq!(arrivals.bytes(), 0);
    }

    #[test]
    fn a_message_counts_expanded_and_until_it_was_handed_on() {
        let arrivals = Arrivals::new(100 * MIB, MIB);
        let packed = message(1, &gzip(&text(500_000)));
        for one in [false, true] {
            let mut expander = Expander::new(MIB, one, arrivals.begin(None, Reading::AtOnce));
            let nothing = arrivals.bytes();
            let mut data = Bytes::from(packed.clone());
            while !data.is_empty() {
                expander.take(&mut data).unwrap();
            }
            let held = arrivals.bytes() - nothing;
            assert!((450_000..700_000).contains(&held), "{held}");
            while expander.next().is_some() {}
            // The only one of its call is held by the transport until the call's end; of a stream's, its room is.
            assert_eq!(arrivals.bytes() - nothing, if one { held } else { 500_000 });
        }
        assert_eq!(arrivals.bytes(), 0);
    }

    #[test]
    fn a_bomb_is_let_go_of_at_the_limit_and_many_at_what_their_client_may_have() {
        let bomb = message(1, &gzip(&vec![0; 200 << 20]));
        assert!(bomb.len() < 300_000);
        let arrivals = Arrivals::new(100 * MIB, 16 * MIB);
        let begin = || Expander::new(16 * MIB, true, arrivals.begin(None, Reading::AtOnce));
        let mut one = begin();
        let refused = expanded(&mut one, &bomb, 4096).unwrap_err();
        assert!(matches!(refused, Refusal::MessageTooLarge { .. }), "{refused:?}");
        assert!(arrivals.bytes() <= 17 * MIB, "{}", arrivals.bytes());
        drop(one);

        let large = message(1, &gzip(&vec![0; 15 << 20]));
        let mut open = Vec::new();
        let refused = loop {
            let mut call = begin();
            match expanded(&mut call, &large, 4096) {
                Ok((out, turns)) => assert!(out.len() > 15 << 20 && turns > 20, "{turns}"),
                Err(refused) => break refused,
            }
            open.push(call);
            assert!(open.len() < 10, "nobody is refused");
        };
        assert!(matches!(refused, Refusal::Overloaded { .. }), "{refused:?}");
        assert_eq!(open.len(), 3, "half of a hundred mebibytes");
    }

    #[test]
    fn what_is_not_gzip_is_refused_as_the_call_that_it_breaks() {
        let whole = gzip(&text(1000));
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let middle = whole.len() / 2;
        for (what, bytes) in [
            ("nothing", vec![]),
            ("another format", b"plain text".to_vec()),
            ("half of it", whole[..middle].to_vec()),
            ("another length in its end", flipped),
            ("something behind it", [&whole[..], b"x"].concat()),
        ] {
            let arrivals = Arrivals::new(MIB, MIB);
            let mut expander = Expander::new(MIB, true, arrivals.begin(None, Reading::AtOnce));
            let refused = expanded(&mut expander, &message(1, &bytes), 64);
            let internal = matches!(
                &refused,
                Err(Refusal::Call {
                    code: Code::Internal,
                    ..
                })
            );
            assert!(internal, "{what}: {refused:?}");
        }
    }
}
