//! `muhurdar-loadtest`.

use std::process::ExitCode;

fn main() -> ExitCode {
    muhurdar_loadtest::cli::main()
}
