//! What crosses between parent and child: a length of four bytes, little-endian, and so many bytes. Administration is JSON, since it is rare;
//! signatures are fixed fields, since they are not.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::admin::{LibraryFacts, Object, SlotFacts};
use crate::ckr::CkrError;
use crate::driver::{FoundKey, Made, SignCall, TokenFacts};
use crate::qualify::MechanismFacts;

/// The version of everything that crosses: to be counted up with every change of a frame in this file.
const VERSION: u32 = 1;
/// What a greeting begins with, before the version.
const MARK: [u8; 8] = *b"MUHURDAR";

/// Longest frame: a token with thousands of keys and their certificates.
const MAX_FRAME: usize = 64 << 20;
/// Longest frame of a lane: a message of the few kilobytes that SignedInfo has, for tokens that hash for themselves.
const MAX_SIGN_FRAME: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Start,
    Stop,
    Tokens,
    Facts {
        slot: u64,
    },
    Open {
        slot: u64,
    },
    Login {
        slot: u64,
        pin: String,
    },
    Discover {
        slot: u64,
    },
    Objects {
        slot: u64,
    },
    Library,
    Slots,
    Mechanisms {
        slot: u64,
    },
    Close {
        slot: u64,
    },
    /// The lane's socket comes with the frame.
    Session {
        slot: u64,
        single: bool,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Response {
    Done,
    Tokens(Vec<TokenFacts>),
    Facts(TokenFacts),
    Keys(Vec<FoundKey>),
    Objects(Vec<Object>),
    Library(LibraryFacts),
    Slots(Vec<SlotFacts>),
    Mechanisms(Vec<Option<MechanismFacts>>),
    Failed { function: String, code: u64 },
}

fn frame(body: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut whole = Zeroizing::new(Vec::with_capacity(4 + body.len()));
    whole.extend_from_slice(&length.to_le_bytes());
    whole.extend_from_slice(body);
    Ok(whole)
}

/// What is wrong between a parent and a child that greet each other.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    /// The other side is of another build, and would be misunderstood.
    #[error(
        "parent and child process are different versions of the program (here {VERSION}, there {}): it was replaced while it ran, or is \
         not the one that was to be started. Restart the service",
        theirs.map_or_else(|| "unknown".to_owned(), |version| version.to_string())
    )]
    Version {
        /// Its version, where it said one.
        theirs: Option<u32>,
    },
    /// It says nothing.
    #[error("no greeting of the other process has come: {0}")]
    Silent(#[from] io::Error),
    /// It is not there.
    #[error("it cannot be started: {0}")]
    NotStarted(io::Error),
}

/// The first frame each way: each side tells its version and hears the other's. It has the same form in every version.
pub(super) fn greet(socket: &UnixStream) -> Result<(), Stranger> {
    let mut greeting = [0; 12];
    greeting[..8].copy_from_slice(&MARK);
    greeting[8..].copy_from_slice(&VERSION.to_le_bytes());
    let mut socket = socket;
    socket.write_all(&frame(&greeting)?)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    if u32::from_le_bytes(length) as usize != greeting.len() {
        return Err(Stranger::Version { theirs: None });
    }
    socket.read_exact(&mut greeting)?;
    let (mark, version) = greeting.split_at(MARK.len());
    match version.try_into().map(u32::from_le_bytes) {
        Ok(VERSION) if mark == MARK => Ok(()),
        Ok(theirs) if mark == MARK => Err(Stranger::Version { theirs: Some(theirs) }),
        _ => Err(Stranger::Version { theirs: None }),
    }
}

/// Sends a frame of the control socket, and a descriptor with it. What it held is zeroized: it may be a PIN.
pub(super) fn send<T: Serialize>(socket: &UnixStream, message: &T, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let body = Zeroizing::new(serde_json::to_vec(message)?);
    let whole = frame(&body)?;
    let mut sent = 0;
    if let Some(descriptor) = descriptor {
        let descriptors = [descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Nothing was sent where a signal came first, so that it may be sent again.
        sent = retry_on_intr(|| sendmsg(socket, &[io::IoSlice::new(&whole)], &mut control, SendFlags::NOSIGNAL))?;
    }
    (&mut { socket }).write_all(&whole[sent..])
}

/// Receives a frame of the control socket, and the descriptor that came with it.
pub(super) fn receive<T: for<'a> Deserialize<'a>>(socket: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // A signal that this process handles interrupts it, for certain where a time-out is set (signal(7)).
    let got = retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut length)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?
    .bytes;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (&mut { socket }).read_exact(&mut length[got..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Zeroizing::new(vec![0; length]);
    (&mut { socket }).read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptor))
}

