//! The raw side of PKCS#11: the one file of this crate where `unsafe` is allowed.
//!
//! In comes a library's path, out come calls that are safe under two rules that the callers keep and that no type can: a
//! session is used by one thread at a time, and nothing is called after `C_Finalize` but `C_Initialize`. A module answers both
//! breaches with a return value (`CKR_SESSION_HANDLE_INVALID`, `CKR_CRYPTOKI_NOT_INITIALIZED`), so they are wrong and not unsound
//! where the module keeps the standard. Why not through `cryptoki`: its `Session::sign` calls `C_Sign` twice to learn the length,
//! which costs a round trip on a network HSM; it cannot pass `NULL` to `C_Initialize`; and it refuses a token whose clock reads oddly.
#![allow(unsafe_code)]

use std::path::Path;
use std::ptr;

use cryptoki_sys as ck;

use crate::ckr::CkrError;
use crate::config::InitArgs;

/// A session's handle.
pub(crate) type SessionHandle = ck::CK_SESSION_HANDLE;
/// A slot's identifier.
pub(crate) type SlotId = ck::CK_SLOT_ID;

/// The function list of one loaded library. The library is never unloaded: modules start threads and leave exit handlers behind.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    list: ck::CK_FUNCTION_LIST,
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").finish_non_exhaustive()
    }
}

/// Calls a function of the list by name; a null entry is `CKR_FUNCTION_NOT_SUPPORTED`.
macro_rules! call {
    ($functions:expr, $name:ident ( $($arg:expr),* )) => {
        match $functions.list.$name {
            // SAFETY: the pointer comes from the module's own function list, whose library is never unloaded. Every pointer
            // argument below points to memory that outlives the call and has the length that is passed beside it.
            Some(function) => match unsafe { function($($arg),*) } {
                ck::CKR_OK => Ok(()),
                code => Err(CkrError { function: stringify!($name), code: u64::from(code) }),
            },
            None => Err(CkrError { function: stringify!($name), code: u64::from(ck::CKR_FUNCTION_NOT_SUPPORTED) }),
        }
    };
}

