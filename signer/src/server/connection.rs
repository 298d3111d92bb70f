//! The bytes of one connection: TLS over TCP, or the plain bytes of a Unix socket.
//!
//! HTTP/2 asks for a flush after every frame that carries data, so that an answer of a single call would leave in two writes:
//! its data, then its trailers. Over TLS, what is to be flushed is held until everything else that can run has run, and
//! leaves in one write.

use std::{
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::yield_now,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

use super::{
    accept::Place,
    http2::CONNECTION_WINDOW,
    identity::Peer,
    line::{Line, UNDER_WAY},
};

/// The HTTP/2 preface and the header of the SETTINGS frame that follows it (RFC 9113, section 3.4).
const PREFACE: usize = 24 + 9;
/// Encrypted bytes that wait for one write: a large answer in one step rather than in five.
const WRITE_BUFFER: usize = 256 << 10;

/// Bytes that a peer may still say after its connection has failed: what acknowledges what it reads.
const LAST_WORDS: usize = 64 << 10;

/// A connection whose handshake is done. Holds its place under the connection caps.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    peer: Arc<Peer>,
    line: Arc<Line>,
    /// Runs until the peer has begun to speak HTTP/2; from then on, its keep-alive watches it.
    silence: Option<(Pin<Box<Sleep>>, usize)>,
    /// Everything was written; runs until the peer must have read it. With the bytes that it may still say.
    farewell: Option<(Pin<Box<Sleep>>, usize)>,
    age: Option<Duration>,
    _place: Place,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tls(Box<Tls<TcpStream>>),
    Unix(UnixStream),
}

impl Connection {
    /// A connection whose peer has so long to begin to speak, and that may become so old.
    pub(super) fn new(stream: Stream, peer: Peer, place: Place, patience: Duration, age: Option<Duration>) -> Self {
        Self {
            stream,
            peer: Arc::new(peer),
            line: Arc::default(),
            silence: Some((Box::pin(tokio::time::sleep(patience)), PREFACE)),
            farewell: None,
            age,
            _place: place,
        }
    }

