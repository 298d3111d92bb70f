//! The child's side: it loads one module and obeys. One thread only listens, so that the end of the parent is heard whatever the module is busy
//! with; another one calls the module, and each lane has its own.

use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::frames::{self, LaneSocket, Request, Response, receive, send};
use super::keep_name;
use crate::ckr::CkrError;
use crate::config::InitArgs;
use crate::driver::Driver;
use crate::login::OneTry;
use crate::module::LocalModule;
use crate::{exit, sys};

/// The life of a child process: standard input is the control socket, the arguments after the subcommand are the module's path and
/// `os-locking` or `none`. Returns when the parent closes the socket or dies, which is when the process must end, by [`crate::exit::run`]:
/// a call of the module may still be out.
///
/// # Errors
/// Where standard input is no such socket, the parent is of another version, or the arguments are not those that the pool gives.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let usage = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "this subcommand is for the pool itself: it runs a module in a child process",
        )
    };
    let path = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let init_args = match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("os-locking") => InitArgs::OsLocking,
        Some("none") => InitArgs::None,
        _ => return Err(usage()),
    };
    keep_name();
    // A service manager signals every process of the service, a terminal every one in front. This one ends when the parent has no more
    // use for it: before that, what the parent has admitted is to be signed.
    sys::ignore_requests_to_end();
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    frames::greet(&control).map_err(io::Error::other)?;
    let answers = control.try_clone()?;
    let (orders, inbox) = mpsc::channel();
    exit::spawn("module", move || work(&path, init_args, &inbox, answers))?;
    loop {
        let order = match receive::<Request>(&control) {
            Ok(order) => order,
            // The parent is gone or wants no more: sessions end with the process.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if orders.send(order).is_err() {
            // The parent can only be told by the end.
            return Err(io::Error::other("the thread that calls the module has ended"));
        }
    }
}

/// Shuts the control socket when the thread ends that answers on it, in whatever way: the parent must not wait for answers that do not come.
struct Answers(UnixStream);

impl Drop for Answers {
    fn drop(&mut self) {
        // Where the parent is gone it is shut.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Calls the module as ordered, one order after the other.
fn work(path: &Path, init_args: InitArgs, inbox: &mpsc::Receiver<(Request, Option<OwnedFd>)>, answers: UnixStream) {
    let answers = Answers(answers);
    let module = LocalModule::load(path, init_args);
    while let Ok((request, descriptor)) = inbox.recv() {
        let response = match &module {
            Ok(module) => obey(module.as_ref(), request, descriptor.map(UnixStream::from)),
            Err(error) => {
                // Said once, where the operator looks; the parent is told that nothing works.
                eprintln!("{error}");
                Err(CkrError {
                    function: "C_Initialize",
                    code: cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED as u64,
                })
            }
        };
        let response = response.unwrap_or_else(|error| Response::Failed {
            function: error.function.to_owned(),
            code: error.code,
        });
        if send(&answers.0, &response, None).is_err() {
            return;
        }
    }
}

fn obey(module: &dyn Driver, request: Request, lane: Option<UnixStream>) -> Result<Response, CkrError> {
    match request {
        Request::Start => module.start()?,
        Request::Stop => module.stop()?,
        Request::Tokens => return module.tokens().map(Response::Tokens),
        Request::Facts { slot } => return module.facts(slot).map(Response::Facts),
        Request::Open { slot } => module.open(slot)?,
        Request::Login { slot, pin } => module.login(slot, OneTry::marked_by_the_parent(pin))?,
        Request::Discover { slot } => return module.discover(slot).map(Response::Keys),
        Request::Objects { slot } => return module.objects(slot).map(Response::Objects),
        Request::Library => return module.library().map(Response::Library),
        Request::Slots => return module.slots().map(Response::Slots),
        Request::Mechanisms { slot } => return module.mechanisms(slot).map(Response::Mechanisms),
        Request::Close { slot } => module.close(slot),
        Request::Session { slot, single } => {
            let lane = lane.ok_or(CkrError {
                function: "C_OpenSession",
                code: cryptoki_sys::CKR_ARGUMENTS_BAD as u64,
            })?;
            let mut session = module.session(slot, single)?;
            let mut lane = LaneSocket::new(lane);
            exit::spawn(
                "lane",
                move || while lane.serve(&mut |call| session.sign(call)).is_ok() {},
            )
            .map_err(|_| CkrError {
                function: "C_OpenSession",
                code: cryptoki_sys::CKR_HOST_MEMORY as u64,
            })?;
        }
    }
    Ok(Response::Done)
}
