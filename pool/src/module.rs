//! A module in this process, from `C_Initialize` to `C_Finalize`. A library is loaded once and initialised once, whoever asks
//! (PKCS#11 3.1, section 5.4.1: a second `C_Initialize` fails), so modules are kept in one list for the process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::session::Session;
use cryptoki::slot::Slot;

use crate::admin::{LibraryFacts, Object, SlotFacts, objects};
use crate::ckr::{CkrError, ckr};
use crate::config::InitArgs;
use crate::driver::{Driver, FoundKey, Made, SignCall, TokenFacts, TokenFlags, TokenSession};
use crate::error::OpenError;
use crate::login::OneTry;
use crate::qualify::{MECHANISMS, MechanismFacts};
use crate::sys::{Functions, SlotId};
use crate::{cpu, discovery, ladder};

/// A module in this process.
pub(crate) struct LocalModule {
    path: PathBuf,
    functions: Arc<Functions>,
    administration: Pkcs11,
    init_args: InitArgs,
    state: Mutex<State>,
    /// The module opens no read-only sessions: AWS CloudHSM's answers them with CKR_FUNCTION_FAILED.
    read_write: AtomicBool,
    /// SoftHSM2 2.6.1 corrupts its memory where sessions open and close at the same time (SoftHSMv2#688): there they take turns. Other
    /// modules do not, so that one call that hangs cannot hold up the rest.
    turns: Arc<Turns>,
}

#[derive(Default)]
struct Turns {
    /// Whether the module is SoftHSM2.
    taken: AtomicBool,
    turn: Mutex<()>,
}

impl Turns {
    fn take(&self) -> Option<MutexGuard<'_, ()>> {
        self.taken.load(Ordering::Acquire).then(|| lock(&self.turn))
    }
}

#[derive(Default)]
struct State {
    initialized: bool,
    /// Pools that use it: the last one to leave ends the module.
    users: usize,
    /// Keeper sessions by slot: they hold the logins. One thread at a time uses one, also where it is the session that signs.
    keepers: HashMap<u64, Shared>,
}

/// A session that several threads may use, one after the other.
pub(crate) type Shared = Arc<Mutex<Session>>;

static LOADED: Mutex<Vec<Arc<LocalModule>>> = Mutex::new(Vec::new());

/// A lock whose data stays coherent when a holder panics: every change under it is a single assignment or insertion.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalModule {
    /// The module of this path, loaded if it is not yet, not initialised.
    pub(crate) fn load(path: &Path, init_args: InitArgs) -> Result<Arc<Self>, OpenError> {
        let refuse = |cause: String| OpenError::Load {
            path: path.to_owned(),
            cause,
        };
        // A bare file name is sought by the loader in its own places.
        let canonical = if path.components().count() > 1 {
            path.canonicalize().map_err(|e| refuse(e.to_string()))?
        } else {
            path.to_owned()
        };
        let mut loaded = lock(&LOADED);
        if let Some(module) = loaded.iter().find(|m| m.path == canonical) {
            return Ok(Arc::clone(module));
        }
        let functions = Functions::load(&canonical).map_err(refuse)?;
        let administration = Pkcs11::new(&canonical).map_err(|e| refuse(e.to_string()))?;
        let module = Arc::new(Self {
            path: canonical,
            functions: Arc::new(functions),
            administration,
            init_args,
            state: Mutex::default(),
            read_write: AtomicBool::new(false),
            turns: Arc::default(),
        });
        loaded.push(Arc::clone(&module));
        Ok(module)
    }

    /// Opens the session that keeps a login. Read-only is enough to sign, and least; where the module knows no such sessions it is a
    /// read-write one, and so are those of the lanes from then on.
    pub(crate) fn keeper(&self, slot: u64) -> Result<Session, CkrError> {
        let _call = self.functions.enter("C_OpenSession")?;
        let slot = slot_of(slot);
        if !self.read_write.load(Ordering::Acquire) {
            let refused = match self.administration.open_ro_session(slot) {
                Ok(session) => return Ok(session),
                Err(error) => ckr(&error),
            };
            if refused.code != u64::from(cryptoki_sys::CKR_FUNCTION_FAILED) {
                return Err(refused);
            }
            let session = self.administration.open_rw_session(slot).map_err(|_| refused)?;
            tracing::info!(module = %self.path.display(), "it opens no read-only sessions: read-write ones then");
            self.read_write.store(true, Ordering::Release);
            return Ok(session);
        }
        self.administration.open_rw_session(slot).map_err(|e| ckr(&e))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// `cryptoki`'s view of the same library, for the functions that are not called per signature.
    pub(crate) fn administration(&self) -> &Pkcs11 {
        &self.administration
    }

    /// Whether a pool uses it: then nobody else may end it.
    pub(crate) fn is_used(&self) -> bool {
        lock(&self.state).users > 0
    }

    /// Signs on a session that belongs to somebody else.
    pub(crate) fn sign(&self, session: &Session, call: &SignCall<'_>) -> Result<Made, CkrError> {
        sign(&self.functions, session, call)
    }

    /// A session to sign with, which others may use between two signatures, and which the last one closes.
    pub(crate) fn share_session(&self, session: &Shared) -> Box<dyn TokenSession> {
        Box::new(LocalSession {
            functions: Arc::clone(&self.functions),
            turns: Arc::clone(&self.turns),
            session: Some(Arc::clone(session)),
        })
    }

    /// Signs on a session of its own, which a key that misbehaves may spoil; on the one given where the token has no other to give.
    pub(crate) fn probe(&self, slot: u64, keeper: &Session, call: &SignCall<'_>) -> Result<Vec<u8>, CkrError> {
        let made = match self.session(slot, false) {
            Ok(mut own) => own.sign(call),
            Err(_) => sign(&self.functions, keeper, call),
        };
        made.map(|made| made.value)
    }

    fn of_keeper(&self, slot: u64) -> Result<Shared, CkrError> {
        lock(&self.state).keepers.get(&slot).cloned().ok_or(CkrError {
            function: "C_OpenSession",
            code: u64::from(cryptoki_sys::CKR_SESSION_HANDLE_INVALID),
        })
    }

    fn with_keeper<T>(
        &self,
        slot: u64,
        function: &'static str,
        f: impl FnOnce(&Session) -> Result<T, CkrError>,
    ) -> Result<T, CkrError> {
        // The lock of all slots is not held while the module works.
        let keeper = self.of_keeper(slot)?;
        let session = lock(&keeper);
        let _call = self.functions.enter(function)?;
        f(&session)
    }
}

