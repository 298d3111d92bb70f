//! The one way to log in. A PIN is tried once, whoever tries it and however the try ends: wrong, a code that nobody knows, a crash, a hang,
//! a kill. So the rule is in the act: a PIN reaches `C_Login` only as a [`OneTry`], which is made here alone, after the latch was asked and the
//! mark of the try has reached the disk.

use std::fmt;

use cryptoki::session::{Session, UserType};
use cryptoki_sys as ck;
use secrecy::{ExposeSecret as _, SecretString};

use crate::ckr::{CkrError, ckr};
use crate::config::TokenConfig;
use crate::driver::TokenFacts;
use crate::error::OpenError;
use crate::latch::{Latch, Latches, Refusal};

/// A PIN that may go to its token, once.
pub(crate) struct OneTry(SecretString);

impl OneTry {
    /// `C_Login` as CKU_USER.
    pub(crate) fn log_in(self, session: &Session) -> Result<(), CkrError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        session.login(UserType::User, Some(&self.0)).map_err(|e| ckr(&e))
    }

    /// For the pipe to an isolated module's child.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// In an isolated module's child: its parent has made the mark, and holds it until the child has answered or is gone.
    pub(crate) fn marked_by_the_parent(pin: String) -> Self {
        Self(SecretString::from(pin))
    }
}

impl fmt::Debug for OneTry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTry(redacted)")
    }
}

/// Why there is no login.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// The PIN must not be tried (again) until an operator acts.
    Latched {
        /// Why, for people.
        reason: String,
        /// What the token has just said, where it was asked.
        error: Option<CkrError>,
    },
    /// It was not tried; it may be once that is mended.
    NotTried(OpenError),
    /// It did not reach the token, and may be tried again.
    Call(CkrError),
}

impl LoginError {
    /// As those who log in once for a command tell it.
    pub(crate) fn told(self, latches: &Latches, token: &str) -> OpenError {
        match self {
            Self::Latched { reason, .. } => latched(latches, token, reason),
            Self::NotTried(error) => error,
            Self::Call(error) => OpenError::Token {
                token: token.to_owned(),
                error,
            },
        }
    }
}

/// A latch as an error, with the way back.
pub(crate) fn latched(latches: &Latches, token: &str, reason: String) -> OpenError {
    OpenError::Latched {
        token: token.to_owned(),
        reason,
        way_back: latches.way_back(token),
    }
}

/// Logs in to a token, if nothing speaks against it: `call` is `C_Login` and nothing beside it. A token that asks for no login is logged in to.
/// That somebody in this process is logged in already is a success.
///
/// # Errors
/// See [`LoginError`].
pub(crate) fn login_once(
    latches: &Latches,
    token: &TokenConfig,
    facts: &TokenFacts,
    call: impl FnOnce(OneTry) -> Result<(), CkrError>,
) -> Result<(), LoginError> {
    if !facts.flags.login_required() {
        return Ok(());
    }
    if facts.flags.protected_authentication_path() {
        return Err(LoginError::NotTried(OpenError::Unfit {
            token: token.name.clone(),
            cause: "its PIN is entered at the token (CKF_PROTECTED_AUTHENTICATION_PATH); this program cannot".into(),
        }));
    }
    let refused = |refusal| match refusal {
        Refusal::Latched(reason) => LoginError::Latched { reason, error: None },
        Refusal::Cannot(error) => LoginError::NotTried(error),
    };
    let latch = Latch::of(latches, &token.name, facts);
    let permission = latch.ask(facts.flags, token.call_budget).map_err(refused)?;
    let pin = token.pin.read(&token.name).map_err(LoginError::NotTried)?;
    let mark = permission.mark().map_err(refused)?;
    let error = match call(OneTry(pin)) {
        Err(error) if fate(error.code) != Fate::Right => error,
        Ok(()) | Err(_) => {
            mark.right();
            return Ok(());
        }
    };
    let again = match fate(error.code) {
        Fate::NotAsked => {
            mark.spared();
            true
        }
        Fate::Interrupted => !mark.interrupted(&error.to_string()),
        Fate::Right | Fate::Final => {
            mark.latched(&error.to_string());
            false
        }
    };
    Err(if again {
        LoginError::Call(error)
    } else {
        LoginError::Latched {
            reason: error.to_string(),
            error: Some(error),
        }
    })
}

