//! The PIN latch: a PIN that was refused is not tried again until an operator acts, and not by a restart either. A latch is a small file beside
//! the service's state, named after the token; where there is no folder for it, it lives in memory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::driver::TokenFlags;

/// Where one token's latch is kept.
#[derive(Debug, Clone)]
pub(crate) struct Latch {
    file: Option<PathBuf>,
    allowed: Option<PathBuf>,
}

/// Whether a login may be tried now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes.
    Try,
    /// No, and why.
    Refuse(String),
}

fn file_name(token: &str, suffix: &str) -> String {
    let safe: String = token
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{safe}.{suffix}")
}

impl Latch {
    pub(crate) fn of(state_dir: Option<&Path>, token: &str) -> Self {
        Self {
            file: state_dir.map(|dir| dir.join(file_name(token, "pin-latched"))),
            allowed: state_dir.map(|dir| dir.join(file_name(token, "pin-allowed"))),
        }
    }

    /// What is latched since an earlier run.
    pub(crate) fn standing(&self) -> Option<String> {
        let file = self.file.as_ref()?;
        match fs::read_to_string(file) {
            Ok(reason) => Some(format!("{} (latch file {})", reason.trim(), file.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            // A latch that cannot be read is a latch.
            Err(e) => Some(format!("the latch file {} cannot be read: {e}", file.display())),
        }
    }

    /// Looks at what stands in the way of a login: the latch, then the token's own flags. An operator's word allows the last try, once.
    pub(crate) fn may_try(&self, flags: TokenFlags) -> Verdict {
        if let Some(reason) = self.standing() {
            return Verdict::Refuse(reason);
        }
        if flags.user_pin_locked() {
            return Verdict::Refuse(
                "the user PIN is locked (CKF_USER_PIN_LOCKED); its security officer must set a new one".into(),
            );
        }
        if !flags.user_pin_initialized() && flags.login_required() {
            return Verdict::Refuse("the token has no user PIN (CKF_USER_PIN_INITIALIZED is not set)".into());
        }
        // Taken by whatever try comes next: a word that was said long ago must not be good for a last try.
        let allowed = self.take_allowance();
        if flags.user_pin_final_try() && !allowed {
            return Verdict::Refuse(
                "one try is left before the user PIN locks (CKF_USER_PIN_FINAL_TRY); see that the PIN is right, then unlatch".into(),
            );
        }
        Verdict::Try
    }

    fn take_allowance(&self) -> bool {
        self.allowed.as_ref().is_some_and(|file| fs::remove_file(file).is_ok())
    }

    /// Latches, for later runs too.
    pub(crate) fn set(&self, reason: &str) {
        let Some(file) = &self.file else { return };
        let written = file
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::File::create(file))
            .and_then(|mut f| writeln!(f, "{reason}, at {}", jiff::Timestamp::now()).and_then(|()| f.sync_all()));
        if let Err(error) = written {
            tracing::error!(%error, file = %file.display(), "the PIN latch cannot be written: a restart would try the PIN again");
        }
    }

    /// An operator's word: the latch opens, and one try is allowed even if it is the last.
    pub(crate) fn clear(&self) -> std::io::Result<bool> {
        let mut was = false;
        if let Some(file) = &self.file {
            match fs::remove_file(file) {
                Ok(()) => was = true,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        if let Some(allowed) = &self.allowed {
            allowed.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(allowed, b"")?;
        }
        Ok(was)
    }
}

/// Opens a token's PIN latch from outside a running pool, as `muhurdar token unlatch` does: the next opening tries the PIN once, even where
/// the token says that one try is left. Answers whether a latch stood.
///
/// # Errors
/// Where the state folder cannot be written.
pub fn unlatch(state_dir: &Path, token: &str) -> std::io::Result<bool> {
    Latch::of(Some(state_dir), token).clear()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINAL_TRY: u64 = cryptoki_sys::CKF_USER_PIN_FINAL_TRY as u64 | cryptoki_sys::CKF_USER_PIN_INITIALIZED as u64;
    const FINE: u64 = cryptoki_sys::CKF_USER_PIN_INITIALIZED as u64;

    #[test]
    fn a_latch_outlives_its_process_until_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        Latch::of(Some(dir.path()), "hsm/1").set("C_Login: CKR_PIN_INCORRECT");
        let again = Latch::of(Some(dir.path()), "hsm/1");
        assert!(matches!(again.may_try(TokenFlags(FINE)), Verdict::Refuse(why) if why.contains("CKR_PIN_INCORRECT")));
        assert!(matches!(
            Latch::of(Some(dir.path()), "hsm-2").may_try(TokenFlags(FINE)),
            Verdict::Try
        ));
        assert!(unlatch(dir.path(), "hsm/1").unwrap());
        assert_eq!(again.may_try(TokenFlags(FINE)), Verdict::Try);
    }

    #[test]
    fn the_last_try_is_taken_once_and_only_on_an_operators_word() {
        let dir = tempfile::tempdir().unwrap();
        let latch = Latch::of(Some(dir.path()), "hsm");
        assert!(matches!(latch.may_try(TokenFlags(FINAL_TRY)), Verdict::Refuse(_)));
        assert!(!unlatch(dir.path(), "hsm").unwrap());
        assert_eq!(latch.may_try(TokenFlags(FINAL_TRY)), Verdict::Try);
        assert!(matches!(latch.may_try(TokenFlags(FINAL_TRY)), Verdict::Refuse(_)));
    }

    #[test]
    fn an_operators_word_is_good_for_one_try_whichever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let latch = Latch::of(Some(dir.path()), "hsm");
        unlatch(dir.path(), "hsm").unwrap();
        assert_eq!(latch.may_try(TokenFlags(FINE)), Verdict::Try);
        assert!(matches!(latch.may_try(TokenFlags(FINAL_TRY)), Verdict::Refuse(_)));
    }

    #[test]
    fn a_locked_pin_is_never_tried() {
        let dir = tempfile::tempdir().unwrap();
        unlatch(dir.path(), "hsm").unwrap();
        let locked = TokenFlags(FINE | cryptoki_sys::CKF_USER_PIN_LOCKED as u64);
        assert!(matches!(
            Latch::of(Some(dir.path()), "hsm").may_try(locked),
            Verdict::Refuse(_)
        ));
    }
}