/// A slot as `cryptoki` names it.
pub(crate) fn slot_of(slot: u64) -> Slot {
    Slot::try_from(slot).expect("a slot identifier that the module gave fits its own type")
}

impl Driver for LocalModule {
    fn start(&self) -> Result<(), CkrError> {
        let mut state = lock(&self.state);
        if state.initialized {
            return Ok(());
        }
        match self.functions.initialize(self.init_args) {
            // Somebody else in this process did: then it is theirs to end, and ending it anyway is what a lost channel needs.
            Err(error) if error.code == u64::from(cryptoki_sys::CKR_CRYPTOKI_ALREADY_INITIALIZED) => {}
            other => other?,
        }
        state.initialized = true;
        let soft = self
            .functions
            .info()
            .is_ok_and(|info| padded(&info.manufacturerID).starts_with("SoftHSM"));
        self.turns.taken.store(soft, Ordering::Release);
        Ok(())
    }

    fn enter(&self) {
        lock(&self.state).users += 1;
    }

    fn leave(&self) -> Result<(), CkrError> {
        let users = {
            let mut state = lock(&self.state);
            state.users = state.users.saturating_sub(1);
            state.users
        };
        // SoftHSM2 2.6.1 leaves dangling pointers behind when it is ended after several threads have used it, and crashes at the next
        // C_Initialize. It holds nothing that closed sessions and the end of the process do not release.
        if users > 0 || self.turns.taken.load(Ordering::Acquire) {
            return Ok(());
        }
        self.stop()
    }

    fn stop(&self) -> Result<(), CkrError> {
        let mut state = lock(&self.state);
        if !state.initialized {
            return Ok(());
        }
        for (_, session) in state.keepers.drain() {
            // C_Finalize closes what cannot be closed.
            close(&self.functions, None, session);
        }
        state.initialized = false;
        match self.functions.finalize() {
            Err(error) if error.code == u64::from(cryptoki_sys::CKR_CRYPTOKI_NOT_INITIALIZED) => Ok(()),
            other => other,
        }
    }

    fn tokens(&self) -> Result<Vec<TokenFacts>, CkrError> {
        let facts = self
            .functions
            .slots(true)?
            .into_iter()
            .map(|slot| facts(&self.functions, slot));
        // One that goes while it is looked at is not there, and the others are.
        facts
            .filter(|facts| !matches!(facts, Err(error) if ladder::is_absence(error)))
            .collect()
    }

    fn facts(&self, slot: u64) -> Result<TokenFacts, CkrError> {
        facts(&self.functions, slot as SlotId)
    }

    fn open(&self, slot: u64) -> Result<(), CkrError> {
        let session = self.keeper(slot)?;
        let before = lock(&self.state).keepers.insert(slot, Arc::new(Mutex::new(session)));
        if let Some(before) = before {
            close(&self.functions, Some(&self.turns), before);
        }
        Ok(())
    }

    fn login(&self, slot: u64, pin: OneTry) -> Result<(), CkrError> {
        self.with_keeper(slot, "C_Login", |session| pin.log_in(session))
    }

    fn discover(&self, slot: u64) -> Result<Vec<FoundKey>, CkrError> {
        self.with_keeper(slot, "C_FindObjects", |session| {
            discovery::discover(session, &|call| self.probe(slot, session, call))
        })
    }

    fn objects(&self, slot: u64) -> Result<Vec<Object>, CkrError> {
        self.with_keeper(slot, "C_FindObjects", |session| {
            let found = discovery::discover(session, &|call| self.probe(slot, session, call))?;
            objects::list(session, &found)
        })
    }

