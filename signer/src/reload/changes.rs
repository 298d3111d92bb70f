//! What is different between two configurations, by its name in the file and never by its value.

use crate::config::{Client, Config};

/// The keys that differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What holds from now on.
    pub(super) taken_over: Vec<String>,
    /// What holds after the next start.
    pub(super) restart: Vec<&'static str>,
}

impl Changes {
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        let (before, after) = (&old.server, &new.server);
        let needs_restart = [
            ("server.listen", before.listen != after.listen),
            ("server.admin_listen", before.admin_listen != after.admin_listen),
            ("server.unix_socket", before.unix_socket != after.unix_socket),
            ("server.state_dir", before.state_dir != after.state_dir),
            ("server.spool_dir", before.spool_dir != after.spool_dir),
            (
                "limits.large_in_flight",
                old.limits.large_in_flight != new.limits.large_in_flight,
            ),
            ("server.drain_timeout", before.drain_timeout != after.drain_timeout),
            (
                "server.keep_alive_interval",
                before.keep_alive_interval != after.keep_alive_interval,
            ),
            (
                "server.keep_alive_timeout",
                before.keep_alive_timeout != after.keep_alive_timeout,
            ),
            (
                "server.network_threads",
                before.network_threads != after.network_threads,
            ),
            ("limits.document", old.limits.document != new.limits.document),
            (
                "sealing.digest_threads",
                old.sealing.digest_threads != new.sealing.digest_threads,
            ),
            ("token", old.tokens != new.tokens),
            ("idempotency", old.idempotency != new.idempotency),
            ("log", old.log != new.log),
            ("telemetry", old.telemetry != new.telemetry),
        ];
        changes.restart = needs_restart
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(key, _)| key)
            .collect();
        // Compared with the rest already equal, so that nothing is told twice.
        let mut rest = new.clone();
        keep_what_needs_a_restart(old, &mut rest);
        let sections = [
            ("server", old.server != rest.server),
            ("limits", old.limits != rest.limits),
            ("sealing", old.sealing != rest.sealing),
            ("taxpayer", old.taxpayers != rest.taxpayers),
        ];
        let sections = sections.into_iter().filter(|(_, is)| *is);
        changes.taken_over = sections.map(|(key, _)| key.to_owned()).collect();
        changes.clients(&old.clients, &new.clients);
        changes
    }

    fn clients(&mut self, old: &[Client], new: &[Client]) {
        let named = |clients: &[Client], name: &str| clients.iter().find(|c| c.name == name).cloned();
        for client in new {
            let how = match named(old, &client.name) {
                None => "new",
                Some(before) if before != *client => "changed",
                Some(_) => continue,
            };
            self.taken_over.push(format!("client {} {how}", client.name));
        }
        for gone in old.iter().filter(|c| named(new, &c.name).is_none()) {
            self.taken_over.push(format!("client {} removed", gone.name));
        }
    }
}

/// Puts back what the running service cannot change.
pub(super) fn keep_what_needs_a_restart(old: &Config, new: &mut Config) {
    new.server.listen = old.server.listen;
    new.server.admin_listen = old.server.admin_listen;
    new.server.unix_socket.clone_from(&old.server.unix_socket);
    new.server.state_dir.clone_from(&old.server.state_dir);
    new.server.drain_timeout = old.server.drain_timeout;
    new.server.keep_alive_interval = old.server.keep_alive_interval;
    new.server.keep_alive_timeout = old.server.keep_alive_timeout;
    new.server.network_threads = old.server.network_threads;
    new.server.spool_dir.clone_from(&old.server.spool_dir);
    new.limits.document = old.limits.document;
    new.limits.large_in_flight = old.limits.large_in_flight;
    new.sealing.digest_threads = old.sealing.digest_threads;
    new.tokens.clone_from(&old.tokens);
    new.idempotency.clone_from(&old.idempotency);
    new.log.clone_from(&old.log);
    new.telemetry.clone_from(&old.telemetry);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn example() -> Config {
        Config::load(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../deploy/muhurdar.toml"
        )))
        .unwrap()
    }

    #[test]
    fn what_is_taken_over_and_what_needs_a_restart_is_told_by_name() {
        let (old, mut new) = (example(), example());
        assert_eq!(Changes::between(&old, &new), Changes::default());
        new.limits.queue = 7;
        new.limits.document = bytesize::ByteSize::mib(1);
        new.tokens[0].sessions += 1;
        new.server.network_threads += 1;
        new.server.tls.key = "/elsewhere".into();
        let mut another = new.clients[0].clone();
        new.clients[0].weight = 9;
        another.name = "branch-izmir".to_owned();
        new.clients.push(another);
        let changes = Changes::between(&old, &new);
        assert_eq!(changes.restart, ["server.network_threads", "limits.document", "token"]);
        assert_eq!(
            changes.taken_over,
            [
                "server",
                "limits",
                "client branch-ankara changed",
                "client branch-izmir new"
            ]
        );
        let back = Changes::between(&new, &old);
        assert!(back.taken_over.contains(&"client branch-izmir removed".to_owned()));
    }
}
