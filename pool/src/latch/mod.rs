//! The PIN latch: a PIN is tried once, and what came of it is remembered until an operator acts, whoever tries next and by whatever name.
//!
//! In comes which token it is; out goes whether its PIN may be tried, and a [`Mark`] that stands on the disk before the try begins. A mark
//! is held by a lock of its process: a mark without a lock says that a process ended inside `C_Login`, and latches like a wrong PIN. Only
//! [`crate::login`] asks here; this room knows nothing of sessions and PINs.

mod hold;
mod journal;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::driver::{TokenFacts, TokenFlags};
use crate::error::OpenError;

use self::hold::{Held, NotHeld};
use self::journal::{Deed, Identity, State};

/// Where it is remembered which PINs must not be tried.
#[derive(Debug, Clone, Default)]
pub struct Latches {
    dir: Option<PathBuf>,
    command: Option<String>,
}

impl Latches {
    /// The folder's name where a configuration names none: beside the configuration, so that service, commands and harness find the same.
    pub const FOLDER: &str = "state";

    /// In this folder, which outlives the process. It is made where it is missing. A PIN is not tried where it cannot be written to.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: Some(dir.into()),
            command: None,
        }
    }

    /// In the memory of this process, for all pools and commands in it. A restart forgets: a service wants [`Latches::at`].
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// What an operator types to open a latch, but for the token's name: for messages.
    #[must_use]
    pub fn opened_by(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// What an operator does to open the latch of a token, for messages.
    #[must_use]
    pub fn way_back(&self, token: &str) -> String {
        match (&self.command, &self.dir) {
            (Some(command), _) => format!("`{command} --token {token}`"),
            (None, Some(_)) => format!("`muhurdar token unlatch --token {token}`"),
            (None, None) => "start this process again, since its latches are in its memory".to_owned(),
        }
    }

    /// An operator's word: the latch opens, and one try is allowed even if it is the last. Answers whether one stood that was known by this
    /// name. A running pool sees it at its supervisor's next look, within a second ([`Latch::is_open`]).
    ///
    /// # Errors
    /// Where the folder cannot be written to, or a process is inside `C_Login` on the token right now.
    pub fn unlatch(&self, token: &str) -> io::Result<bool> {
        let mut was = false;
        if let Some(dir) = &self.dir {
            let gone = |file: PathBuf| match std::fs::remove_file(&file) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", file.display()))),
            };
            was |= gone(by_name(dir, token))?;
            gone(by_name(dir, token).with_extension("pin-allowed"))?;
        }
        let mut unreadable = None;
        for place in hold::places(self.dir.as_deref())? {
            let journal = place.journal()?;
            if journal.is_damaged() {
                unreadable = place.standing();
            }
            if !journal.knows(token) {
                continue;
            }
            let mut held = place.hold(PATIENCE).map_err(NotHeld::into_io)?;
            if let State::Tries { .. } | State::Interrupted | State::Latched(_) = held.journal().state() {
                held.append(token, Deed::Unlatched, "")?;
                was = true;
            }
        }
        match unreadable {
            // Of which token it is, only its name still says.
            Some(why) if !was => Err(io::Error::other(why)),
            _ => Ok(was),
        }
    }

    /// Every latch that stands, for people: which token, by which names, and why.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn standing(&self) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        for place in hold::places(self.dir.as_deref())? {
            let journal = place.journal()?;
            let (State::Latched(_) | State::Tries { .. }) = journal.state() else {
                continue;
            };
            let mut names: Vec<_> = journal.lines.iter().map(|line| line.token.as_str()).collect();
            names.dedup();
            let which = journal.lines.last().map(|line| line.of.to_string());
            all.push(format!(
                "{} ({}): {}",
                names.join(", "),
                which.as_deref().unwrap_or("unknown"),
                place.standing().unwrap_or_default()
            ));
        }
        Ok(all)
    }
}

/// As [`Latches::unlatch`], in this folder.
///
/// # Errors
/// As [`Latches::unlatch`].
pub fn unlatch(state_dir: &Path, token: &str) -> io::Result<bool> {
    Latches::at(state_dir).unlatch(token)
}

