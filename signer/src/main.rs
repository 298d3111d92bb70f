//! `muhurdar`: see `muhurdar help`.

fn main() -> std::process::ExitCode {
    muhurdar::cli::main()
}
