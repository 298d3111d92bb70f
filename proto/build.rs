//! Compiles the .proto files with protox, so that no `protoc` is needed, and keeps their descriptor set for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=muhurdar");
    println!("cargo::rerun-if-changed=google");
    let descriptors = protox::compile(["muhurdar/seal/v1/seal.proto"], ["."])?;
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("seal.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(descriptors)?;
    Ok(())
}