/// How long an operator's word waits for a process that is inside `C_Login`.
const PATIENCE: Duration = Duration::from_millis(500);

/// One token's latch.
#[derive(Debug, Clone)]
pub(crate) struct Latch {
    latches: Latches,
    identity: Identity,
    /// The name by which it is configured.
    token: String,
}

impl Latch {
    pub(crate) fn of(latches: &Latches, token: &str, facts: &TokenFacts) -> Self {
        Self {
            latches: latches.clone(),
            identity: Identity::of(facts),
            token: token.to_owned(),
        }
    }

    /// Whether nothing is remembered against a try and none is going on, as it stands now. It is read anew each time: another process may have
    /// latched or unlatched.
    pub(crate) fn is_open(&self) -> bool {
        let old = self.old().is_some_and(|file| file.exists());
        !old && hold::place(self.latches.dir.as_deref(), &self.identity).is_open()
    }

    /// Why the PIN must not be tried, as it stands now.
    #[cfg(test)]
    pub(crate) fn standing(&self) -> Option<String> {
        let old = self.old().filter(|file| file.exists());
        if let Some(file) = old {
            let why = std::fs::read_to_string(&file).unwrap_or_default();
            return Some(format!("{} (latch file {})", why.trim(), file.display()));
        }
        hold::place(self.latches.dir.as_deref(), &self.identity).standing()
    }

    /// Asks whether the PIN may be tried: the latch, then the token's own flags. Nobody else gets a permission meanwhile; `wait` is how long to
    /// wait for another's to end.
    ///
    /// # Errors
    /// Where it may not, or where that cannot be written down. A refusal is remembered by this name, so that an operator can mean it.
    pub(crate) fn ask(&self, flags: TokenFlags, wait: Duration) -> Result<Permission, Refusal> {
        let place = hold::place(self.latches.dir.as_deref(), &self.identity);
        let mut held = place.hold(wait).map_err(|error| self.cannot(error))?;
        self.take_over_the_old(&mut held)?;
        let before = held.journal().state();
        let standing = match &before {
            State::Tries { pid, at } => Some(ended_inside(*pid, *at)),
            State::Latched(why) => Some(why.clone()),
            State::Free | State::Interrupted | State::Allowed => None,
        };
        if let Some(why) = standing {
            if !held.journal().knows(&self.token)
                && let Err(error) = held.append(&self.token, Deed::Refused, "")
            {
                // It stands all the same; `muhurdar token unlatch` lists it.
                tracing::warn!(token = %self.token, %error, "the latch does not know this name");
            }
            return Err(Refusal::Latched(held.located(why)));
        }
        if let Some(why) = speaks_against(flags, before == State::Allowed) {
            self.write(&mut held, Deed::Latched, why)?;
            return Err(Refusal::Latched(held.located(why.to_owned())));
        }
        Ok(Permission {
            latch: self.clone(),
            held,
            before,
        })
    }

    /// The latch of an earlier version, which was named after the configuration's token.
    fn old(&self) -> Option<PathBuf> {
        Some(by_name(self.latches.dir.as_deref()?, &self.token))
    }

    fn take_over_the_old(&self, held: &mut Held) -> Result<(), Refusal> {
        let Some(file) = self.old().filter(|file| file.exists()) else {
            return Ok(());
        };
        let why = std::fs::read_to_string(&file).unwrap_or_else(|e| format!("{}: {e}", file.display()));
        self.write(held, Deed::Latched, why.trim())?;
        // Where it stays, it is taken over again.
        let _ = std::fs::remove_file(file);
        Ok(())
    }

    fn write(&self, held: &mut Held, deed: Deed, why: &str) -> Result<(), Refusal> {
        held.append_of(&self.identity, &self.token, deed, why)
            .map_err(|cause| self.cannot(NotHeld::Io(held.path(), cause)))
    }

