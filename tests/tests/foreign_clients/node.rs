//! The program in Node (@grpc/grpc-js), which reads the proto when it starts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{ROOT, ready};

pub(super) struct Node {
    modules: PathBuf,
}

impl Node {
    /// None, and a line that says so, where its packages are not there.
    pub(super) fn ready() -> Option<Self> {
        let modules = ready("interop-node/node_modules")?;
        Some(Self { modules })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(Path::new(ROOT).join("tests/interop/clients/node/client.js"));
        command.env("NODE_PATH", &self.modules);
        command.env("MUHURDAR_PROTO", Path::new(ROOT).join("proto"));
        command
    }
}
