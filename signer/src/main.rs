//! `muhurdar`: see `muhurdar help`.

#[cfg(feature = "unchecked")]
compile_error!("`muhurdar` itself always checks: build `--bin muhurdar-unchecked` with the feature `unchecked`");

fn main() {
    muhurdar::cli::main()
}
