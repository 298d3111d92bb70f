//! A PKCS#11 module that forwards to a real one and misbehaves on command: latency and engines of a distant HSM, hangs, any return
//! value at any call, caps, lost sessions, lost logins, removal, restarts, locked PINs, flipped bits, crashes.
//!
//! The real module's library is named by `FAULTY_TOKEN_MODULE`. Commands come over a Unix socket at `FAULTY_TOKEN_CONTROL`, a line each, and
//! hold when their answer (`ok …` or `error …`) has come; [`control`] lists them. `FAULTY_TOKEN_START` may hold commands, separated by `;`, for
//! the start: an isolated child begins with them each time. `FAULTY_TOKEN_LOGINS` may name a file that gets a byte for each call of C_Login, of
//! whichever process: what a token counts. Only for tests and capacity work: it is a way to make a token fail.

// CK_ULONG is as wide as the platform's long.
#![allow(clippy::unnecessary_cast, clippy::cast_possible_truncation)]

mod control;
mod ffi;
mod state;
mod trap;

pub use control::send;
