//! The program in Go (google.golang.org/grpc), which tests/interop/clients/go/setup.sh has built.

use std::{path::PathBuf, process::Command};

use super::built;

pub(super) struct Go {
    client: PathBuf,
}

impl Go {
    /// None, and a line that says so, where what it is built with could not be had.
    pub(super) fn ready() -> Option<Self> {
        let client = built("interop-go")?.join("client");
        Some(Self { client })
    }

    pub(super) fn command(&self) -> Command {
        Command::new(&self.client)
    }
}
