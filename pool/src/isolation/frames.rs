//! What crosses between parent and child: a length of four bytes, little-endian, and so many bytes. Administration is JSON, since it is rare;
//! signatures are fixed fields, since they are not.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

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
        sent = sendmsg(socket, &[io::IoSlice::new(&whole)], &mut control, SendFlags::NOSIGNAL)?;
    }
    (&mut { socket }).write_all(&whole[sent..])
}

/// Receives a frame of the control socket, and the descriptor that came with it.
pub(super) fn receive<T: for<'a> Deserialize<'a>>(socket: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?
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
pub(super) struct LaneSocket {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl LaneSocket {
    pub(super) fn new(socket: UnixStream) -> Self {
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
            match self.socket.read(&mut self.buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
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
