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
        let mut changes = Self {
            restart: restart(old, new),
            taken_over: Vec::new(),
        };
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

/// Makes of one list what is told, what is kept, and what the commented configuration must name.
macro_rules! only_a_restart_takes_over {
    ($($name:literal = $($field:ident).+;)*) => {
        /// As the commented configuration lists them.
        #[cfg(test)]
        const RESTART: &[&str] = &[$($name),*];

        /// What differs of it.
        fn restart(old: &Config, new: &Config) -> Vec<&'static str> {
            let differs = [$(($name, old.$($field).+ != new.$($field).+)),*];
            differs.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
        }

        /// Puts it back to what the running service has.
        pub(super) fn keep_what_needs_a_restart(old: &Config, new: &mut Config) {
            $(new.$($field).+.clone_from(&old.$($field).+);)*
        }
    };
}

only_a_restart_takes_over! {
    "server.listen" = server.listen;
    "server.admin_listen" = server.admin_listen;
    "server.unix_socket" = server.unix_socket;
    "server.state_dir" = server.state_dir;
    "server.drain_timeout" = server.drain_timeout;
    "server.spool_dir" = server.spool_dir;
    "server.keep_alive_interval" = server.keep_alive_interval;
    "server.keep_alive_timeout" = server.keep_alive_timeout;
    "server.network_threads" = server.network_threads;
    "limits.document" = limits.document;
    "limits.large_in_flight" = limits.large_in_flight;
    "sealing.digest_threads" = sealing.digest_threads;
    "idempotency" = idempotency;
    "log" = log;
    "telemetry" = telemetry;
    "token" = tokens;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muhurdar.toml");

    fn example() -> Config {
        Config::load(Path::new(EXAMPLE)).unwrap()
    }

    #[test]
    fn the_commented_configuration_names_what_needs_a_restart() {
        let text = std::fs::read_to_string(EXAMPLE).unwrap();
        let (_, list) = text.split_once("Only a restart takes over: ").unwrap();
        let (list, _) = list.split_once(".\n").unwrap();
        let named = list.replace("\n# ", " ").replace(['[', ']'], "");
        assert_eq!(named.split(", ").collect::<Vec<_>>(), RESTART);
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
