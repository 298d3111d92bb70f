//! How a command ends: sysexits(3) codes, and one sentence that says what to do.

use std::fmt;

/// It did what it was asked.
pub(super) const FINE: u8 = 0;
/// A check failed.
pub(super) const FAILED: u8 = 1;
/// EX_USAGE: the call or the configuration is wrong.
pub(super) const USAGE: u8 = 64;
/// EX_UNAVAILABLE: something that is needed is not there now.
pub(super) const UNAVAILABLE: u8 = 69;
/// EX_SOFTWARE: a defect of this program.
pub(super) const SOFTWARE: u8 = 70;
/// EX_NOPERM: not allowed.
pub(super) const PERMISSION: u8 = 77;

/// The code that an I/O error deserves by its kind.
pub(super) fn of_io(error: &std::io::Error) -> u8 {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::PermissionDenied | E::ReadOnlyFilesystem => PERMISSION,
        E::NotFound | E::NotADirectory | E::InvalidInput => USAGE,
        _ => UNAVAILABLE,
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    /// Empty where everything was said already.
    message: String,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::new(USAGE, message)
    }

    pub(super) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// The command has said what failed.
    pub(super) fn silent(code: u8) -> Self {
        Self {
            code,
            message: String::new(),
        }
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// An I/O error at a path or address, with the code that its kind deserves.
    pub(super) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(of_io(error), format_args!("{what}: {error}"))
    }

    /// Says it, and answers the exit code.
    pub(super) fn report(self) -> u8 {
        if !self.message.is_empty() {
            eprintln!("muhurdar: {}", self.message);
        }
        self.code
    }
}
