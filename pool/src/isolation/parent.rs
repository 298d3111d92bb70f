//! The parent's side: a driver whose module is in a child.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use super::Launch;
use super::frames::{LaneSocket, Request, Response, Stranger, function, greet, receive, send};
use crate::admin::{LibraryFacts, Object, SlotFacts};
use crate::bounded::STEP;
use crate::ckr::CkrError;
use crate::config::{InitArgs, TokenConfig};
use crate::driver::{Driver, FoundKey, Made, SignCall, TokenFacts, TokenSession};
use crate::error::OpenError;
use crate::login::OneTry;
use crate::module::lock;
use crate::qualify::MechanismFacts;

pub(super) struct ChildModule {
    launch: Launch,
    module: PathBuf,
    init_args: InitArgs,
    environment: Vec<(String, String)>,
    /// The longest that one call in the child may take.
    budget: Duration,
    running: Mutex<Option<Running>>,
    /// Why there is no child, where the last start came to nothing.
    trouble: Mutex<Option<String>>,
}

struct Running {
    child: Child,
    control: UnixStream,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for, so that no zombie stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child crashed, hangs or talks nonsense: only a new one helps.
fn gone(function: &'static str) -> CkrError {
    CkrError {
        function,
        code: cryptoki_sys::CKR_DEVICE_ERROR as u64,
    }
}

impl ChildModule {
    pub(super) fn new(token: &TokenConfig, launch: Launch) -> Self {
        Self {
            launch,
            module: token.module.clone(),
            init_args: token.init_args,
            environment: token.environment.clone(),
            budget: token.call_budget,
            running: Mutex::new(None),
            trouble: Mutex::new(None),
        }
    }

    fn spawn(&self) -> Result<Running, Stranger> {
        let running = self.begin().map_err(Stranger::NotStarted)?;
        greet(&running.control)?;
        tracing::info!(module = %self.module.display(), pid = running.child.id(), "the module runs in a child process");
        Ok(running)
    }

    fn begin(&self) -> io::Result<Running> {
        let (control, theirs) = UnixStream::pair()?;
        // Finding keys is many calls in one request.
        let patience = Some(self.budget.saturating_mul(STEP));
        control.set_read_timeout(patience)?;
        control.set_write_timeout(patience)?;
        let child = self
            .launch
            .command()?
            .arg(&self.module)
            .arg(match self.init_args {
                InitArgs::OsLocking => "os-locking",
                InitArgs::None => "none",
            })
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Out of the terminal's reach: at a Ctrl-C it is this process that ends, and answers first what it has begun.
            .process_group(0)
            .spawn()?;
        Ok(Running { child, control })
    }

    fn ask(&self, name: &'static str, request: &Request, descriptor: Option<&OwnedFd>) -> Result<Response, CkrError> {
        let mut running = lock(&self.running);
        let Some(child) = running.as_ref() else {
            return Err(CkrError {
                function: name,
                code: cryptoki_sys::CKR_CRYPTOKI_NOT_INITIALIZED as u64,
            });
        };
        let answer = send(&child.control, request, descriptor).and_then(|()| receive::<Response>(&child.control));
        match answer {
            Ok((Response::Failed { function: name, code }, _)) => Err(CkrError {
                function: function(&name),
                code,
            }),
            Ok((response, _)) => Ok(response),
            Err(error) => {
                tracing::error!(module = %self.module.display(), %error, call = name, "the child process of the module is lost");
                // Killed: after half a conversation nothing it says can be trusted.
                *running = None;
                Err(gone(name))
            }
        }
    }

    fn done(&self, name: &'static str, request: &Request) -> Result<(), CkrError> {
        self.ask(name, request, None).map(drop)
    }
}

impl Driver for ChildModule {
    fn start(&self) -> Result<(), CkrError> {
        {
            let mut running = lock(&self.running);
            if let Some(child) = running.as_mut()
                && !matches!(child.child.try_wait(), Ok(None))
            {
                *running = None;
            }
            if running.is_none() {
                let spawned = self.spawn();
                *lock(&self.trouble) = spawned.as_ref().err().map(ToString::to_string);
                *running = Some(spawned.map_err(|error| {
                    tracing::error!(module = %self.module.display(), %error, "the child process of the module cannot be started");
                    gone("C_Initialize")
                })?);
            }
        }
        self.done("C_Initialize", &Request::Start)
    }

