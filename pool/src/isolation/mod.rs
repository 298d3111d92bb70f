//! Modules in a child process.

use std::ffi::OsString;
use std::sync::Arc;

use crate::config::TokenConfig;
use crate::driver::Driver;
use crate::error::OpenError;

pub(crate) fn driver(token: &TokenConfig, _command: Option<&[OsString]>) -> Result<Arc<dyn Driver>, OpenError> {
    Err(OpenError::Config(format!(
        "token {:?}: isolation = \"process\" is not built yet",
        token.name
    )))
}