/// What a return value of `C_Login` other than `CKR_OK` says of the PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It need not be asked for.
    Right,
    /// The token was not asked.
    NotAsked,
    /// It may have been asked.
    Interrupted,
    /// It was asked, or may have been: not again.
    Final,
}

/// Reads a return value by its definition (PKCS#11 3.1, sections 5.1 and 5.6.8). What is not listed is final: a vendor's own code, one that the
/// specification does not give to `C_Login`, and those that leave it open whether the PIN was looked at (`CKR_DEVICE_ERROR`, `CKR_DEVICE_MEMORY`,
/// `CKR_FUNCTION_FAILED`, `CKR_FUNCTION_CANCELED`, `CKR_GENERAL_ERROR`, `CKR_HOST_MEMORY`), and `CKR_ARGUMENTS_BAD`, by which libraries refuse
/// PINs whose form they do not like.
fn fate(code: u64) -> Fate {
    match code as ck::CK_RV {
        ck::CKR_USER_ALREADY_LOGGED_IN => Fate::Right,
        // Not initialised: the call cannot be carried out.
        ck::CKR_CRYPTOKI_NOT_INITIALIZED
        // Session and token were not there "at the time that the function was invoked" (5.1.2, 5.1.3).
        | ck::CKR_SESSION_HANDLE_INVALID
        | ck::CKR_TOKEN_NOT_PRESENT
        // Somebody of another kind is logged in, or too many are: refused for that, whatever the PIN.
        | ck::CKR_USER_ANOTHER_ALREADY_LOGGED_IN
        | ck::CKR_USER_TOO_MANY_TYPES => Fate::NotAsked,
        // "During the execution of the function" (5.1.2, 5.1.3): the PIN may have been on its way, and libraries do not always know whether
        // it was before or during. Once may be an accident, and a token that is plugged in again should be back; twice in a row is no accident.
        ck::CKR_DEVICE_REMOVED | ck::CKR_SESSION_CLOSED => Fate::Interrupted,
        _ => Fate::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pin, Select};
    use crate::driver::TokenFlags;

    fn facts(serial: &str) -> TokenFacts {
        TokenFacts {
            slot: 0,
            label: "label".into(),
            serial: serial.into(),
            manufacturer: "maker".into(),
            model: "model".into(),
            firmware: (1, 0),
            flags: TokenFlags(u64::from(ck::CKF_LOGIN_REQUIRED | ck::CKF_USER_PIN_INITIALIZED)),
            max_sessions: None,
        }
    }

    fn token(name: &str) -> TokenConfig {
        TokenConfig::new(name, "/m", Select::Only, Pin::value("648219"))
    }

    /// How often a token is asked that always answers this, by one who tries 20 times.
    fn asked(latches: &Latches, serial: &str, code: u64) -> u32 {
        let mut asked = 0;
        for _ in 0..20 {
            let outcome = login_once(latches, &token("hsm"), &facts(serial), |_| {
                asked += 1;
                Err(CkrError {
                    function: "C_Login",
                    code,
                })
            });
            assert!(outcome.is_err() || code == ck::CKR_USER_ALREADY_LOGGED_IN as u64);
        }
        asked
    }

    #[test]
    fn only_codes_that_say_that_the_pin_was_not_looked_at_are_followed_by_another_try() {
        let dir = tempfile::tempdir().unwrap();
        for latches in [Latches::at(dir.path()), Latches::in_memory()] {
            for (code, times) in [
                (ck::CKR_PIN_INCORRECT, 1),
                (ck::CKR_PIN_LOCKED, 1),
                (ck::CKR_PIN_EXPIRED, 1),
                (ck::CKR_PIN_INVALID, 1),
                (ck::CKR_PIN_LEN_RANGE, 1),
                (ck::CKR_USER_PIN_NOT_INITIALIZED, 1),
                (ck::CKR_DEVICE_ERROR, 1),
                (ck::CKR_GENERAL_ERROR, 1),
                (ck::CKR_FUNCTION_FAILED, 1),
                (ck::CKR_HOST_MEMORY, 1),
                (ck::CKR_ARGUMENTS_BAD, 1),
                (0x8000_0384, 1),
                (0xffff_ffff, 1),
                (ck::CKR_DEVICE_REMOVED, 2),
                (ck::CKR_SESSION_CLOSED, 2),
                (ck::CKR_TOKEN_NOT_PRESENT, 20),
                (ck::CKR_SESSION_HANDLE_INVALID, 20),
                (ck::CKR_CRYPTOKI_NOT_INITIALIZED, 20),
                (ck::CKR_USER_ANOTHER_ALREADY_LOGGED_IN, 20),
                (ck::CKR_USER_ALREADY_LOGGED_IN, 20),
            ] {
                let serial = format!("{code:x}");
                assert_eq!(
                    asked(&latches, &serial, u64::from(code)),
                    times,
                    "{code:#x} {latches:?}"
                );
            }
        }
    }

    #[test]
    fn a_login_between_two_accidents_makes_them_two_first_ones() {
        let latches = Latches::in_memory();
        let answers = [
            Err(ck::CKR_DEVICE_REMOVED),
            Ok(()),
            Err(ck::CKR_DEVICE_REMOVED),
            Err(ck::CKR_TOKEN_NOT_PRESENT),
            Err(ck::CKR_DEVICE_REMOVED),
        ];
        let mut told = Vec::new();
        for answer in answers {
            let outcome = login_once(&latches, &token("hsm"), &facts("accidents"), |_| {
                answer.map_err(|code| CkrError {
                    function: "C_Login",
                    code: u64::from(code),
                })
            });
            told.push(matches!(outcome, Err(LoginError::Latched { .. })));
        }
        assert_eq!(told, [false, false, false, false, true]);
    }

    #[test]
    fn a_call_that_panics_or_never_returns_is_a_try() {
        let dir = tempfile::tempdir().unwrap();
        for latches in [Latches::at(dir.path()), Latches::in_memory()] {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| {}));
            let panicked = std::panic::catch_unwind(|| {
                let _ = login_once(&latches, &token("hsm"), &facts("panic"), |_| {
                    panic!("in the vendor's library")
                });
            });
            std::panic::set_hook(hook);
            assert!(panicked.is_err());
            let refused = login_once(&latches, &token("other name"), &facts("panic"), |_| Ok(()));
            assert!(
                matches!(refused, Err(LoginError::Latched { reason, .. }) if reason.contains("ended before it returned"))
            );
        }
    }

    #[test]
    fn a_pin_that_cannot_be_read_is_not_tried_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let latches = Latches::at(dir.path());
        let mut token = token("hsm");
        token.pin = Pin::file(dir.path().join("missing"));
        let refused = login_once(&latches, &token, &facts("1"), |_| unreachable!("it has no PIN"));
        assert!(matches!(refused, Err(LoginError::NotTried(OpenError::Pin { .. }))));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_the_latch_cannot_be_written_the_pin_is_not_tried() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        // Not by its permissions, since tests may run as root.
        for folder in [file.join("state"), "/proc/self/state".into()] {
            let refused = login_once(&Latches::at(&folder), &token("hsm"), &facts("1"), |_| {
                unreachable!("no mark")
            });
            assert!(
                matches!(&refused, Err(LoginError::NotTried(OpenError::Unwritable { .. }))),
                "{refused:?}"
            );
        }
    }
}
