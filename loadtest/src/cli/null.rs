//! `muhurdar-loadtest null`: a service that seals nothing, to try the harness on.

use std::{fs, path::PathBuf};

use super::Exit;
use crate::null_server::NullServer;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder for its keys, client.toml and taxpayers.json, as `run --dir` wants them
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let cannot =
        |error: std::io::Error| Exit::unavailable(format!("cannot write into {}: {error}", args.dir.display()));
    // A folder of `muhurdar dev` has files of the same names, and a CA that its seals hang on.
    if args.dir.join("muhurdar.toml").exists() {
        return Err(Exit::usage(format!(
            "{} is an appliance's folder, whose files would be written over; choose another --dir",
            args.dir.display()
        )));
    }
    fs::create_dir_all(&args.dir).map_err(cannot)?;
    let server = NullServer::start(&args.dir).map_err(Exit::unavailable)?;
    let client = format!(
        "endpoint = \"{}\"\nca = \"ca.crt\"\ncert = \"client.crt\"\nkey = \"client.key\"\n",
        server.endpoint
    );
    fs::write(args.dir.join("client.toml"), client).map_err(cannot)?;
    fs::write(args.dir.join("taxpayers.json"), "[{\"vkn\": \"1234567890\"}]\n").map_err(cannot)?;
    println!(
        "{} answers every document with itself; it seals nothing",
        server.endpoint
    );
    println!(
        "try: muhurdar-loadtest run --no-ceiling --verify 0 --dir {}",
        args.dir.display()
    );
    // Until a signal ends the process.
    loop {
        std::thread::park();
    }
}