    fn library(&self) -> Result<LibraryFacts, CkrError> {
        let info = self.functions.info()?;
        Ok(LibraryFacts {
            manufacturer: padded(&info.manufacturerID),
            description: padded(&info.libraryDescription),
            version: (info.libraryVersion.major, info.libraryVersion.minor),
            cryptoki: (info.cryptokiVersion.major, info.cryptokiVersion.minor),
        })
    }

    fn slots(&self) -> Result<Vec<SlotFacts>, CkrError> {
        let slots = self.functions.slots(false)?;
        let facts = slots.into_iter().map(|id| {
            let info = self.functions.slot_info(id)?;
            Ok(SlotFacts {
                id: id.into(),
                description: padded(&info.slotDescription),
                token: facts(&self.functions, id).ok(),
            })
        });
        facts.collect()
    }

    fn mechanisms(&self, slot: u64) -> Result<Vec<Option<MechanismFacts>>, CkrError> {
        let _call = self.functions.enter("C_GetMechanismInfo")?;
        let facts = MECHANISMS.map(|(_, mechanism)| {
            let info = self.administration.get_mechanism_info(slot_of(slot), mechanism).ok()?;
            Some(MechanismFacts {
                min_bits: info.min_key_size(),
                max_bits: info.max_key_size(),
                signs: info.sign(),
                generates: info.generate_key_pair(),
                hardware: info.hardware(),
            })
        });
        Ok(facts.to_vec())
    }

    fn is_open(&self, slot: u64) -> bool {
        lock(&self.state).keepers.contains_key(&slot)
    }

    fn close(&self, slot: u64) {
        // The lock is not held while the module works: a hanging C_CloseSession must not hold up the other slots.
        let keeper = lock(&self.state).keepers.remove(&slot);
        if let Some(session) = keeper {
            close(&self.functions, Some(&self.turns), session);
        }
    }

    fn session(&self, slot: u64, single: bool) -> Result<Box<dyn TokenSession>, CkrError> {
        if single {
            return Ok(self.share_session(&self.of_keeper(slot)?));
        }
        let session = {
            let _turn = self.turns.take();
            let _call = self.functions.enter("C_OpenSession")?;
            let slot = slot_of(slot);
            if self.read_write.load(Ordering::Acquire) {
                self.administration.open_rw_session(slot)
            } else {
                self.administration.open_ro_session(slot)
            }
        };
        let session = session.map_err(|e| ckr(&e))?;
        Ok(self.share_session(&Arc::new(Mutex::new(session))))
    }
}

/// Closes a session, as well as it can be closed: after `C_Finalize`, a restarted HSM or a removed token there is nothing left to close. Where
/// somebody else uses it still, the last one to leave it closes it.
fn close(functions: &Functions, turns: Option<&Turns>, session: Shared) {
    let Some(session) = Arc::into_inner(session) else {
        return;
    };
    let session = session.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Ok(_call) = functions.enter("C_CloseSession") else {
        // It ended with the module, which must not be called now.
        std::mem::forget(session);
        return;
    };
    let _turn = turns.map(Turns::take);
    if let Err(error) = session.close() {
        tracing::trace!(%error, "closing a session");
    }
}

struct LocalSession {
    functions: Arc<Functions>,
    turns: Arc<Turns>,
    /// Taken on drop, and closed where it is nobody else's: in turn.
    session: Option<Shared>,
}

impl TokenSession for LocalSession {
    fn sign(&mut self, call: &SignCall<'_>) -> Result<Made, CkrError> {
        let session = self.session.as_deref().map(lock).ok_or(CkrError {
            function: "C_Sign",
            code: u64::from(cryptoki_sys::CKR_SESSION_CLOSED),
        })?;
        sign(&self.functions, &session, call)
    }
}

fn sign(functions: &Functions, session: &Session, call: &SignCall<'_>) -> Result<Made, CkrError> {
    let mut value = vec![0; call.length];
    let before = cpu::thread();
    let written = functions.sign(session, call.mechanism, call.handle, call.data, &mut value)?;
    let cpu = cpu::thread().saturating_sub(before);
    value.truncate(written);
    Ok(Made { value, cpu })
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            close(&self.functions, Some(&self.turns), session);
        }
    }
}

/// Reads `CK_TOKEN_INFO`.
pub(crate) fn facts(functions: &Functions, slot: SlotId) -> Result<TokenFacts, CkrError> {
    let info = functions.token_info(slot)?;
    let limit = info.ulMaxSessionCount;
    let unlimited = limit == cryptoki_sys::CK_EFFECTIVELY_INFINITE || limit == cryptoki_sys::CK_UNAVAILABLE_INFORMATION;
    Ok(TokenFacts {
        slot: slot.into(),
        label: padded(&info.label),
        serial: padded(&info.serialNumber),
        manufacturer: padded(&info.manufacturerID),
        model: padded(&info.model),
        firmware: (info.firmwareVersion.major, info.firmwareVersion.minor),
        flags: TokenFlags(info.flags.into()),
        max_sessions: (!unlimited).then_some(u64::from(limit)),
    })
}

/// PKCS#11 pads its strings with blanks; some modules with NUL.
pub(crate) fn padded(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end_matches([' ', '\0']).to_owned()
}
