//! Where `unsafe` is allowed in this crate: the raw functions of PKCS#11 ([`raw`]), what makes them safe to call (here), and what the pool does
//! to its own process ([`process`]).
//!
//! In comes a library's path, out come calls that are safe because three promises are kept by the types: nothing is called but between
//! `C_Initialize` and `C_Finalize`, neither of these runs beside another call, and a session is used by one thread at a time. What goes through
//! `cryptoki` is made safe there, and counted here where it may run beside the end of the module ([`Functions::enter`]).
#![allow(unsafe_code)]

mod process;
mod raw;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cryptoki::session::Session;
use cryptoki_sys as ck;

use self::raw::RawFunctions;
use crate::ckr::CkrError;
use crate::config::InitArgs;

pub use process::set_module_environment;
pub(crate) use process::{ignore_requests_to_end, leave_without_destructors};
pub(crate) use raw::SlotId;

/// A loaded library, and whether it may be called.
pub(crate) struct Functions {
    raw: RawFunctions,
    /// [`READY`] or [`CHANGING`] or neither, and the number of calls that are out.
    state: AtomicUsize,
}

/// The library is initialised.
const READY: usize = 1 << (usize::BITS - 1);
/// `C_Initialize` or `C_Finalize` runs.
const CHANGING: usize = 1 << (usize::BITS - 2);

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}

/// A call that is out: the library is initialised, and is not ended meanwhile.
#[must_use]
pub(crate) struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn refuse(function: &'static str, code: ck::CK_RV) -> CkrError {
    CkrError {
        function,
        code: u64::from(code),
    }
}

impl Functions {
    /// Loads a library and asks for its function list.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: that the path names a PKCS#11 library is the operator's word.
        let raw = unsafe { RawFunctions::load(path) }?;
        Ok(Self {
            raw,
            state: AtomicUsize::new(0),
        })
    }

    /// `C_Initialize`.
    ///
    /// # Errors
    /// The library's own; that somebody else in this process has initialised it is one, and it may be called then.
    /// `CKR_CRYPTOKI_ALREADY_INITIALIZED` too where it was initialised here, `CKR_FUNCTION_FAILED` where that is just being done.
    pub(crate) fn initialize(&self, args: InitArgs) -> Result<(), CkrError> {
        const NAME: &str = "C_Initialize";
        self.state
            .compare_exchange(0, CHANGING, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|state| match state & READY {
                0 => refuse(NAME, ck::CKR_FUNCTION_FAILED),
                _ => refuse(NAME, ck::CKR_CRYPTOKI_ALREADY_INITIALIZED),
            })?;
        // SAFETY: no call was out and none begins before the state says that the library is ready.
        let outcome = unsafe { self.raw.initialize(args) };
        let usable = match &outcome {
            Ok(()) => true,
            Err(error) => error.code == u64::from(ck::CKR_CRYPTOKI_ALREADY_INITIALIZED),
        };
        self.state.store(if usable { READY } else { 0 }, Ordering::Release);
        outcome
    }

    /// `C_Finalize`. Whatever it answers, the library counts as ended.
    ///
    /// # Errors
    /// The library's own; `CKR_FUNCTION_FAILED` where a call is out, which forbids it, and `CKR_CRYPTOKI_NOT_INITIALIZED`.
    pub(crate) fn finalize(&self) -> Result<(), CkrError> {
        const NAME: &str = "C_Finalize";
        self.state
            .compare_exchange(READY, CHANGING, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|state| match state {
                0 => refuse(NAME, ck::CKR_CRYPTOKI_NOT_INITIALIZED),
                _ => refuse(NAME, ck::CKR_FUNCTION_FAILED),
            })?;
        // SAFETY: no call was out and none begins any more.
        let outcome = unsafe { self.raw.finalize() };
        self.state.store(0, Ordering::Release);
        outcome
    }

    /// Begins a call of this function, here or through `cryptoki`: while its answer is held, the library is not ended.
    ///
    /// # Errors
    /// `CKR_CRYPTOKI_NOT_INITIALIZED` where the library is not initialised, or is just being ended.
    pub(crate) fn enter(&self, function: &'static str) -> Result<Call<'_>, CkrError> {
        let one_more = |state| (state & READY != 0).then_some(state + 1);
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Call(&self.state)),
            Err(_) => Err(refuse(function, ck::CKR_CRYPTOKI_NOT_INITIALIZED)),
        }
    }

    /// `CK_INFO`, for people.
    pub(crate) fn info(&self) -> Result<ck::CK_INFO, CkrError> {
        let _call = self.enter("C_GetInfo")?;
        // SAFETY: the library is initialised and stays so while the call is out.
        unsafe { self.raw.info() }
    }

    /// Slots, with or without a token in them.
    pub(crate) fn slots(&self, with_token: bool) -> Result<Vec<SlotId>, CkrError> {
        let _call = self.enter("C_GetSlotList")?;
        // SAFETY: the library is initialised and stays so while the call is out.
        unsafe { self.raw.slots(with_token) }
    }

    pub(crate) fn slot_info(&self, slot: SlotId) -> Result<ck::CK_SLOT_INFO, CkrError> {
        let _call = self.enter("C_GetSlotInfo")?;
        // SAFETY: the library is initialised and stays so while the call is out.
        unsafe { self.raw.slot_info(slot) }
    }

    pub(crate) fn token_info(&self, slot: SlotId) -> Result<ck::CK_TOKEN_INFO, CkrError> {
        let _call = self.enter("C_GetTokenInfo")?;
        // SAFETY: the library is initialised and stays so while the call is out.
        unsafe { self.raw.token_info(slot) }
    }

    /// `C_SignInit` and one `C_Sign` into `out`, whose length must be the signature's. Answers how much was written.
    ///
    /// After any error the session must be closed: whether the operation is still active is the module's secret.
    pub(crate) fn sign(
        &self,
        session: &Session,
        mechanism: u64,
        key: u64,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CkrError> {
        let _call = self.enter("C_SignInit")?;
        // SAFETY: the library is initialised and stays so while the call is out. A `Session` is not `Sync`, so that who has a reference
        // to one is on the only thread that has.
        unsafe { self.raw.sign(session.handle(), mechanism, key, data, out) }
    }
}
