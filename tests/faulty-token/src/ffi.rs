//! The module's face to C: a function list that is the real module's, but for the functions that the pretence watches.
#![allow(unsafe_code, unreachable_pub, reason = "C calls what Rust does not")]

use std::sync::OnceLock;

use cryptoki_sys as ck;

use crate::{control, state, trap};

struct Real {
    list: ck::CK_FUNCTION_LIST,
    ours: ck::CK_FUNCTION_LIST,
}

static REAL: OnceLock<Option<Real>> = OnceLock::new();

/// Loads the real module, once.
fn real() -> Option<&'static Real> {
    REAL.get_or_init(|| {
        let path = std::env::var_os("FAULTY_TOKEN_MODULE")?;
        // SAFETY: loading runs the library's initialisers; that it is a PKCS#11 module is the word of whoever set the variable.
        let library = unsafe { ck::Pkcs11::new(path) }.ok()?;
        let get = *library.C_GetFunctionList.as_ref().ok()?;
        let mut list = std::ptr::null_mut();
        // SAFETY: it writes one pointer to a place that we own.
        if unsafe { get(&raw mut list) } != ck::CKR_OK || list.is_null() {
            return None;
        }
        // SAFETY: the pointer is to the module's list, which lives as long as the library, which is never unloaded.
        let list = unsafe { std::ptr::read_unaligned(list) };
        std::mem::forget(library);
        let ours = ck::CK_FUNCTION_LIST {
            C_Initialize: Some(initialize),
            C_Finalize: Some(finalize),
            C_GetFunctionList: Some(C_GetFunctionList),
            C_GetSlotList: Some(get_slot_list),
            C_GetTokenInfo: Some(get_token_info),
            C_OpenSession: Some(open_session),
            C_CloseSession: Some(close_session),
            C_Login: Some(login),
            C_FindObjectsInit: Some(find_objects_init),
            C_SignInit: Some(sign_init),
            C_Sign: Some(sign),
            ..list
        };
        Some(Real { list, ours })
    })
    .as_ref()
}

