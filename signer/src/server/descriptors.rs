//! File descriptors. A connection takes one, and where there are none left nothing works any more: no token, no spool, no probe.
//! So there are never more connections than leave enough for everything else.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{ServeError, admin};
use crate::config::Config;

/// Files of the process beside its connections, tokens and spools: listeners, logs, libraries, the runtime's own.
const OTHERS: u64 = 128;
/// Of one session of a token: a network HSM has a connection for each, and one more while it is replaced.
const OF_A_SESSION: u64 = 2;
/// With fewer connections than this it makes no sense to start.
const LEAST: u64 = 16;

/// What a configuration needs beside the connections that it allows.
fn beside(config: &Config) -> u64 {
    let sessions: u64 = config.tokens.iter().map(|token| token.sessions as u64).sum();
    OTHERS + admin::CONNECTIONS as u64 + sessions * OF_A_SESSION + config.limits.large_in_flight as u64
}

/// Connections that so many descriptors leave room for, of those that the configuration allows.
fn room(config: &Config, descriptors: u64) -> u64 {
    let most = config.server.max_connections as u64;
    descriptors.saturating_sub(beside(config)).min(most)
}

/// How many connections there may be: as many as the configuration allows, where the system does. Raises the process's own limit
/// as far as is needed and the system lets it.
///
/// # Errors
/// Where hardly any connection would find room.
pub(super) fn connections(config: &Config) -> Result<usize, ServeError> {
    let wanted = beside(config) + config.server.max_connections as u64;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let mut soft = limit.current.unwrap_or(u64::MAX);
    if soft < wanted && soft < hard {
        let raised = Rlimit {
            current: Some(wanted.min(hard)),
            ..limit
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => soft = wanted.min(hard),
            Err(error) => tracing::warn!(%error, soft, hard, "the limit of open files cannot be raised"),
        }
    }
    let room = room(config, soft);
    if room < LEAST {
        return Err(ServeError::Descriptors {
            limit: soft,
            least: beside(config) + LEAST,
        });
    }
    let most = config.server.max_connections as u64;
    if room < most {
        tracing::warn!(
            max_connections = most,
            limit = soft,
            "{}",
            fewer(config, soft).unwrap_or_default()
        );
    }
    Ok(usize::try_from(room).unwrap_or(usize::MAX))
}

/// What is to be said of a configuration before it is served by a process with this one's limits.
pub(crate) fn warning(config: &Config) -> Option<String> {
    fewer(config, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX))
}

fn fewer(config: &Config, descriptors: u64) -> Option<String> {
    let (room, most) = (room(config, descriptors), config.server.max_connections);
    (room < most as u64).then(|| {
        format!(
            "server.max_connections is {most}, but {descriptors} open files (LimitNOFILE= of the unit, ulimit -Hn) leave room for \
             {room} connections; raise the limit to {}",
            beside(config) + most as u64
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_enough_for_everything_else() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");
        let config = Config::load(path.as_ref()).unwrap();
        let most = config.server.max_connections as u64;
        let enough = most + beside(&config);
        assert_eq!((room(&config, u64::MAX), room(&config, enough)), (most, most));
        assert_eq!(room(&config, enough - 1), most - 1);
        assert_eq!(room(&config, 100), 0);
        assert_eq!(fewer(&config, enough), None);
        let said = fewer(&config, 1024).unwrap();
        assert!(
            said.contains("max_connections is 4096") && said.contains(&enough.to_string()),
            "{said}"
        );
    }
}
