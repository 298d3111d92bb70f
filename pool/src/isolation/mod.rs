//! Modules in a child process: a crash or a hang of a vendor's library costs the requests on it, and nothing else. The child is this binary
//! again with a hidden subcommand; it loads the module and obeys frames. A control socket carries administration, and each lane has a socket
//! of its own, so that signatures neither queue behind each other nor behind a login. What crosses is digests and signatures, the
//! facts of the token, and the PIN once per login, over a socket pair that nobody else holds an end of.

mod child;
mod frames;
mod parent;

use std::ffi::OsString;
use std::sync::Arc;

use crate::config::TokenConfig;
use crate::driver::Driver;
use crate::error::OpenError;

pub use child::child_main;

/// The hidden subcommand with which a binary must call [`child_main`], first thing and before it starts a thread.
pub const SUBCOMMAND: &str = "isolated-module";

pub(crate) fn driver(token: &TokenConfig, command: Option<&[OsString]>) -> Result<Arc<dyn Driver>, OpenError> {
    let command = match command {
        Some(command) if !command.is_empty() => command.to_vec(),
        _ => {
            let own = std::env::current_exe().map_err(|cause| OpenError::Io {
                what: "finding this binary, to run a module in a child of it".into(),
                cause,
            })?;
            vec![own.into_os_string(), SUBCOMMAND.into()]
        }
    };
    Ok(Arc::new(parent::ChildModule::new(token, command)))
}
