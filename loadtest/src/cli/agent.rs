//! `muhurdar-loadtest agent` and `agent-keys`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::Exit;
use crate::{
    agents::{self, Agent, AgentError, KeyError},
    plan,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with ca.crt, agent.crt and agent.key, as `agent-keys` makes them
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Where to wait for a controller
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from(([127, 0, 0, 1], agents::DEFAULT_PORT)))]
    listen: SocketAddr,
    /// End when no controller came for so long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = |text: &str| plan::duration(text).ok_or("write 10m"))]
    idle: Duration,
    /// Wait for the next controller when one has gone, instead of ending
    #[arg(long)]
    stay: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let agent = Agent {
        listen: args.listen,
        idle: args.idle,
        stay: args.stay,
    };
    agents::serve(agent, &args.keys, |said| eprintln!("    {said}")).map_err(|error| match error {
        AgentError::Keys(_) => Exit::usage(error),
        other => Exit::unavailable(other),
    })
}

#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// Folder for ca.crt, agent.crt|.key and controller.crt|.key
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn make_keys(args: &KeyArgs) -> Result<(), Exit> {
    agents::make(&args.dir).map_err(|error| match error {
        KeyError::Make(_) => Exit::failed(error),
        other => Exit::usage(other),
    })?;
    let dir = args.dir.display();
    println!(
        "    {dir} holds keys for one controller and its agents, good for a year.\n    \
         Give each agent ca.crt, agent.crt and agent.key, and start there:\n      \
         muhurdar-loadtest agent --keys DIR --listen 0.0.0.0:{port}\n    \
         Then, from here:\n      \
         muhurdar-loadtest run --agents HOST,HOST --agent-keys {dir} …",
        port = agents::DEFAULT_PORT
    );
    Ok(())
}
