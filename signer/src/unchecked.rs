//! The service without its own check of what a token signs: never for use, and no release build has it. The end-to-end tests of
//! the load harness run it, to prove that a wrong seal is found by those who verify what comes back.

fn main() {
    eprintln!("!! muhurdar-unchecked: a test build that does not check signatures. It answers wrong seals. !!");
    muhurdar::cli::main()
}
