//! What the actions of a run reach the service and its token with.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    Args,
    folder::{TokenSection, server_toml},
};
use crate::{
    cli::Exit,
    run::Order,
    timeline::{self, Action, Deed, Hands, Needs, Service},
};

/// What the actions need; a missing piece is told before any load.
pub(super) fn hands(args: &Args, order: &Order) -> Result<Hands, Exit> {
    let needed = |needs: Needs| order.actions.iter().find(|action| action.deed.needs() == needs);
    let tokens = match &args.dir {
        Some(dir) => server_toml(dir)?.map(|parsed| parsed.token).unwrap_or_default(),
        None => Vec::new(),
    };
    let from_file = || {
        let socket = tokens
            .iter()
            .find_map(|token| token.environment.get("FAULTY_TOKEN_CONTROL"))?;
        Some(PathBuf::from(socket))
    };
    let token = args.token_control.clone().or_else(from_file);
    if let (Some(action), None) = (needed(Needs::TokenControl), &token) {
        return Err(Exit::usage(no_token_to_fail(&action.deed, args.dir.as_deref())));
    }
    unknown_label(&order.actions, &tokens)?;
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
    // Only now: the service that was just started opens its token, and with it the socket.
    if let (Some(action), Some(socket)) = (needed(Needs::TokenControl), &token) {
        timeline::reach(socket).map_err(|error| {
            Exit::unavailable(format!(
                "'{}' needs a token that misbehaves on command, and none answers at {}: {error}. Does the service run, with FAULTY_TOKEN_CONTROL \
                 in its token's environment? 'muhurdar-loadtest run --help' says how",
                action.deed,
                socket.display()
            ))
        })?;
    }
    Ok(Hands {
        token,
        service: service.map(|service| Arc::new(Mutex::new(service))),
    })
}

/// A real token does not fail on command, and neither does the one that `muhurdar dev` makes by itself.
fn no_token_to_fail(deed: &Deed, dir: Option<&Path>) -> String {
    let whose = dir.map_or_else(String::new, |dir| {
        format!(
            " (in the environment of no [[token]] of {}/muhurdar.toml)",
            dir.display()
        )
    });
    format!(
        "'{deed}' needs a token that misbehaves on command, and its control socket is not known{whose}: put libmuhurdar_faulty_token.so before the \
         real module, as 'muhurdar-loadtest run --help' says, or name the socket by --token-control. What an HSM of a vendor does is done by \
         'run COMMAND' or --at"
    )
}

/// A label that no token has would be told to the module, and nothing would happen.
fn unknown_label(actions: &[Action], tokens: &[TokenSection]) -> Result<(), Exit> {
    let labels: Option<Vec<&str>> = tokens.iter().map(|token| token.label.as_deref()).collect();
    // A token that is selected by its serial number or slot may have any label.
    let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
        return Ok(());
    };
    for action in actions {
        if let Deed::Fail(label) | Deed::Restore(label) = &action.deed
            && !labels.contains(&label.as_str())
        {
            return Err(Exit::usage(format!(
                "'{}': no token has the label '{label}'; muhurdar.toml has {} (label, not name)",
                action.deed,
                labels.join(", ")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(label: Option<&str>) -> TokenSection {
        TokenSection {
            label: label.map(str::to_owned),
            environment: std::collections::BTreeMap::new(),
        }
    }

    fn refused(deed: Deed, tokens: &[TokenSection]) -> Option<String> {
        let at = Duration::from_secs(1);
        unknown_label(&[Action { at, deed }], tokens)
            .err()
            .map(|exit| exit.to_string())
    }

    #[test]
    fn a_label_that_no_token_has_is_told_before_any_load() {
        let tokens = [token(Some("muhurdar-dev")), token(Some("slot-2"))];
        let said = refused(Deed::Fail("dev".into()), &tokens).unwrap();
        assert!(
            said.contains("'fail dev'") && said.contains("muhurdar-dev, slot-2") && said.contains("label, not name"),
            "{said}"
        );
        assert!(refused(Deed::Restore("slot-1".into()), &tokens).is_some());
        assert_eq!(refused(Deed::Fail("slot-2".into()), &tokens), None);
        assert_eq!(refused(Deed::Restart, &tokens), None);
        assert_eq!(
            refused(Deed::Fail("x".into()), &[token(Some("a")), token(None)]),
            None,
            "by its serial"
        );
        assert_eq!(refused(Deed::Fail("x".into()), &[]), None, "nothing is known");
    }

    #[test]
    fn a_token_that_does_not_fail_on_command_is_told_with_what_does() {
        let said = no_token_to_fail(&Deed::Fail("slot-1".into()), Some(Path::new("/tmp/dev")));
        for words in [
            "'fail slot-1'",
            "/tmp/dev/muhurdar.toml",
            "libmuhurdar_faulty_token.so",
            "--token-control",
            "--help",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
