//! What each key alone cannot tell: whether together they make sense. Every complaint names the key and says what to write.

use muhurdar_xades::Policy;

use super::{Client, Config, Limits, Token, is_pattern, is_taxpayer};

/// More than any machine has processors, fewer than make the system refuse.
const MAX_THREADS: usize = 1024;

impl Config {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.tokens.is_empty() {
            return Err("at least one [[token]] is needed".to_owned());
        }
        for token in &self.tokens {
            token.validate()?;
        }
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
        self.telemetry.validate()?;
        self.limits.validate()
    }
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
        Ok(())
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
        if !(1..=1000).contains(&self.weight) {
            return Err(format!("client \"{}\": weight must be from 1 to 1000", self.name));
        }
        if self.quota.burst.is_some() && self.quota.documents_per_second.is_none() {
            return Err(format!(
                "client \"{}\": quota.burst goes with quota.documents_per_second",
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

impl Limits {
    fn validate(&self) -> Result<(), String> {
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