    /// Who is at its other end.
    pub(super) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }

    /// How old it may become; none: as old as it likes.
    pub(super) fn age(&self) -> Option<Duration> {
        self.age
    }

    /// What it owes.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Waits until the peer closes too, and throws away what it still says. A socket that is closed before it has read all
    /// that has come, or before all that will come has, answers with RST, and takes with it what the peer has not read
    /// yet. Who says more than there may be on the way when a connection ends in good order is not listened to.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let most = if self.line.is_parting() {
            CONNECTION_WINDOW as usize
        } else {
            LAST_WORDS
        };
        let (farewell, unheard) = self
            .farewell
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(UNDER_WAY)), most));
        let mut thrown_away = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buf = ReadBuf::uninit(&mut thrown_away);
            let read = match &mut self.stream {
                Stream::Tls(tls) => Pin::new(tls.stream.get_mut().0).poll_read(cx, &mut buf),
                Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            };
            match read {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && buf.filled().len() <= *unheard => {
                    *unheard -= buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return farewell.as_mut().poll(cx),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.stream {
            Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let Some((silence, missing)) = &mut self.silence else {
            return read;
        };
        *missing = missing.saturating_sub(buf.filled().len() - before);
        if *missing == 0 {
            self.silence = None;
        } else if read.is_pending() && silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tls(tls) => tls.poll_write(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Until the peer has spoken, HTTP/2 flushes its own preface once and waits, and would not come back to flush it again.
        let spoken = self.silence.is_none();
        match &mut self.stream {
            Stream::Tls(tls) if spoken => tls.poll_flush_after_the_turn(cx),
            Stream::Tls(tls) => tls.poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            ready!(match &mut self.stream {
                // Writes what is held, too.
                Stream::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
                Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            })?;
        }
        self.poll_farewell(cx).map(Ok)
    }
}

/// A TLS stream that encrypts at once and writes when it is flushed.
#[derive(Debug)]
pub(super) struct Tls<Io> {
    stream: TlsStream<Io>,
    /// A flush was put off until the turn is over.
    put_off: bool,
    turn: Arc<Turn>,
}

/// One pass of the runtime's thread over all tasks that are ready.
#[derive(Debug, Default)]
struct Turn {
    over: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Tls<Io> {
    pub(super) fn new(mut stream: TlsStream<Io>) -> Self {
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
        Self {
            stream,
            put_off: false,
            turn: Arc::default(),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let taken = self.stream.get_mut().1.writer().write_vectored(bufs)?;
            if taken > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                return Poll::Ready(Ok(taken));
            }
            // Full: the peer has to read something first.
            ready!(self.poll_flush(cx))?;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.put_off = false;
        self.turn.over.store(false, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Puts the flush off until the turn is over, and sees to it that the task is woken then. Whoever flushes must do so
    /// whenever it is polled, as an HTTP/2 connection does.
    fn poll_flush_after_the_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn.task.register(cx.waker());
        if self.turn.over.load(Ordering::Acquire) || !self.stream.get_ref().1.wants_write() {
            return self.poll_flush(cx);
        }
        if !self.put_off {
            self.put_off = true;
            // Never ready at its first poll: that has the turn's waker called once nothing else is ready.
            let waker = Arc::clone(&self.turn).into();
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName};
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio_rustls::{
        TlsAcceptor, TlsConnector, client,
        rustls::{ClientConfig, RootCertStore, ServerConfig},
    };

    use super::*;

    /// Counts what would be system calls.
    struct Counted {
        io: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.io).poll_write(cx, buf)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    /// Both ends after their handshake, and how often the server's has written since. Between them fit so many bytes.
    async fn connected(between: usize) -> (Tls<Counted>, client::TlsStream<DuplexStream>, Arc<AtomicUsize>) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let ((near, far), writes) = (duplex(between), Arc::<AtomicUsize>::default());
        let near = Counted {
            io: near,
            writes: Arc::clone(&writes),
        };
        let (acceptor, connector) = (
            TlsAcceptor::from(Arc::new(server)),
            TlsConnector::from(Arc::new(client)),
        );
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        writes.store(0, Ordering::Relaxed);
        (Tls::new(near.unwrap()), far.unwrap(), writes)
    }

    #[tokio::test]
    async fn what_is_flushed_piece_by_piece_in_one_turn_leaves_in_one_write() {
        let (mut tls, mut far, writes) = connected(1 << 20).await;
        let mut turn = 0;
        std::future::poll_fn(|cx| {
            turn += 1;
            if turn == 1 {
                for piece in [&b"data"[..], b", ", b"trailers"] {
                    assert!(tls.poll_write(cx, &[IoSlice::new(piece)]).is_ready());
                    assert!(tls.poll_flush_after_the_turn(cx).is_ready());
                }
                assert_eq!(writes.load(Ordering::Relaxed), 0, "not yet");
                return Poll::Pending;
            }
            tls.poll_flush_after_the_turn(cx)
        })
        .await
        .unwrap();
        assert_eq!((turn, writes.load(Ordering::Relaxed)), (2, 1));
        let mut read = [0; 14];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"data, trailers");
    }

    #[tokio::test]
    async fn more_than_the_buffer_holds_waits_for_the_peer_and_all_of_it_arrives() {
        let (mut tls, mut far, _) = connected(16 << 10).await;
        let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let mut left = &sent[..];
        let mut read = vec![0; sent.len()];
        let write = std::future::poll_fn(|cx| {
            while !left.is_empty() {
                let taken = ready!(tls.poll_write(cx, &[IoSlice::new(left)]))?;
                assert!(taken <= WRITE_BUFFER, "it holds no more than it says");
                left = &left[taken..];
            }
            tls.poll_flush(cx)
        });
        let (written, received) = tokio::join!(write, far.read_exact(&mut read));
        written.unwrap();
        received.unwrap();
        assert!(read == sent);
    }
}
