//! The child's side: it loads one module and obeys.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::frames::{LaneSocket, Request, Response, receive, send};
use crate::ckr::CkrError;
use crate::config::InitArgs;
use crate::driver::Driver;
use crate::login::OneTry;
use crate::module::LocalModule;

/// The life of a child process: standard input is the control socket, the arguments after the subcommand are the module's path and
/// `os-locking` or `none`. Returns when the parent closes the socket or dies.
///
/// # Errors
/// Where standard input is no such socket, or the arguments are not those that the pool gives.
pub fn child_main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter();
    let usage = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "this subcommand is for the pool itself: it runs a module in a child process",
        )
    };
    let path = arguments.next().ok_or_else(usage)?;
    let init_args = match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("os-locking") => InitArgs::OsLocking,
        Some("none") => InitArgs::None,
        _ => return Err(usage()),
    };
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let module = LocalModule::load(Path::new(&path), init_args);
    loop {
        let (request, descriptor) = match receive::<Request>(&control) {
            Ok(received) => received,
            // The parent is gone or wants no more: sessions end with the process.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
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
        send(&control, &response, None)?;
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
            std::thread::spawn(move || while lane.serve(&mut |call| session.sign(call)).is_ok() {});
        }
    }
    Ok(Response::Done)
}
