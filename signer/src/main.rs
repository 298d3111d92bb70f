//! `muhurdar`: see `muhurdar help`.

fn main() {
    muhurdar::cli::main()
}
