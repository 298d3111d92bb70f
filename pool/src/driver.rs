//! What a slot asks of its module, wherever the module runs: in this process ([`crate::module`]) or in a child of it
//! ([`crate::isolation`]). Every call here may take as long as an HSM takes, so nothing async calls it.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{LibraryFacts, Object, SlotFacts};
use crate::ckr::CkrError;
use crate::config::{Isolation, Select, TokenConfig};
use crate::error::OpenError;
use crate::login::OneTry;
use crate::module::LocalModule;
use crate::qualify::MechanismFacts;

/// A module: its administration.
pub(crate) trait Driver: Send + Sync {
    /// Makes the module ready to be called (`C_Initialize`); done already is fine.
    fn start(&self) -> Result<(), CkrError>;
    /// Ends it (`C_Finalize`). Every session of every slot is gone afterwards.
    fn stop(&self) -> Result<(), CkrError>;
    /// A pool begins to use it.
    fn enter(&self);
    /// A pool has closed its sessions and needs it no more: the last one ends it.
    fn leave(&self) -> Result<(), CkrError>;
    /// Whether [`Driver::stop`] ends calls that hang. In this process nothing can.
    fn can_kill(&self) -> bool {
        false
    }
    /// Why the module did not start, where that is not the token's doing and no retry will mend it.
    fn trouble(&self) -> Option<OpenError> {
        None
    }
    /// The tokens that are there.
    fn tokens(&self) -> Result<Vec<TokenFacts>, CkrError>;
    /// One slot's token, read afresh.
    fn facts(&self, slot: u64) -> Result<TokenFacts, CkrError>;
    /// Opens the keeper session, which holds the login of the slot and signs nothing.
    fn open(&self, slot: u64) -> Result<(), CkrError>;
    /// Logs the keeper session in: `C_Login`, and nothing that may fail after it.
    fn login(&self, slot: u64, pin: OneTry) -> Result<(), CkrError>;
    /// The private keys with the certificates beside them, and what cannot be used ([`crate::discovery`]). The keeper's login signs
    /// probes for it.
    fn discover(&self, slot: u64) -> Result<Vec<FoundKey>, CkrError>;
    /// Everything on the token that the keeper's login sees, for people.
    fn objects(&self, slot: u64) -> Result<Vec<Object>, CkrError>;
    /// What the library says of itself.
    fn library(&self) -> Result<LibraryFacts, CkrError>;
    /// Every slot, with or without a token.
    fn slots(&self) -> Result<Vec<SlotFacts>, CkrError>;
    /// What the token can do with [`crate::qualify::MECHANISMS`], in their order; `None` where it has one not.
    fn mechanisms(&self, slot: u64) -> Result<Vec<Option<MechanismFacts>>, CkrError>;
    /// Whether somebody has a keeper session on this slot already.
    fn is_open(&self, slot: u64) -> bool;
    /// Closes the keeper session, as well as it can be closed.
    fn close(&self, slot: u64);
    /// A session to sign with. Where `single`, it is the keeper's own.
    fn session(&self, slot: u64, single: bool) -> Result<Box<dyn TokenSession>, CkrError>;
}

/// The driver of a token's module: in this process or in a child of it, as the token is configured. In this process one per module, shared by
/// its tokens. `child_command` starts the child; without it this binary does.
pub(crate) fn driver(token: &TokenConfig, child_command: Option<&[OsString]>) -> Result<Arc<dyn Driver>, OpenError> {
    match token.isolation {
        Isolation::None => LocalModule::load(&token.module, token.init_args).map(|module| module as Arc<dyn Driver>),
        Isolation::Process => crate::isolation::driver(token, child_command),
    }
}

/// A session that signs: owned by one thread.
pub(crate) trait TokenSession: Send {
    /// `C_SignInit` and `C_Sign`. After an error the session is to be dropped.
    fn sign(&mut self, call: &SignCall<'_>) -> Result<Made, CkrError>;
}

/// The arguments of one signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignCall<'a> {
    /// The private key's object handle in this epoch.
    pub(crate) handle: u64,
    /// `CK_MECHANISM_TYPE`, without a parameter.
    pub(crate) mechanism: u64,
    /// What `C_Sign` is given.
    pub(crate) data: &'a [u8],
    /// Length of the signature in bytes, from the key.
    pub(crate) length: usize,
}

/// A signature, and what the calls cost.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) value: Vec<u8>,
    /// CPU time of the thread that called the module, inside the calls.
    pub(crate) cpu: Duration,
}

/// What a token says of itself, read without trusting its clock (`CK_TOKEN_INFO`, PKCS#11 3.1, section 3.4).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenFacts {
    /// Slot identifier.
    pub slot: u64,
    /// Label, without trailing blanks.
    pub label: String,
    /// Serial number, without trailing blanks.
    pub serial: String,
    /// Manufacturer, without trailing blanks.
    pub manufacturer: String,
    /// Model, without trailing blanks.
    pub model: String,
    /// Firmware version.
    pub firmware: (u8, u8),
    /// Flags.
    pub flags: TokenFlags,
    /// Sessions that the token allows at once; `None` where it names no limit.
    pub max_sessions: Option<u64>,
}

/// `CK_TOKEN_INFO.flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct TokenFlags(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $flag:ident;)*) => {
        impl TokenFlags {
            $($(#[$doc])* #[must_use] pub fn $name(self) -> bool { self.0 & u64::from(cryptoki_sys::$flag) != 0 })*
        }
    };
}