    fn cannot(&self, error: NotHeld) -> Refusal {
        let token = self.token.clone();
        Refusal::Cannot(match error {
            NotHeld::Busy(pid) => OpenError::Busy { token, pid },
            NotHeld::Io(path, cause) => OpenError::Unwritable { token, path, cause },
        })
    }
}

/// What every message about a latch ends with.
pub(crate) fn advice(way_back: &str) -> String {
    format!(
        "It is not tried again until an operator acts: see that the PIN is right and how many tries the token has left, then {way_back}. Never \
         try PINs out, and never with the PUK or the security officer's PIN: nothing brings back what those block"
    )
}

fn ended_inside(pid: u32, at: jiff::Timestamp) -> String {
    format!(
        "process {pid} called C_Login and ended before it returned, at {at:.0}: whether the PIN is right is not known"
    )
}

/// What the token itself says against a try.
fn speaks_against(flags: TokenFlags, allowed: bool) -> Option<&'static str> {
    if flags.user_pin_locked() {
        Some("the user PIN is locked (CKF_USER_PIN_LOCKED); its security officer must set a new one")
    } else if !flags.user_pin_initialized() && flags.login_required() {
        Some("the token has no user PIN (CKF_USER_PIN_INITIALIZED is not set)")
    } else if flags.user_pin_final_try() && !allowed {
        Some("one try is left before the user PIN locks (CKF_USER_PIN_FINAL_TRY)")
    } else {
        None
    }
}

/// Why a PIN is not tried.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It must not be, until an operator acts.
    Latched(String),
    /// It cannot be now, since a mark cannot be made.
    Cannot(OpenError),
}

/// The PIN may be tried, and nobody else may try it meanwhile. Dropped, nothing has happened.
#[derive(Debug)]
pub(crate) struct Permission {
    latch: Latch,
    held: Held,
    before: State,
}

impl Permission {
    /// Makes the mark: from here on, the try counts, whatever becomes of this process.
    ///
    /// # Errors
    /// Where it does not reach the disk.
    pub(crate) fn mark(mut self) -> Result<Mark, Refusal> {
        // An operator's word is taken by this try, whichever it is: said long ago, it must not be good for a last one.
        self.latch.write(&mut self.held, Deed::Tries, "")?;
        Ok(Mark(self))
    }
}

/// It is written down that the PIN is being tried. Dropped, it stays, and latches.
#[derive(Debug)]
pub(crate) struct Mark(Permission);

impl Mark {
    /// The PIN was right.
    pub(crate) fn right(self) {
        let Permission { latch, held, .. } = self.0;
        let path = held.path();
        if let Err(error) = held.clear() {
            tracing::error!(token = %latch.token, %error, file = %path.display(), "the login succeeded, and its mark cannot be removed: the next one will be refused");
        }
    }

    /// The PIN did not reach the token: all is as before.
    pub(crate) fn spared(self) {
        let Permission { latch, mut held, .. } = self.0;
        if let Err(error) = held.take_back() {
            tracing::error!(token = %latch.token, %error, file = %held.path().display(), "the PIN was not tried, and its mark cannot be removed: the next login will be refused");
        }
    }

    /// The token went away meanwhile. Answers whether that was once too often.
    pub(crate) fn interrupted(mut self, why: &str) -> bool {
        let again = self.0.before == State::Interrupted;
        self.note(if again { Deed::Latched } else { Deed::Interrupted }, why);
        again
    }

    /// It must not be tried again.
    pub(crate) fn latched(mut self, why: &str) {
        self.note(Deed::Latched, why);
    }

    fn note(&mut self, deed: Deed, why: &str) {
        let Permission { latch, held, .. } = &mut self.0;
        if let Err(error) = held.append_of(&latch.identity, &latch.token, deed, why) {
            // The mark stays, and refuses as well.
            tracing::error!(token = %latch.token, %error, file = %held.path().display(), "what came of the login cannot be written down");
        }
    }
}

fn by_name(dir: &Path, token: &str) -> PathBuf {
    dir.join(format!("{}.pin-latched", safe(token)))
}

/// A text as a part of a file's name.
fn safe(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests;
