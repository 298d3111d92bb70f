//! The key ceremony: tokens are listed and initialised, keys made, certificates brought. Blocking, one caller at a time, nothing of it in the
//! path of a signature; what it makes, [`crate::Pool`] finds. It may share a module with an open pool.

mod find;
mod import;
pub(crate) mod objects;
mod token;

use std::path::Path;
use std::sync::Arc;

use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

use crate::ceiling::Bench;
use crate::ckr::{CkrError, ckr};
use crate::config::{InitArgs, Pin, TokenConfig};
use crate::driver::{self, Driver as _, TokenFacts};
use crate::error::OpenError;
use crate::exit::Visit;
use crate::latch::Latches;
use crate::login::login_once;
use crate::module::{self, LocalModule, slot_of};
use crate::sys::SlotId;

pub use find::{find_softhsm2, softhsm2_places};
pub use objects::{Object, ObjectKind};
pub use token::{Generate, Token};

/// A loaded and initialised module.
#[derive(Clone)]
pub struct Module {
    pub(crate) local: Arc<LocalModule>,
    _visit: Visit,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("path", &self.local.path()).finish()
    }
}

/// What a module says of itself (`CK_INFO`).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct LibraryFacts {
    /// Manufacturer.
    pub manufacturer: String,
    /// Description.
    pub description: String,
    /// Version of the library.
    pub version: (u8, u8),
    /// Version of PKCS#11.
    pub cryptoki: (u8, u8),
}

/// A slot, and the token in it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct SlotFacts {
    /// Slot identifier.
    pub id: u64,
    /// Description.
    pub description: String,
    /// The token, where there is one and it answers.
    pub token: Option<TokenFacts>,
}

/// Every slot of a token's module, seen as the service sees it: in this process, or in a child with the token's environment. Nobody logs in.
///
/// # Errors
/// Where the module cannot be loaded or started, or lists no slots.
pub fn slots(token: &TokenConfig) -> Result<Vec<SlotFacts>, OpenError> {
    let driver = driver::driver(token, None)?;
    let slots = driver.start().and_then(|()| driver.slots());
    slots.map_err(|error| OpenError::Token {
        token: token.name.clone(),
        error,
    })
}

/// Everything on a token, seen as the service sees it: by the same driver, with the same login.
///
/// # Errors
/// Where the token cannot be opened, or its PIN is latched.
pub fn objects(token: &TokenConfig, latches: &Latches) -> Result<Vec<Object>, OpenError> {
    Bench::open(token, latches)?.objects()
}

impl Module {
    /// Loads a module and initialises it.
    ///
    /// # Errors
    /// Where the library cannot be loaded, or `C_Initialize` fails.
    pub fn open(path: &Path, init_args: InitArgs) -> Result<Self, OpenError> {
        let visit = Visit::begin();
        let local = LocalModule::load(path, init_args)?;
        let module = Self { local, _visit: visit };
        module.call(module.local.start())?;
        Ok(module)
    }

    /// The library's path, as it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.local.path()
    }

    fn call<T>(&self, result: Result<T, CkrError>) -> Result<T, OpenError> {
        result.map_err(|error| OpenError::Token {
            token: self.local.path().display().to_string(),
            error,
        })
    }

    /// What the module says of itself.
    ///
    /// # Errors
    /// Where it does not.
    pub fn library(&self) -> Result<LibraryFacts, OpenError> {
        self.call(self.local.library())
    }

    /// Every slot of the module.
    ///
    /// # Errors
    /// Where the slots cannot be listed. A token that does not answer is none.
    pub fn slots(&self) -> Result<Vec<SlotFacts>, OpenError> {
        self.call(self.local.slots())
    }

    /// Initialises a token (`C_InitToken`, `C_InitPIN`): in this slot, or in the first whose token is not initialised. Everything on it is
    /// lost. Unless a pool of this process uses the module, it is reinitialised afterwards, since SoftHSM2 then gives a new token another slot; the
    /// slot in the answer is that one.
    ///
    /// # Errors
    /// Where there is no such slot, or the token refuses.
    pub fn init_token(
        &self,
        slot: Option<u64>,
        label: &str,
        so_pin: &Pin,
        user_pin: &Pin,
    ) -> Result<TokenFacts, OpenError> {
        if label.is_empty() || label.len() > 32 {
            return Err(OpenError::Config("a token's label has 1 to 32 bytes".into()));
        }
        let slot = match slot {
            Some(slot) => slot,
            None => self
                .slots()?
                .into_iter()
                .find(|slot| slot.token.as_ref().is_some_and(|token| !token.flags.initialized()))
                .map(|slot| slot.id)
                .ok_or_else(|| {
                    OpenError::Selection("no slot has a token that is not initialised yet; name a slot".into())
                })?,
        };
        let (so_pin, user_pin) = (so_pin.read(label)?, user_pin.read(label)?);
        let administration = self.local.administration();
        self.call(
            administration
                .init_token(slot_of(slot), &so_pin, label)
                .map_err(|e| ckr(&e)),
        )?;
        let serial = self.call(module::facts(self.local.functions(), slot as SlotId))?.serial;
        self.call(self.init_pin(slot, &so_pin, &user_pin))?;
        // A pool that is open on the module would lose its sessions; it selects tokens by label and does not mind the old slot.
        if !self.local.is_used() {
            self.call(self.local.stop())?;
            self.call(self.local.start())?;
        }
        let tokens = self.call(self.local.tokens())?;
        tokens
            .into_iter()
            .find(|token| token.serial == serial && token.label == label)
            .ok_or_else(|| {
                OpenError::Selection(format!("the token {label:?} was initialised and is not there any more"))
            })
    }

    fn init_pin(&self, slot: u64, so_pin: &AuthPin, user_pin: &AuthPin) -> Result<(), CkrError> {
        let session = self
            .local
            .administration()
            .open_rw_session(slot_of(slot))
            .map_err(|e| ckr(&e))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the security officer's, at a ceremony: by hand, and never again by itself"
        )]
        session.login(UserType::So, Some(so_pin)).map_err(|e| ckr(&e))?;
        let outcome = session.init_pin(user_pin).map_err(|e| ckr(&e));
        // The session closes right after, which logs out anyway.
        let _ = session.logout();
        outcome
    }

    /// Logs in to a token for administration, in a read-write session. The PIN is tried once, as by a pool with the same latches: not at all
    /// where it is latched, or where the token says that it is locked or that one try is left.
    ///
    /// # Errors
    /// Where no token or more than one is selected, or the login fails.
    pub fn log_in(&self, token: &TokenConfig, latches: &Latches) -> Result<Token, OpenError> {
        let fails = |error| OpenError::Token {
            token: token.name.clone(),
            error,
        };
        let tokens = self.local.tokens().map_err(fails)?;
        let facts = driver::select(&tokens, &token.select).map_err(OpenError::Selection)?;
        let session = self
            .local
            .administration()
            .open_rw_session(slot_of(facts.slot))
            .map_err(|e| fails(ckr(&e)))?;
        login_once(latches, token, &facts, |pin| pin.log_in(&session)).map_err(|e| e.told(latches, &token.name))?;
        Ok(Token::new(self.clone(), token, facts, session))
    }
}
