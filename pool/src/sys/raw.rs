//! The functions of a loaded PKCS#11 library, as C has them: each trusts its caller, as its `# Safety` says. [`super::Functions`] is their one
//! caller, and keeps what is promised here.
//!
//! Why not through `cryptoki`: its `Session::sign` calls `C_Sign` twice to learn the length, which costs a round trip on a network HSM; it
//! cannot pass `NULL` to `C_Initialize`; and it refuses a token whose clock reads oddly. All the rest goes through it.

use std::path::Path;
use std::ptr;

use cryptoki_sys as ck;

use crate::ckr::CkrError;
use crate::config::InitArgs;

/// A session's handle.
pub(super) type SessionHandle = ck::CK_SESSION_HANDLE;
/// A slot's identifier.
pub(crate) type SlotId = ck::CK_SLOT_ID;

/// The function list of one loaded library. The library is never unloaded: modules start threads and leave exit handlers behind.
#[derive(Clone, Copy)]
pub(super) struct RawFunctions {
    list: ck::CK_FUNCTION_LIST,
}

/// Calls a function of the list by name; a null entry is `CKR_FUNCTION_NOT_SUPPORTED`.
macro_rules! call {
    ($functions:expr, $name:ident ( $($arg:expr),* )) => {
        match $functions.list.$name {
            // SAFETY: the pointer comes from the module's own function list, whose library is never unloaded. Every pointer
            // argument below points to memory that outlives the call and has the length that is passed beside it. What the module
            // itself asks for is the promise of whoever called the function that this stands in.
            Some(function) => match unsafe { function($($arg),*) } {
                ck::CKR_OK => Ok(()),
                code => Err(CkrError { function: stringify!($name), code: u64::from(code) }),
            },
            None => Err(CkrError { function: stringify!($name), code: u64::from(ck::CKR_FUNCTION_NOT_SUPPORTED) }),
        }
    };
}

impl RawFunctions {
    /// Loads a library and asks for its function list (`C_GetFunctionList`, which may be called before `C_Initialize`).
    ///
    /// # Safety
    /// The path names a PKCS#11 library: its initialisers run, and its entry is called as the standard says that it is.
    pub(super) unsafe fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: the caller's promise.
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

    /// `C_Initialize`.
    ///
    /// # Safety
    /// No other thread is in a call of this library meanwhile (PKCS#11 3.1, section 5.4.1).
    pub(super) unsafe fn initialize(&self, args: InitArgs) -> Result<(), CkrError> {
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

    /// `C_Finalize`.
    ///
    /// # Safety
    /// No other thread is in a call of this library meanwhile: what happens then is undefined (PKCS#11 3.1, section 5.4.2).
    pub(super) unsafe fn finalize(&self) -> Result<(), CkrError> {
        call!(self, C_Finalize(ptr::null_mut()))
    }

    /// `CK_INFO`, for people.
    ///
    /// # Safety
    /// The library is initialised, and stays so meanwhile.
    pub(super) unsafe fn info(&self) -> Result<ck::CK_INFO, CkrError> {
        let mut info = ck::CK_INFO::default();
        call!(self, C_GetInfo(&raw mut info))?;
        Ok(info)
    }

    /// Slots, with or without a token in them.
    ///
    /// # Safety
    /// The library is initialised, and stays so meanwhile.
    pub(super) unsafe fn slots(&self, with_token: bool) -> Result<Vec<SlotId>, CkrError> {
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

    /// `CK_SLOT_INFO`.
    ///
    /// # Safety
    /// The library is initialised, and stays so meanwhile.
    pub(super) unsafe fn slot_info(&self, slot: SlotId) -> Result<ck::CK_SLOT_INFO, CkrError> {
        let mut info = ck::CK_SLOT_INFO::default();
        call!(self, C_GetSlotInfo(slot, &raw mut info))?;
        Ok(info)
    }

    /// `CK_TOKEN_INFO`.
    ///
    /// # Safety
    /// The library is initialised, and stays so meanwhile.
    pub(super) unsafe fn token_info(&self, slot: SlotId) -> Result<ck::CK_TOKEN_INFO, CkrError> {
        let mut info = ck::CK_TOKEN_INFO::default();
        call!(self, C_GetTokenInfo(slot, &raw mut info))?;
        Ok(info)
    }

    /// `C_SignInit` and one `C_Sign` into `out`, whose length must be the signature's. Answers how much was written.
    ///
    /// After any error the session must be closed: whether the operation is still active is the module's secret.
    ///
    /// # Safety
    /// The library is initialised, and stays so meanwhile; and no other thread uses the session meanwhile.
    pub(super) unsafe fn sign(
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