flags! {
    /// `CKF_TOKEN_INITIALIZED`.
    initialized = CKF_TOKEN_INITIALIZED;
    /// `CKF_LOGIN_REQUIRED`.
    login_required = CKF_LOGIN_REQUIRED;
    /// `CKF_USER_PIN_INITIALIZED`.
    user_pin_initialized = CKF_USER_PIN_INITIALIZED;
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the PIN is entered at the token.
    protected_authentication_path = CKF_PROTECTED_AUTHENTICATION_PATH;
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was entered since the last right one.
    user_pin_count_low = CKF_USER_PIN_COUNT_LOW;
    /// `CKF_USER_PIN_FINAL_TRY`: another wrong PIN locks.
    user_pin_final_try = CKF_USER_PIN_FINAL_TRY;
    /// `CKF_USER_PIN_LOCKED`.
    user_pin_locked = CKF_USER_PIN_LOCKED;
    /// `CKF_USER_PIN_TO_BE_CHANGED`.
    user_pin_to_be_changed = CKF_USER_PIN_TO_BE_CHANGED;
    /// `CKF_WRITE_PROTECTED`.
    write_protected = CKF_WRITE_PROTECTED;
    /// `CKF_ERROR_STATE`: a FIPS self-test failed.
    error_state = CKF_ERROR_STATE;
}

impl TokenFlags {
    /// The flags that are set, by their names in PKCS#11 (3.1, table 6) without `CKF_`; what only the vendor knows, as a number.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let mut unknown = self.0;
        let mut names = Vec::new();
        for (flag, name) in FLAGS {
            if self.0 & u64::from(flag) != 0 {
                names.push(name.to_owned());
                unknown &= !u64::from(flag);
            }
        }
        if unknown != 0 {
            names.push(format!("{unknown:#x}"));
        }
        names
    }
}

const FLAGS: [(cryptoki_sys::CK_FLAGS, &str); 19] = [
    (cryptoki_sys::CKF_RNG, "RNG"),
    (cryptoki_sys::CKF_WRITE_PROTECTED, "WRITE_PROTECTED"),
    (cryptoki_sys::CKF_LOGIN_REQUIRED, "LOGIN_REQUIRED"),
    (cryptoki_sys::CKF_USER_PIN_INITIALIZED, "USER_PIN_INITIALIZED"),
    (cryptoki_sys::CKF_RESTORE_KEY_NOT_NEEDED, "RESTORE_KEY_NOT_NEEDED"),
    (cryptoki_sys::CKF_CLOCK_ON_TOKEN, "CLOCK_ON_TOKEN"),
    (
        cryptoki_sys::CKF_PROTECTED_AUTHENTICATION_PATH,
        "PROTECTED_AUTHENTICATION_PATH",
    ),
    (cryptoki_sys::CKF_DUAL_CRYPTO_OPERATIONS, "DUAL_CRYPTO_OPERATIONS"),
    (cryptoki_sys::CKF_TOKEN_INITIALIZED, "TOKEN_INITIALIZED"),
    (cryptoki_sys::CKF_SECONDARY_AUTHENTICATION, "SECONDARY_AUTHENTICATION"),
    (cryptoki_sys::CKF_USER_PIN_COUNT_LOW, "USER_PIN_COUNT_LOW"),
    (cryptoki_sys::CKF_USER_PIN_FINAL_TRY, "USER_PIN_FINAL_TRY"),
    (cryptoki_sys::CKF_USER_PIN_LOCKED, "USER_PIN_LOCKED"),
    (cryptoki_sys::CKF_USER_PIN_TO_BE_CHANGED, "USER_PIN_TO_BE_CHANGED"),
    (cryptoki_sys::CKF_SO_PIN_COUNT_LOW, "SO_PIN_COUNT_LOW"),
    (cryptoki_sys::CKF_SO_PIN_FINAL_TRY, "SO_PIN_FINAL_TRY"),
    (cryptoki_sys::CKF_SO_PIN_LOCKED, "SO_PIN_LOCKED"),
    (cryptoki_sys::CKF_SO_PIN_TO_BE_CHANGED, "SO_PIN_TO_BE_CHANGED"),
    (cryptoki_sys::CKF_ERROR_STATE, "ERROR_STATE"),
];

/// A private key as discovery finds it, or an object that it leaves out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct FoundKey {
    pub(crate) handle: u64,
    pub(crate) label: String,
    pub(crate) cka_id: Vec<u8>,
    /// SubjectPublicKeyInfo, DER; empty where it is not known.
    pub(crate) spki_der: Vec<u8>,
    /// Certificates with the same public key, DER.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Why it cannot be used, where it cannot.
    pub(crate) refused: Option<String>,
}

/// Finds the one token that a selection means.
pub(crate) fn select(tokens: &[TokenFacts], select: &Select) -> Result<TokenFacts, String> {
    let initialized = || tokens.iter().filter(|t| t.flags.initialized());
    let matching: Vec<_> = match select {
        Select::Label(label) => initialized().filter(|t| t.label == label.trim_end()).collect(),
        Select::Serial(serial) => initialized().filter(|t| t.serial == serial.trim_end()).collect(),
        Select::SlotId(id) => tokens.iter().filter(|t| t.slot == *id).collect(),
        Select::Only => initialized().collect(),
    };
    match matching.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let there: Vec<_> = tokens
                .iter()
                .map(|t| format!("{:?} (slot {})", t.label, t.slot))
                .collect();
            Err(format!(
                "no token with {select}; there {}",
                if there.is_empty() {
                    "is none at all".to_owned()
                } else {
                    format!("are {}", there.join(", "))
                }
            ))
        }
        many => Err(format!(
            "{} tokens with {select}; select one by its serial number",
            many.len()
        )),
    }
}