impl Functions {
    /// Loads a library and asks for its function list (`C_GetFunctionList`, which may be called before `C_Initialize`).
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: loading runs the library's initialisers. That the path names a PKCS#11 module is the operator's word.
        let library = unsafe { ck::Pkcs11::new(path) }.map_err(|e| e.to_string())?;
        let get = library
            .C_GetFunctionList
            .as_ref()
            .map_err(|_| "it exports no C_GetFunctionList".to_owned())?;
        let mut list: *mut ck::CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: C_GetFunctionList writes one pointer to a place that we own.
        let code = unsafe { get(&raw mut list) };
        if code != ck::CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList: {} (0x{code:08x})", crate::ckr::name(code)));
        }
        // SAFETY: PKCS#11 3.1, section 5.4.4: the pointer is to a list that lives as long as the library. A copy is read before anything
        // else can touch it; read_unaligned because packed lists exist.
        let list = unsafe { ptr::read_unaligned(list) };
        // Never unloaded, see above.
        std::mem::forget(library);
        Ok(Self { list })
    }

    pub(crate) fn initialize(&self, args: InitArgs) -> Result<(), CkrError> {
        let mut with_locks = ck::CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: ck::CKF_OS_LOCKING_OK,
            pReserved: ptr::null_mut(),
        };
        let args: ck::CK_VOID_PTR = match args {
            InitArgs::OsLocking => (&raw mut with_locks).cast(),
            InitArgs::None => ptr::null_mut(),
        };
        call!(self, C_Initialize(args))
    }

    pub(crate) fn finalize(&self) -> Result<(), CkrError> {
        call!(self, C_Finalize(ptr::null_mut()))
    }

    /// `CK_INFO`, for people.
    pub(crate) fn info(&self) -> Result<ck::CK_INFO, CkrError> {
        let mut info = ck::CK_INFO::default();
        call!(self, C_GetInfo(&raw mut info))?;
        Ok(info)
    }

    /// Slots, with or without a token in them.
    pub(crate) fn slots(&self, with_token: bool) -> Result<Vec<SlotId>, CkrError> {
        let present = if with_token { ck::CK_TRUE } else { ck::CK_FALSE };
        loop {
            let mut count: ck::CK_ULONG = 0;
            call!(self, C_GetSlotList(present, ptr::null_mut(), &raw mut count))?;
            let mut slots = vec![0; usize::try_from(count).unwrap_or(0).min(4096)];
            let mut filled = slots.len() as ck::CK_ULONG;
            match call!(self, C_GetSlotList(present, slots.as_mut_ptr(), &raw mut filled)) {
                // A slot came between the two calls.
                Err(error) if error.code == u64::from(ck::CKR_BUFFER_TOO_SMALL) => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    slots.truncate(usize::try_from(filled).unwrap_or(0));
                    return Ok(slots);
                }
            }
        }
    }

    pub(crate) fn slot_info(&self, slot: SlotId) -> Result<ck::CK_SLOT_INFO, CkrError> {
        let mut info = ck::CK_SLOT_INFO::default();
        call!(self, C_GetSlotInfo(slot, &raw mut info))?;
        Ok(info)
    }

    pub(crate) fn token_info(&self, slot: SlotId) -> Result<ck::CK_TOKEN_INFO, CkrError> {
        let mut info = ck::CK_TOKEN_INFO::default();
        call!(self, C_GetTokenInfo(slot, &raw mut info))?;
        Ok(info)
    }

    /// A serial session, read-only where the module has such.
    pub(crate) fn open_session(&self, slot: SlotId, read_write: bool) -> Result<SessionHandle, CkrError> {
        let mut session: SessionHandle = 0;
        let flags = ck::CKF_SERIAL_SESSION | if read_write { ck::CKF_RW_SESSION } else { 0 };
        call!(
            self,
            C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut session)
        )?;
        Ok(session)
    }

    pub(crate) fn close_session(&self, session: SessionHandle) -> Result<(), CkrError> {
        call!(self, C_CloseSession(session))
    }

    /// `C_SignInit` and one `C_Sign` into `out`, whose length must be the signature's. Answers how much was written.
    ///
    /// After any error the session must be closed: whether the operation is still active is the module's secret.
    pub(crate) fn sign(
        &self,
        session: SessionHandle,
        mechanism: u64,
        key: u64,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CkrError> {
        let mut mechanism = ck::CK_MECHANISM {
            mechanism: mechanism as ck::CK_MECHANISM_TYPE,
            pParameter: ptr::null_mut(),
            ulParameterLen: 0,
        };
        let mut written = out.len() as ck::CK_ULONG;
        call!(
            self,
            C_SignInit(session, &raw mut mechanism, key as ck::CK_OBJECT_HANDLE)
        )?;
        // The standard takes a pointer to mutable data and writes nothing to it.
        call!(
            self,
            C_Sign(
                session,
                data.as_ptr().cast_mut(),
                data.len() as ck::CK_ULONG,
                out.as_mut_ptr(),
                &raw mut written
            )
        )?;
        Ok(usize::try_from(written).unwrap_or(usize::MAX).min(out.len()))
    }
}

/// Sets variables that PKCS#11 modules read at `C_Initialize`, such as `SOFTHSM2_CONF`. Call it first in `main`, before the
/// runtime or anything else starts a thread.
///
/// # Errors
/// A sentence, where another thread already runs (looked up in `/proc` where there is one): a change of the environment while somebody reads it
/// is undefined behaviour (`setenv`, POSIX.1).
pub fn set_module_environment<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Result<(), String>
where
    K: AsRef<std::ffi::OsStr>,
    V: AsRef<std::ffi::OsStr>,
{
    let mut variables = variables.into_iter().peekable();
    if variables.peek().is_none() {
        return Ok(());
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(format!(
            "the environment of PKCS#11 modules must be set before the first thread starts, and {threads} run; \
             set it outside, or run the module in a child process (isolation)"
        ));
    }
    for (name, value) in variables {
        // SAFETY: no other thread runs, so nobody reads the environment meanwhile (checked above; elsewhere than on Linux the
        // documentation obliges the caller).
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}
