//! What each key alone cannot tell: whether together they make sense. Every complaint names the key and says what to write.

use std::{collections::BTreeMap, time::Duration};

use muhurdar_xades::Policy;

use super::{Client, Config, Idempotency, Isolation, Limits, Server, Token, is_pattern, is_taxpayer};

/// More than any machine has processors, fewer than make the system refuse.
const MAX_THREADS: usize = 1024;
/// Shorter than this nothing can be done. Longer than that nobody waits; and it is so short that no sum of times and no point in
/// time overflows.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

impl Config {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.tokens.is_empty() {
            return Err("at least one [[token]] is needed".to_owned());
        }
        for token in &self.tokens {
            token.validate()?;
        }
        one_environment(&self.tokens)?;
        unique("token", self.tokens.iter().map(|t| t.name.as_str()))?;
        unique("client", self.clients.iter().map(|c| c.name.as_str()))?;
        unique("client identity", self.clients.iter().map(|c| c.identity.as_str()))?;
        for client in &self.clients {
            client.validate()?;
        }
        let forms = std::iter::once(("sealing".to_owned(), &self.sealing.form))
            .chain(self.clients.iter().map(|c| (format!("client \"{}\"", c.name), &c.form)))
            .chain(
                self.taxpayers
                    .iter()
                    .map(|(number, t)| (format!("taxpayer \"{number}\""), &t.form)),
            );
        for (owner, form) in forms {
            form.over(&Policy::default())
                .map_err(|problem| format!("{owner}: form.{problem}"))?;
        }
        if let Some(bad) = self.taxpayers.keys().find(|number| !is_taxpayer(number)) {
            return Err(format!("taxpayer \"{bad}\" is no VKN (10 digits) or TCKN (11)"));
        }
        let threads = [
            ("server.network_threads", self.server.network_threads),
            ("sealing.digest_threads", self.sealing.digest_threads),
        ];
        if let Some((key, n)) = threads.into_iter().find(|(_, n)| *n > MAX_THREADS) {
            return Err(format!("{key} is {n}; it must be from 0 to {MAX_THREADS}"));
        }
        self.log.validate()?;
        self.telemetry.validate()?;
        self.server.validate()?;
        self.idempotency.validate()?;
        self.limits.validate()
    }
}

impl Server {
    fn validate(&self) -> Result<(), String> {
        times([
            ("server.drain_timeout", self.drain_timeout),
            ("server.handshake_timeout", self.handshake_timeout),
            ("server.keep_alive_interval", self.keep_alive_interval),
            ("server.keep_alive_timeout", self.keep_alive_timeout),
        ])?;
        // None at all means that they get as old as they like.
        let age = Some(self.max_connection_age).filter(|age| !age.is_zero());
        times([("server.max_connection_age", age.unwrap_or(LONGEST))])?;
        ranges([
            ("server.max_connections", self.max_connections as u64, 1, 1 << 20),
            (
                "server.max_connections_per_client",
                self.max_connections_per_client as u64,
                1,
                1 << 20,
            ),
        ])?;
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            return Err(format!(
                "server.admin_listen is {}, which is server.listen; it needs an address of its own",
                self.admin_listen
            ));
        }
        let bare = |name: &&String| name.is_empty() || name.contains(|c: char| c.is_whitespace() || ":/*".contains(c));
        self.admin_hosts.iter().find(bare).map_or(Ok(()), |name| {
            Err(format!(
                "server.admin_hosts has \"{name}\"; write a host name, without scheme, port or *"
            ))
        })
    }
}

impl Idempotency {
    fn validate(&self) -> Result<(), String> {
        times([("idempotency.window", self.window)])?;
        ranges([
            ("idempotency.entries", self.entries as u64, 0, 1 << 30),
            ("idempotency.bytes", self.bytes.as_u64(), 0, 1 << 40),
        ])
    }
}

/// Tokens whose modules are in this process have one environment between them.
fn one_environment(tokens: &[Token]) -> Result<(), String> {
    let mut set = BTreeMap::new();
    for token in tokens.iter().filter(|token| token.isolation == Isolation::None) {
        for (name, value) in &token.environment {
            let (first, before) = *set.entry(name).or_insert((&token.name, value));
            if before != value {
                return Err(format!(
                    "tokens \"{first}\" and \"{}\" set {name} in their environment to different values, and their modules \
                     share this process; give one of them isolation = \"process\"",
                    token.name
                ));
            }
        }
    }
    Ok(())
}

/// Keys of times, each of which must be one in which something can be done.
fn times<const N: usize>(times: [(&str, Duration); N]) -> Result<(), String> {
    let bad = times.into_iter().find(|(_, time)| !(SHORTEST..=LONGEST).contains(time));
    bad.map_or(Ok(()), |(name, time)| {
        Err(format!("{name} is {time:?}; it must be from 1ms to 168h"))
    })
}

fn ranges<const N: usize>(ranges: [(&str, u64, u64, u64); N]) -> Result<(), String> {
    let out = ranges
        .into_iter()
        .find(|(_, value, low, high)| !(*low..=*high).contains(value));
    out.map_or(Ok(()), |(name, value, low, high)| {
        Err(format!("{name} is {value}; it must be from {low} to {high}"))
    })
}

