//! `muhurdar-loadtest`.

fn main() {
    muhurdar_loadtest::cli::main()
}
