//! Modules in a child process: a crash or a hang of a vendor's library costs the requests on it, and nothing else. The child is this program
//! again with a hidden subcommand; it loads the module and obeys frames. A control socket carries administration, and each lane has a socket
//! of its own, so that signatures neither queue behind each other nor behind a login. What crosses is digests and signatures, the
//! facts of the token, and the PIN once per login, over a socket pair that nobody else holds an end of.
//!
//! The child lives as long as the control socket: it ends when its parent closes it, or dies, and by nothing else that can be ignored.

mod child;
mod frames;
mod parent;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::config::TokenConfig;
use crate::driver::Driver;
use crate::error::OpenError;

pub use child::child_main;

/// The hidden subcommand with which a binary must call [`child_main`], first thing and before it starts a thread.
pub const SUBCOMMAND: &str = "isolated-module";

/// The program that this process runs, whatever has become of the file: an upgrade puts another one into its place while this one runs.
/// proc(5).
const OPEN_PROGRAM: &str = "/proc/self/exe";

/// A command that starts the program that this process runs once more: the very same one, though another file may lie in its place by now.
///
/// # Errors
/// Where the system does not say what runs here.
pub fn own_program() -> io::Result<Command> {
    Ok(program_called(&std::env::current_exe()?))
}

fn program_called(name: &Path) -> Command {
    let program = match Path::new(OPEN_PROGRAM) {
        open if open.exists() => open,
        // Elsewhere than on Linux the file must do; a child of another version is refused.
        _ => name,
    };
    let mut command = Command::new(program);
    command.arg0(name);
    command
}

/// How a child is started.
#[derive(Debug, Clone)]
pub(crate) enum Launch {
    /// This program again, which lay there when it was started.
    Own(PathBuf),
    /// Another command.
    Given(Vec<OsString>),
}

impl Launch {
    fn command(&self) -> io::Result<Command> {
        match self {
            Self::Own(name) => {
                let mut command = program_called(name);
                command.arg(SUBCOMMAND);
                Ok(command)
            }
            Self::Given(words) => {
                let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
                let mut command = Command::new(program);
                command.args(arguments);
                Ok(command)
            }
        }
    }
}

pub(crate) fn driver(token: &TokenConfig, command: Option<&[OsString]>) -> Result<Arc<dyn Driver>, OpenError> {
    let launch = match command {
        Some(command) if !command.is_empty() => Launch::Given(command.to_vec()),
        _ => std::env::current_exe()
            .map(Launch::Own)
            .map_err(|cause| OpenError::Io {
                what: "finding this program, to run a module in a child of it".into(),
                cause,
            })?,
    };
    Ok(Arc::new(parent::ChildModule::new(token, launch)))
}

/// Names this process as it was called: the kernel names it by the file that was opened, and `exe` tells nobody anything.
fn keep_name() {
    let called = std::env::args_os().next().map(PathBuf::from);
    if let Some(name) = called.as_deref().and_then(Path::file_name) {
        // For people who look at a list of processes, where there is such a file.
        let _ = std::fs::write("/proc/self/comm", name.as_encoded_bytes());
    }
}
