//! What of the service's configuration a reader of the report should know.
//!
//! Named keys only, those that bear on speed: a configuration holds paths of keys and PINs, and a report none of them.

use std::{collections::BTreeMap, path::Path};

const ROOMS: [(&str, &[&str]); 3] = [
    ("server", &["network_threads"]),
    (
        "limits",
        &[
            "in_flight",
            "in_flight_bytes",
            "batch_items",
            "stream_in_flight",
            "request_timeout",
        ],
    ),
    ("sealing", &["digest_threads"]),
];
const TOKEN: [&str; 8] = [
    "sessions",
    "engines",
    "rsa_mechanism",
    "single_session",
    "isolation",
    "call_budget",
    "heartbeat",
    "batch",
];

/// Keys and values that are set in a `muhurdar.toml`; nothing where it cannot be read.
pub(crate) fn read(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let mut found = BTreeMap::new();
    for (room, keys) in ROOMS {
        for key in keys {
            if let Some(value) = table.get(room).and_then(|room| room.get(key)) {
                found.insert(format!("{room}.{key}"), value.to_string());
            }
        }
    }
    let tokens = table.get("token").and_then(toml::Value::as_array);
    for token in tokens.into_iter().flatten() {
        let name = token.get("name").and_then(toml::Value::as_str).unwrap_or("token");
        for key in TOKEN {
            if let Some(value) = token.get(key) {
                found.insert(format!("{name}.{key}"), value.to_string());
            }
        }
        let module = token.get("module").and_then(toml::Value::as_str).map(Path::new);
        if let Some(file) = module.and_then(Path::file_name) {
            found.insert(format!("{name}.module"), file.to_string_lossy().into_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_bears_on_speed_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[server.tls]\nkey = \"/secret/server.key\"\n[limits]\nin_flight = 77\n[[token]]\nname = \"hsm\"\n\
                    module = \"/opt/vendor/libhsm.so\"\npin_file = \"/secret/pin\"\nsessions = 8\n";
        std::fs::write(file.path(), text).unwrap();
        let found = read(file.path());
        let said: Vec<String> = found.iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(said, ["hsm.module libhsm.so", "hsm.sessions 8", "limits.in_flight 77"]);
        assert!(read(Path::new("/nowhere")).is_empty());
    }
}
