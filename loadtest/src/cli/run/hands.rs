//! What the actions of a run reach the service and its token with.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{Args, folder::server_toml};
use crate::{
    cli::Exit,
    run::Order,
    timeline::{Hands, Needs, Service},
};

/// What the actions need; a missing piece is told before any load.
pub(super) fn hands(args: &Args, order: &Order) -> Result<Hands, Exit> {
    let needed = |needs: Needs| order.actions.iter().find(|action| action.deed.needs() == needs);
    let from_file = || {
        let tokens = server_toml(args.dir.as_deref()?).ok()??.token;
        let socket = tokens
            .iter()
            .find_map(|token| token.environment.get("FAULTY_TOKEN_CONTROL"))?;
        Some(PathBuf::from(socket))
    };
    let token = args.token_control.clone().or_else(from_file);
    if let (Some(action), None) = (needed(Needs::TokenControl), &token) {
        return Err(Exit::usage(format!("'{}' needs --token-control SOCKET", action.deed)));
    }
    let reachable = |has: bool, needs, by: &str| match needed(needs) {
        Some(action) if !has => Err(Exit::usage(format!("'{}' needs {by}", action.deed))),
        _ => Ok(()),
    };
    reachable(args.serve.is_some(), Needs::Start, "--serve COMMAND")?;
    reachable(
        args.serve.is_some() || args.pid.is_some(),
        Needs::Process,
        "--pid PID or --serve COMMAND",
    )?;
    let service = match (&args.serve, args.pid) {
        (Some(command), _) => {
            let log = args.out.as_ref().map(|folder| folder.join("service.log"));
            if let Some(folder) = &args.out {
                std::fs::create_dir_all(folder)
                    .map_err(|error| Exit::usage(format!("{}: {error}", folder.display())))?;
            }
            let address = order.setup.target.address();
            Some(Service::start(command, address, log.as_deref()).map_err(Exit::unavailable)?)
        }
        (None, Some(pid)) => {
            Some(Service::of(pid).ok_or_else(|| Exit::usage(format!("--pid {pid} is no process of a service")))?)
        }
        (None, None) => None,
    };
    Ok(Hands {
        token,
        service: service.map(|service| Arc::new(Mutex::new(service))),
    })
}