/// A lane's socket: one request, one answer, and a system call each way for either.
pub(super) struct LaneSocket<S = UnixStream> {
    socket: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> LaneSocket<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            buffer: Vec::with_capacity(1024),
        }
    }

    fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; 4]);
    }

    fn send(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.buffer.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.buffer[..4].copy_from_slice(&length.to_le_bytes());
        self.socket.write_all(&self.buffer)
    }

    /// Reads a frame; its body is `buffer[4..]` afterwards. The other side sends nothing more before it is answered.
    fn receive(&mut self) -> io::Result<()> {
        let mut filled = 0;
        let mut wanted = 4;
        self.buffer.resize(self.buffer.capacity().max(1024), 0);
        while filled < wanted {
            match self.socket.read(&mut self.buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                // A signal came: nothing was read, and nothing is lost.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if filled >= 4 && wanted == 4 {
                let length =
                    u32::from_le_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]) as usize;
                if length > MAX_SIGN_FRAME {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                wanted = 4 + length;
                if self.buffer.len() < wanted {
                    self.buffer.resize(wanted, 0);
                }
            }
        }
        self.buffer.truncate(wanted);
        Ok(())
    }

    /// The parent's side: asks and waits.
    pub(super) fn ask(&mut self, call: &SignCall<'_>) -> io::Result<Result<Made, CkrError>> {
        self.begin();
        self.buffer.extend_from_slice(&call.handle.to_le_bytes());
        self.buffer.extend_from_slice(&call.mechanism.to_le_bytes());
        self.buffer.extend_from_slice(&(call.length as u64).to_le_bytes());
        self.buffer.extend_from_slice(call.data);
        self.send()?;
        self.receive()?;
        let body = &self.buffer[4..];
        let (Some((kind, rest)), true) = (body.split_first(), body.len() >= 9) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let number = u64_at(rest, 0);
        Ok(match kind {
            0 => Ok(Made {
                value: rest[8..].to_vec(),
                cpu: Duration::from_nanos(number),
            }),
            _ => Err(CkrError {
                function: function(&String::from_utf8_lossy(&rest[8..])),
                code: number,
            }),
        })
    }

    /// The child's side: takes a request, and has it answered.
    pub(super) fn serve(&mut self, sign: &mut dyn FnMut(&SignCall<'_>) -> Result<Made, CkrError>) -> io::Result<()> {
        self.receive()?;
        if self.buffer.len() < 4 + 24 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let body = &self.buffer[4..];
        let length = usize::try_from(u64_at(body, 16)).unwrap_or(usize::MAX);
        if length > MAX_SIGN_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let made = sign(&SignCall {
            handle: u64_at(body, 0),
            mechanism: u64_at(body, 8),
            data: &body[24..],
            length,
        });
        self.begin();
        match made {
            Ok(made) => {
                self.buffer.push(0);
                self.buffer
                    .extend_from_slice(&crate::slot::nanos(made.cpu).to_le_bytes());
                self.buffer.extend_from_slice(&made.value);
            }
            Err(error) => {
                self.buffer.push(1);
                self.buffer.extend_from_slice(&error.code.to_le_bytes());
                self.buffer.extend_from_slice(error.function.as_bytes());
            }
        }
        self.send()
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// A function's name as this process knows it.
pub(super) fn function(name: &str) -> &'static str {
    const NAMES: [&str; 19] = [
        "C_Initialize",
        "C_Finalize",
        "C_GetInfo",
        "C_GetSlotList",
        "C_GetSlotInfo",
        "C_GetTokenInfo",
        "C_OpenSession",
        "C_CloseSession",
        "C_Login",
        "C_Logout",
        "C_GetAttributeValue",
        "C_FindObjectsInit",
        "C_FindObjects",
        "C_FindObjectsFinal",
        "C_SignInit",
        "C_Sign",
        "C_GetMechanismList",
        "C_GetMechanismInfo",
        "cryptoki",
    ];
    NAMES.into_iter().find(|known| *known == name).unwrap_or("C_?")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket on which every other call is interrupted, and which gives a byte at a time.
    #[derive(Default)]
    struct Interrupted {
        incoming: io::Cursor<Vec<u8>>,
        outgoing: Vec<u8>,
        calls: u32,
    }

    impl Interrupted {
        fn tick(&mut self) -> io::Result<()> {
            self.calls += 1;
            match self.calls % 2 {
                1 => Err(io::ErrorKind::Interrupted.into()),
                _ => Ok(()),
            }
        }
    }

    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.tick()?;
            self.incoming.read(&mut buffer[..1])
        }
    }

    impl Write for Interrupted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.tick()?;
            self.outgoing.write(&bytes[..1])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn signals_between_the_bytes_of_a_lane_cost_nothing() {
        let call = SignCall {
            handle: 7,
            mechanism: 1,
            data: b"digest",
            length: 256,
        };
        let mut parent = LaneSocket::new(Interrupted::default());
        // Sent; and nobody answers.
        let silence = parent.ask(&call).unwrap_err();
        assert_eq!(silence.kind(), io::ErrorKind::UnexpectedEof);
        let mut child = LaneSocket::new(Interrupted {
            incoming: io::Cursor::new(parent.socket.outgoing),
            ..Interrupted::default()
        });
        child
            .serve(&mut |asked| {
                assert_eq!((asked.handle, asked.data, asked.length), (7, b"digest".as_slice(), 256));
                Ok(Made {
                    value: vec![1, 2, 3],
                    cpu: Duration::ZERO,
                })
            })
            .unwrap();
        let mut parent = LaneSocket::new(Interrupted {
            incoming: io::Cursor::new(child.socket.outgoing),
            ..Interrupted::default()
        });
        assert_eq!(parent.ask(&call).unwrap().unwrap().value, [1, 2, 3]);
    }

    /// The service handles signals, and they come to whatever thread: also to one that waits for a child, whose socket has a time-out.
    #[test]
    fn a_signal_does_not_lose_a_child() {
        use std::sync::mpsc;

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let _enter = runtime.enter();
        let handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1());
        let _handled = handled.unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (me, thread) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            me.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            receive::<Response>(&ours).map(|(response, _)| matches!(response, Response::Done))
        });
        let thread = thread.recv().unwrap();
        let number = thread.file_name().unwrap().to_str().unwrap().to_owned();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            // kill(2) of a thread's number goes to that thread first where it does not block the signal.
            let sent = std::process::Command::new("kill")
                .args(["-s", "USR1", &number])
                .status();
            assert!(sent.unwrap().success());
        }
        send(&theirs, &Response::Done, None).unwrap();
        assert!(waiting.join().unwrap().unwrap());
    }

    #[test]
    fn those_who_are_of_one_version_understand_each_other_and_others_are_told_what_to_do() {
        let greeted_by = |said: Vec<u8>| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (&theirs).write_all(&said).unwrap();
            drop(theirs.shutdown(std::net::Shutdown::Write));
            greet(&ours).map_err(|stranger| stranger.to_string())
        };
        let greeting = |version: u32| {
            let body = [&MARK[..], &version.to_le_bytes()].concat();
            frame(&body).unwrap().to_vec()
        };
        assert_eq!(greeted_by(greeting(VERSION)), Ok(()));
        let newer = greeted_by(greeting(VERSION + 1)).unwrap_err();
        assert!(
            newer.contains(&format!("there {}", VERSION + 1)) && newer.contains("Restart"),
            "{newer}"
        );
        // As a parent began before there was a greeting.
        let older = greeted_by(frame(b"\"Start\"").unwrap().to_vec()).unwrap_err();
        assert!(older.contains("there unknown") && older.contains("Restart"), "{older}");
        let half = greeted_by(greeting(VERSION)[..7].to_vec()).unwrap_err();
        assert!(half.contains("no greeting"), "{half}");
    }
}