/// Calls the real module.
macro_rules! forward {
    ($name:ident ( $($arg:expr),* )) => {
        match real().and_then(|real| real.list.$name) {
            // SAFETY: the caller's arguments are passed on as they came, to the function that they were meant for.
            Some(function) => unsafe { function($($arg),*) },
            None => ck::CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

/// Lets the pretence decide first.
macro_rules! decide {
    ($name:ident, $session:expr, $slot:expr) => {
        match state::decide(stringify!($name), $session, $slot) {
            Ok(verdict) => verdict,
            Err(code) => return code as ck::CK_RV,
        }
    };
}

/// The entry of every PKCS#11 module.
///
/// # Safety
/// `list` points to a place for a pointer (PKCS#11 3.1, section 5.4.4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut ck::CK_FUNCTION_LIST) -> ck::CK_RV {
    let _call = trap::Call::enter();
    let Some(real) = real() else {
        return ck::CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller's promise; the list lives in a static and nobody writes to it.
    unsafe { list.write((&raw const real.ours).cast_mut()) };
    ck::CKR_OK
}

unsafe extern "C" fn initialize(arguments: ck::CK_VOID_PTR) -> ck::CK_RV {
    let _call = trap::Call::enter();
    control::listen();
    let again = {
        let mut state = state::lock();
        *state.calls.entry("C_Initialize").or_default() += 1;
        if state.no_locks && !arguments.is_null() {
            return ck::CKR_CANT_LOCK;
        }
        std::mem::take(&mut state.finalized)
    };
    state::dawdle("C_Initialize");
    if again {
        state::lock().channel = None;
        return ck::CKR_OK;
    }
    forward!(C_Initialize(arguments))
}

/// The real module is not ended: SoftHSM2 2.6.1 does not survive that after threads have used it. Its sessions and logins are.
unsafe extern "C" fn finalize(_reserved: ck::CK_VOID_PTR) -> ck::CK_RV {
    let _call = trap::Call::enter();
    let slots: Vec<u64> = {
        let mut state = state::lock();
        *state.calls.entry("C_Finalize").or_default() += 1;
        if state.finalized {
            return ck::CKR_CRYPTOKI_NOT_INITIALIZED;
        }
        state.finalized = true;
        let slots = state.sessions.values().map(|session| session.slot).collect();
        state.sessions.clear();
        slots
    };
    state::dawdle("C_Finalize");
    for slot in slots {
        forward!(C_CloseAllSessions(slot as ck::CK_SLOT_ID));
    }
    ck::CKR_OK
}

unsafe extern "C" fn get_slot_list(
    present: ck::CK_BBOOL,
    slots: *mut ck::CK_SLOT_ID,
    count: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    decide!(C_GetSlotList, None, None);
    let code = forward!(C_GetSlotList(present, slots, count));
    if code == ck::CKR_OK && !slots.is_null() && present == ck::CK_TRUE {
        // SAFETY: the caller's pointer to the count, which the real module has just written to.
        let written = unsafe { count.read() } as usize;
        // SAFETY: the real module has just written so many slots there.
        let filled = unsafe { std::slice::from_raw_parts_mut(slots, written) };
        let kept: Vec<ck::CK_SLOT_ID> = {
            for slot in filled.iter() {
                learn(*slot);
            }
            let state = state::lock();
            filled
                .iter()
                .copied()
                .filter(|slot| !state.is_removed(*slot as u64))
                .collect()
        };
        filled[..kept.len()].copy_from_slice(&kept);
        // SAFETY: the caller's pointer to the count, which the real module has just written to.
        unsafe { count.write(kept.len() as ck::CK_ULONG) };
    }
    code
}

/// Learns the label of the token in a slot: commands name tokens by it.
fn learn(slot: ck::CK_SLOT_ID) {
    let mut info = ck::CK_TOKEN_INFO::default();
    if forward!(C_GetTokenInfo(slot, &raw mut info)) == ck::CKR_OK {
        let label = String::from_utf8_lossy(&info.label).trim_end().to_owned();
        state::lock().labels.insert(slot as u64, label);
    }
}

unsafe extern "C" fn get_token_info(slot: ck::CK_SLOT_ID, info: *mut ck::CK_TOKEN_INFO) -> ck::CK_RV {
    let _call = trap::Call::enter();
    decide!(C_GetTokenInfo, None, Some(slot as u64));
    let code = forward!(C_GetTokenInfo(slot, info));
    if code != ck::CKR_OK {
        return code;
    }
    let state = state::lock();
    // SAFETY: the real module has just filled it.
    let info = unsafe { &mut *info };
    if let Some((cap, true)) = state.cap {
        info.ulMaxSessionCount = cap as ck::CK_ULONG;
    }
    if let Some(tries) = state.pin_tries {
        let wrong = state.wrong_pins.get(&(slot as u64)).copied().unwrap_or(0);
        let flag = match tries.saturating_sub(wrong) {
            0 => ck::CKF_USER_PIN_LOCKED,
            1 => ck::CKF_USER_PIN_FINAL_TRY,
            _ if wrong > 0 => ck::CKF_USER_PIN_COUNT_LOW,
            _ => 0,
        };
        info.flags |= flag;
    }
    code
}

unsafe extern "C" fn open_session(
    slot: ck::CK_SLOT_ID,
    flags: ck::CK_FLAGS,
    application: ck::CK_VOID_PTR,
    notify: ck::CK_NOTIFY,
    session: *mut ck::CK_SESSION_HANDLE,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    learn(slot);
    decide!(C_OpenSession, None, Some(slot as u64));
    {
        let state = state::lock();
        if state.no_read_only && flags & ck::CKF_RW_SESSION == 0 {
            return ck::CKR_FUNCTION_FAILED;
        }
        let alive = state
            .sessions
            .values()
            .filter(|s| s.slot == slot as u64 && !s.dead)
            .count();
        if state.cap.is_some_and(|(cap, _)| alive >= cap) {
            return ck::CKR_SESSION_COUNT;
        }
    }
    let code = forward!(C_OpenSession(slot, flags, application, notify, session));
    if code == ck::CKR_OK {
        // SAFETY: the real module has just written the handle there.
        let handle = unsafe { session.read() };
        state::lock().sessions.insert(
            handle as u64,
            state::Session {
                slot: slot as u64,
                ..state::Session::default()
            },
        );
    }
    code
}

unsafe extern "C" fn close_session(session: ck::CK_SESSION_HANDLE) -> ck::CK_RV {
    let _call = trap::Call::enter();
    let verdict = state::decide("C_CloseSession", Some(session as u64), None);
    // The real session goes in any case: what the HSM has forgotten must not pile up here.
    let known = state::lock().sessions.remove(&(session as u64));
    let code = if known.is_some() {
        forward!(C_CloseSession(session))
    } else {
        ck::CKR_SESSION_HANDLE_INVALID
    };
    match verdict {
        Ok(_) => code,
        Err(code) => code as ck::CK_RV,
    }
}

unsafe extern "C" fn login(
    session: ck::CK_SESSION_HANDLE,
    user: ck::CK_USER_TYPE,
    pin: *mut ck::CK_UTF8CHAR,
    length: ck::CK_ULONG,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    state::count_login();
    decide!(C_Login, Some(session as u64), None);
    let slot = state::lock()
        .sessions
        .get(&(session as u64))
        .map_or(0, |session| session.slot);
    {
        let state = state::lock();
        let wrong = state.wrong_pins.get(&slot).copied().unwrap_or(0);
        if state.pin_tries.is_some_and(|tries| wrong >= tries) {
            return ck::CKR_PIN_LOCKED;
        }
    }
    let code = forward!(C_Login(session, user, pin, length));
    let mut state = state::lock();
    match code {
        ck::CKR_PIN_INCORRECT => *state.wrong_pins.entry(slot).or_default() += 1,
        ck::CKR_OK => {
            state.wrong_pins.remove(&slot);
            state.forgotten_logins.retain(|forgotten| *forgotten != slot);
        }
        // The HSM forgot the login, the real module has not.
        ck::CKR_USER_ALREADY_LOGGED_IN if state.forgotten_logins.contains(&slot) => {
            state.forgotten_logins.retain(|forgotten| *forgotten != slot);
            return ck::CKR_OK;
        }
        _ => {}
    }
    code
}

unsafe extern "C" fn find_objects_init(
    session: ck::CK_SESSION_HANDLE,
    template: *mut ck::CK_ATTRIBUTE,
    count: ck::CK_ULONG,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    decide!(C_FindObjectsInit, Some(session as u64), None);
    forward!(C_FindObjectsInit(session, template, count))
}

thread_local! {
    /// The key of the operation in progress on this thread's session.
    static KEY: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

unsafe extern "C" fn sign_init(
    session: ck::CK_SESSION_HANDLE,
    mechanism: *mut ck::CK_MECHANISM,
    key: ck::CK_OBJECT_HANDLE,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    decide!(C_SignInit, Some(session as u64), None);
    KEY.set(key as u64);
    {
        let state = state::lock();
        if state.canned && state.cans.contains_key(&(key as u64)) {
            return ck::CKR_OK;
        }
    }
    forward!(C_SignInit(session, mechanism, key))
}

unsafe extern "C" fn sign(
    session: ck::CK_SESSION_HANDLE,
    data: *mut ck::CK_BYTE,
    data_length: ck::CK_ULONG,
    signature: *mut ck::CK_BYTE,
    signature_length: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    let _call = trap::Call::enter();
    let verdict = match state::decide("C_Sign", Some(session as u64), None) {
        Ok(verdict) => verdict,
        Err(code) => {
            // The real module's operation is still active, and its session is to be closed; but a test's own session goes on.
            return code as ck::CK_RV;
        }
    };
    state::work();
    let canned = {
        let state = state::lock();
        if state.canned {
            state.cans.get(&KEY.get()).cloned()
        } else {
            None
        }
    };
    let code = match canned {
        Some(can) => {
            // SAFETY: the caller's buffer has the length that stands beside it, which is checked first.
            let room = unsafe { *signature_length } as usize;
            if room < can.len() {
                return ck::CKR_BUFFER_TOO_SMALL;
            }
            // SAFETY: checked above; the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(can.as_ptr(), signature, can.len()) };
            // SAFETY: the caller's pointer to the length.
            unsafe { signature_length.write(can.len() as ck::CK_ULONG) };
            ck::CKR_OK
        }
        None => forward!(C_Sign(session, data, data_length, signature, signature_length)),
    };
    if code == ck::CKR_OK && !signature.is_null() {
        // SAFETY: the caller's pointer to the length, which has just been written to.
        let written = unsafe { signature_length.read() } as usize;
        // SAFETY: so many bytes have just been written there.
        let made = unsafe { std::slice::from_raw_parts_mut(signature, written) };
        let mut state = state::lock();
        if state.canned {
            state.cans.entry(KEY.get()).or_insert_with(|| made.to_vec());
        }
        if verdict.flip
            && let Some(byte) = made.last_mut()
        {
            *byte ^= 1;
        }
    }
    code
}
