//! The program in Java (grpc-java), which tests/interop/clients/java/setup.sh has built.

use std::{path::PathBuf, process::Command};

use super::built;

pub(super) struct Java {
    made: PathBuf,
}

impl Java {
    /// None, and a line that says so, where what it is built with could not be had.
    pub(super) fn ready() -> Option<Self> {
        let made = built("interop-java")?;
        Some(Self { made })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("java");
        let path = format!("{0}/classes:{0}/lib/*", self.made.display());
        command.args(["-cp", &path, "tr.muhurdar.example.Main"]);
        command
    }
}
