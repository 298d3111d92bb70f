//! Return values of PKCS#11 by name, and the error that carries one with the function that gave it.

use std::fmt;

use cryptoki::error::{Error, Rv, RvError};
use cryptoki_sys as ck;

macro_rules! names {
    ($($name:ident)*) => {
        /// The name of a return value (PKCS#11 3.1, section 5.1), or what it is where it has none.
        pub(crate) fn name(code: u64) -> &'static str {
            match code {
                $(code if code == ck::$name as u64 => stringify!($name),)*
                code if code & VENDOR_DEFINED != 0 => "CKR_VENDOR_DEFINED",
                _ => "CKR unknown",
            }
        }
        /// Every code that has a name here.
        const NAMED: &[u64] = &[$(ck::$name as u64),*];
    };
}

/// Bit of the codes that belong to vendors (`CKR_VENDOR_DEFINED`).
pub(crate) const VENDOR_DEFINED: u64 = 0x8000_0000;

names! {
    CKR_OK CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED CKR_ARGUMENTS_BAD CKR_NO_EVENT
    CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID
    CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY
    CKR_DEVICE_REMOVED CKR_FUNCTION_CANCELED CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID
    CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT CKR_KEY_NOT_NEEDED CKR_KEY_CHANGED CKR_KEY_NEEDED CKR_KEY_INDIGESTIBLE
    CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_NOT_WRAPPABLE CKR_KEY_UNEXTRACTABLE CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID
    CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE CKR_OPERATION_NOT_INITIALIZED CKR_PIN_INCORRECT CKR_PIN_INVALID
    CKR_PIN_LEN_RANGE CKR_PIN_EXPIRED CKR_PIN_LOCKED CKR_SESSION_CLOSED CKR_SESSION_COUNT CKR_SESSION_HANDLE_INVALID
    CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY CKR_SESSION_EXISTS CKR_SESSION_READ_ONLY_EXISTS
    CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID CKR_SIGNATURE_LEN_RANGE CKR_TEMPLATE_INCOMPLETE
    CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED
    CKR_USER_ALREADY_LOGGED_IN CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_TOO_MANY_TYPES CKR_RANDOM_NO_RNG CKR_DOMAIN_PARAMS_INVALID CKR_BUFFER_TOO_SMALL
    CKR_CRYPTOKI_NOT_INITIALIZED CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_FUNCTION_REJECTED
}

/// What a PKCS#11 call answered instead of `CKR_OK`: the whole return value, and whose it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CkrError {
    /// The function, such as `C_Sign`.
    pub function: &'static str,
    /// The return value as the module gave it.
    pub code: u64,
}

impl CkrError {
    /// The return value's name, such as `CKR_DEVICE_ERROR`; vendors' codes are `CKR_VENDOR_DEFINED`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name(self.code)
    }
}

/// `cryptoki` turns codes into names and offers no way back.
pub(crate) fn code_of(error: RvError) -> u64 {
    match error {
        RvError::VendorDefined(code) | RvError::UnknownErrorCode(code) => code as u64,
        known => NAMED
            .iter()
            .copied()
            .find(|code| Rv::from(*code as ck::CK_RV) == Rv::Error(known))
            .unwrap_or(ck::CKR_GENERAL_ERROR as u64),
    }
}

impl fmt::Display for CkrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (0x{:08x})", self.function, self.name(), self.code)
    }
}

impl std::error::Error for CkrError {}

/// `cryptoki`'s error with the code whole again.
pub(crate) fn ckr(error: &Error) -> CkrError {
    match error {
        Error::Pkcs11(value, function) => CkrError {
            function: function_name(*function),
            code: code_of(*value),
        },
        // What cryptoki finds wrong on its own: it could not make sense of the module's answer.
        other => {
            tracing::debug!(error = %other, "the module's answer cannot be read");
            CkrError {
                function: "cryptoki",
                code: u64::from(ck::CKR_GENERAL_ERROR),
            }
        }
    }
}

/// The C name of what `cryptoki` called.
fn function_name(function: cryptoki::context::Function) -> &'static str {
    use cryptoki::context::Function as F;
    macro_rules! names {
        ($($name:ident => $c:literal)*) => { match function { $(F::$name => $c,)* _ => "C_?" } };
    }
    names! {
        Initialize => "C_Initialize" Finalize => "C_Finalize" GetInfo => "C_GetInfo" GetSlotList => "C_GetSlotList"
        GetSlotInfo => "C_GetSlotInfo" GetTokenInfo => "C_GetTokenInfo" GetMechanismList => "C_GetMechanismList"
        GetMechanismInfo => "C_GetMechanismInfo" InitToken => "C_InitToken" InitPIN => "C_InitPIN" SetPIN => "C_SetPIN"
        OpenSession => "C_OpenSession" CloseSession => "C_CloseSession" CloseAllSessions => "C_CloseAllSessions"
        GetSessionInfo => "C_GetSessionInfo" Login => "C_Login" Logout => "C_Logout" CreateObject => "C_CreateObject"
        DestroyObject => "C_DestroyObject" GetAttributeValue => "C_GetAttributeValue" SetAttributeValue => "C_SetAttributeValue"
        FindObjectsInit => "C_FindObjectsInit" FindObjects => "C_FindObjects" FindObjectsFinal => "C_FindObjectsFinal"
        SignInit => "C_SignInit" Sign => "C_Sign" GenerateKeyPair => "C_GenerateKeyPair" GenerateRandom => "C_GenerateRandom"
    }
}