    /// Kills the child: lanes that hang in it come back, and the next start makes a new one.
    fn stop(&self) -> Result<(), CkrError> {
        *lock(&self.running) = None;
        Ok(())
    }

    fn enter(&self) {}

    fn leave(&self) -> Result<(), CkrError> {
        self.stop()
    }

    fn can_kill(&self) -> bool {
        true
    }

    fn trouble(&self) -> Option<OpenError> {
        let cause = lock(&self.trouble).clone()?;
        Some(OpenError::Child {
            path: self.module.clone(),
            cause,
        })
    }

    fn tokens(&self) -> Result<Vec<TokenFacts>, CkrError> {
        match self.ask("C_GetSlotList", &Request::Tokens, None)? {
            Response::Tokens(tokens) => Ok(tokens),
            _ => Err(gone("C_GetSlotList")),
        }
    }

    fn facts(&self, slot: u64) -> Result<TokenFacts, CkrError> {
        match self.ask("C_GetTokenInfo", &Request::Facts { slot }, None)? {
            Response::Facts(facts) => Ok(facts),
            _ => Err(gone("C_GetTokenInfo")),
        }
    }

    fn open(&self, slot: u64) -> Result<(), CkrError> {
        self.done("C_OpenSession", &Request::Open { slot })
    }

    /// What the child does with it is one try, however that ends: a child that crashes, hangs or talks nonsense answers `CKR_DEVICE_ERROR`.
    fn login(&self, slot: u64, pin: OneTry) -> Result<(), CkrError> {
        let mut request = Request::Login {
            slot,
            pin: pin.expose().to_owned(),
        };
        let outcome = self.done("C_Login", &request);
        if let Request::Login { pin, .. } = &mut request {
            zeroize::Zeroize::zeroize(pin);
        }
        outcome
    }

    fn discover(&self, slot: u64) -> Result<Vec<FoundKey>, CkrError> {
        match self.ask("C_FindObjects", &Request::Discover { slot }, None)? {
            Response::Keys(keys) => Ok(keys),
            _ => Err(gone("C_FindObjects")),
        }
    }

    fn objects(&self, slot: u64) -> Result<Vec<Object>, CkrError> {
        match self.ask("C_FindObjects", &Request::Objects { slot }, None)? {
            Response::Objects(objects) => Ok(objects),
            _ => Err(gone("C_FindObjects")),
        }
    }

    fn library(&self) -> Result<LibraryFacts, CkrError> {
        match self.ask("C_GetInfo", &Request::Library, None)? {
            Response::Library(facts) => Ok(facts),
            _ => Err(gone("C_GetInfo")),
        }
    }

    fn slots(&self) -> Result<Vec<SlotFacts>, CkrError> {
        match self.ask("C_GetSlotInfo", &Request::Slots, None)? {
            Response::Slots(slots) => Ok(slots),
            _ => Err(gone("C_GetSlotInfo")),
        }
    }

    fn mechanisms(&self, slot: u64) -> Result<Vec<Option<MechanismFacts>>, CkrError> {
        match self.ask("C_GetMechanismInfo", &Request::Mechanisms { slot }, None)? {
            Response::Mechanisms(facts) => Ok(facts),
            _ => Err(gone("C_GetMechanismInfo")),
        }
    }

    /// The child is this driver's own.
    fn is_open(&self, _slot: u64) -> bool {
        false
    }

    fn close(&self, slot: u64) {
        if lock(&self.running).is_some() {
            // A child that is lost has closed everything.
            let _ = self.done("C_CloseSession", &Request::Close { slot });
        }
    }

    fn session(&self, slot: u64, single: bool) -> Result<Box<dyn TokenSession>, CkrError> {
        let (ours, theirs) = UnixStream::pair().map_err(|_| CkrError {
            function: "C_OpenSession",
            code: cryptoki_sys::CKR_HOST_MEMORY as u64,
        })?;
        self.ask(
            "C_OpenSession",
            &Request::Session { slot, single },
            Some(&OwnedFd::from(theirs)),
        )?;
        Ok(Box::new(ChildSession(LaneSocket::new(ours))))
    }
}

struct ChildSession(LaneSocket);

impl TokenSession for ChildSession {
    fn sign(&mut self, call: &SignCall<'_>) -> Result<Made, CkrError> {
        self.0.ask(call).unwrap_or_else(|_| Err(gone("C_Sign")))
    }
}
