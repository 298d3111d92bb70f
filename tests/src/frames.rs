//! HTTP/2 by hand (RFC 9113): what no well-behaved library would send, after a handshake like any other's.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::Appliance;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a client says first (RFC 9113, section 3.4), and an empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Types of frames (RFC 9113, section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the RFC's own words")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// ACK of SETTINGS and PING.
pub const ACK: u8 = 1;

/// A frame's header and its payload. The length is the payload's, unless it is to lie.
///
/// # Panics
/// Where the payload is longer than a frame's length can say.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length has 24 bits");
    assert!(length < 1 << 24, "a frame's length has 24 bits");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block (RFC 7541) of a gRPC call, every field a literal that nobody indexes.
#[must_use]
pub fn call_headers(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A field that is not indexed, its name and value as they are (RFC 7541, section 6.2.2).
///
/// # Panics
/// Where either has more than 126 bytes.
#[must_use]
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "a length in one byte");
        field.extend(u8::try_from(text.len()));
        field.extend(text.as_bytes());
    }
    field
}

/// Who opens connections with a client's certificate.
#[derive(Clone)]
pub struct Dialer {
    connector: TlsConnector,
    appliance: std::net::SocketAddr,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// With the certificate of this client of the appliance's folder.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn of(appliance: &Appliance, client: &str) -> Self {
        let read = |name: String| std::fs::read(appliance.dir().join(name)).expect("a file of the appliance's folder");
        let certificates = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
            let parsed: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
            parsed.expect("certificates in PEM")
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&read("ca.crt".into())) {
            roots.add(authority).expect("the appliance's CA");
        }
        let key = PrivateKeyDer::from_pem_slice(&read(format!("clients/{client}.key"))).expect("a key in PEM");
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&read(format!("clients/{client}.crt"))), key)
            .expect("certificate and key belong together");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            appliance: appliance.address(),
        }
    }

    /// A TLS connection on which nothing was said yet.
    ///
    /// # Errors
    /// Where the connection or its handshake fails.
    pub async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.appliance).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.appliance.ip());
        timeout(PATIENCE, self.connector.connect(name, stream)).await?
    }

    /// An HTTP/2 connection: preface and SETTINGS are exchanged, and acknowledged by this side.
    ///
    /// # Errors
    /// Where the connection, its handshake or the exchange fails.
    pub async fn open(&self) -> io::Result<Frames> {
        let mut frames = Frames {
            stream: self.dial().await?,
            sent: 0,
        };
        frames.send(PREFACE).await?;
        // The service's SETTINGS come first; its acknowledgement of ours, after them.
        while !matches!(frames.next().await?, Frame { kind: kind::SETTINGS, flags, .. } if flags & ACK == 0) {}
        frames.send(&frame(kind::SETTINGS, ACK, 0, &[])).await?;
        while !matches!(frames.next().await?, Frame { kind: kind::SETTINGS, flags, .. } if flags & ACK != 0) {}
        Ok(frames)
    }
}

/// An HTTP/2 connection whose frames are written by hand.
#[derive(Debug)]
pub struct Frames {
    stream: TlsStream<TcpStream>,
    sent: usize,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What follows its header.
    pub payload: Vec<u8>,
}

/// How a peer that means no good was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// GOAWAY with this error code (RFC 9113, section 7), or the connection closed without one.
    Connection(Option<u32>),
    /// RST_STREAM with this error code.
    Stream(u32),
    /// HEADERS that end the stream, or DATA before them: an answer of gRPC's.
    Answered,
}

impl Frames {
    /// Sends bytes as they are. A peer that does not read for long is an error.
    ///
    /// # Errors
    /// Where the connection is closed, or nothing is read at the other end.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await??;
        timeout(PATIENCE, self.stream.flush()).await??;
        self.sent += bytes.len();
        Ok(())
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// The next frame.
    ///
    /// # Errors
    /// Where none comes before the connection ends.
    pub async fn next(&mut self) -> io::Result<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            Ok(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                payload,
            })
        };
        timeout(PATIENCE, read).await?
    }

    /// Reads until the other end has refused what was sent, the connection as a whole or the stream.
    ///
    /// # Panics
    /// Where it does neither for long.
    pub async fn ending(&mut self) -> Ending {
        loop {
            let frame = match self.next().await {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("neither refused nor closed"),
                Err(_) => return Ending::Connection(None),
            };
            let code = |at: usize| {
                let code = frame.payload.get(at..at + 4)?;
                Some(u32::from_be_bytes(code.try_into().ok()?))
            };
            match frame.kind {
                kind::GOAWAY => return Ending::Connection(code(4)),
                kind::RST_STREAM => return Ending::Stream(code(0).unwrap_or_default()),
                kind::HEADERS if frame.flags & END_STREAM != 0 => return Ending::Answered,
                _ => {}
            }
        }
    }
}