impl Token {
    fn validate(&self) -> Result<(), String> {
        let name = &self.name;
        let selectors = [self.label.is_some(), self.serial.is_some(), self.slot.is_some()];
        if selectors.into_iter().filter(|s| *s).count() != 1 {
            return Err(format!(
                "token \"{name}\": name the slot by exactly one of label, serial, slot"
            ));
        }
        let pins = [
            self.pin_file.is_some(),
            self.pin_env.is_some(),
            self.pin_credential.is_some(),
        ];
        if pins.into_iter().filter(|s| *s).count() != 1 {
            return Err(format!(
                "token \"{name}\": give the PIN by exactly one of pin_file, pin_env, pin_credential"
            ));
        }
        if !(1..=1024).contains(&self.sessions) {
            return Err(format!("token \"{name}\": sessions must be from 1 to 1024"));
        }
        if self.engines == Some(0) {
            return Err(format!(
                "token \"{name}\": engines must be 1 or more; leave it out where it is not known"
            ));
        }
        let named = |problem: String| format!("token \"{name}\": {problem}");
        times([("call_budget", self.call_budget.unwrap_or(LONGEST))]).map_err(named)?;
        // None at all means never.
        let heartbeat = self.heartbeat.filter(|time| !time.is_zero()).unwrap_or(LONGEST);
        times([("heartbeat", heartbeat)]).map_err(named)
    }
}

impl Client {
    fn validate(&self) -> Result<(), String> {
        let known = ["uri:", "dns:", "cn:", "uid:"]
            .iter()
            .any(|kind| self.identity.starts_with(kind));
        if !known {
            return Err(format!(
                "client \"{}\": identity must begin with uri:, dns:, cn: or uid:, not \"{}\"",
                self.name, self.identity
            ));
        }
        self.validate_identity()?;
        if !(1..=1000).contains(&self.weight) {
            return Err(format!("client \"{}\": weight must be from 1 to 1000", self.name));
        }
        if self.quota.burst.is_some() && self.quota.documents_per_second.is_none() {
            return Err(format!(
                "client \"{}\": quota.burst goes with quota.documents_per_second",
                self.name
            ));
        }
        let nothing = [
            ("in_flight", self.quota.in_flight == Some(0)),
            (
                "in_flight_bytes",
                self.quota.in_flight_bytes.is_some_and(|bytes| bytes.as_u64() == 0),
            ),
        ];
        if let Some((key, _)) = nothing.into_iter().find(|(_, is)| *is) {
            return Err(format!(
                "client \"{}\": quota.{key} is 0, which lets it do nothing; remove the client, or its calls",
                self.name
            ));
        }
        let bad = self.taxpayers.iter().find(|t| !is_pattern(t) && !is_taxpayer(t));
        bad.map_or(Ok(()), |t| {
            Err(format!(
                "client \"{}\": \"{t}\" is no VKN (10 digits) or TCKN (11), nor a pattern of digits, * and ?",
                self.name
            ))
        })
    }
}

impl Client {
    /// An identity that no certificate and no user can have lets nobody in.
    fn validate_identity(&self) -> Result<(), String> {
        let (kind, rest) = self.identity.split_once(':').unwrap_or_default();
        let problem = match kind {
            _ if rest.is_empty() => "says nothing behind its kind",
            // As it is read from the socket: without a sign or leading zeros.
            "uid" if rest.parse::<u32>().map(|uid| uid.to_string()).as_deref() != Ok(rest) => {
                "must be the number of a user, such as uid:1000"
            }
            "dns" if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b)) => {
                "must be a host name as it is in the certificate (an A-label for other letters than ASCII's)"
            }
            _ => return Ok(()),
        };
        Err(format!(
            "client \"{}\": identity \"{}\" {problem}",
            self.name, self.identity
        ))
    }
}

impl Limits {
    fn validate(&self) -> Result<(), String> {
        times([
            ("limits.request_timeout", self.request_timeout),
            ("limits.arrival_timeout", self.arrival_timeout),
            ("limits.large_timeout", self.large_timeout),
        ])?;
        let ranges = [
            ("document", self.document.as_u64(), 1 << 10, 1 << 30),
            ("depth", u64::from(self.depth), 8, 100_000),
            ("attributes", u64::from(self.attributes), 8, 100_000),
            ("in_flight", self.in_flight as u64, 1, 1_000_000),
            (
                "in_flight_bytes",
                self.in_flight_bytes.as_u64(),
                self.document.as_u64(),
                1 << 40,
            ),
            ("queue", self.queue as u64, 1, self.in_flight as u64),
            (
                "queue_bytes",
                self.queue_bytes.as_u64(),
                self.document.as_u64(),
                self.in_flight_bytes.as_u64(),
            ),
            (
                "large_document",
                self.large_document.as_u64(),
                self.document.as_u64(),
                1 << 36,
            ),
            ("large_in_flight", self.large_in_flight as u64, 1, 256),
            ("bulk_percent", self.bulk_percent, 0, 50),
            ("batch_items", self.batch_items as u64, 1, 100_000),
            ("stream_in_flight", self.stream_in_flight as u64, 1, 100_000),
        ];
        let out = ranges
            .into_iter()
            .find(|(_, value, low, high)| !(*low..=*high).contains(value));
        out.map_or(Ok(()), |(name, value, low, high)| {
            Err(format!("limits.{name} is {value}; it must be from {low} to {high}"))
        })
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(format!("a {what} has an empty name"));
        }
        if !seen.insert(name) {
            return Err(format!("two of {what} are \"{name}\""));
        }
    }
    Ok(())
}
