//! The program in Python (grpcio), with what `grpc_tools.protoc` makes of the proto.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use muhurdar_tests::Output;
use tempfile::TempDir;

use super::{ROOT, ready};

pub(super) struct Python {
    interpreter: PathBuf,
    generated: TempDir,
}

impl Python {
    /// None, and a line that says so, where the virtual environment lacks the gRPC packages.
    pub(super) fn ready() -> Option<Self> {
        // Not resolved: where the interpreter lies is what makes it that of the environment.
        let interpreter = ready("interop-venv/grpc-ready")?.with_file_name("bin").join("python");
        let generated = tempfile::tempdir().unwrap();
        let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let packages = Output::of(Command::new(&interpreter).args(["-c", code])).text;
        let mut protoc = Command::new(&interpreter);
        protoc.args(["-m", "grpc_tools.protoc", "-I", packages.trim(), "-I"]);
        protoc.arg(Path::new(ROOT).join("proto"));
        for out in ["--python_out", "--pyi_out", "--grpc_python_out"] {
            protoc.arg(format!("{out}={}", generated.path().display()));
        }
        let output = Output::of(protoc.args(["muhurdar/seal/v1/seal.proto", "muhurdar/seal/v1/reason.proto"]));
        assert!(
            output.status.success(),
            "protoc takes the published proto: {}",
            output.text
        );
        Some(Self { interpreter, generated })
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(Path::new(ROOT).join("tests/interop/clients/python/client.py"));
        command.env("PYTHONPATH", self.generated.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}
