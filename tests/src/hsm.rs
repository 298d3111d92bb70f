//! What stands in for HSMs: the module that misbehaves on command, before the token of `muhurdar dev`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::process::own_folder;

/// The module that misbehaves on command.
///
/// # Panics
/// Where cargo did not build it with these tests.
#[must_use]
pub fn faulty_token() -> PathBuf {
    let library = own_folder().join("deps/libmuhurdar_faulty_token.so");
    assert!(
        library.exists(),
        "{}: cargo builds it with these tests",
        library.display()
    );
    library
}

/// The configuration with the module that misbehaves on command before its own one.
pub(crate) fn behind_a_distant_hsm(config: &str, dir: &Path, engines: usize, latency: Duration) -> String {
    let library = faulty_token();
    let mut out = String::new();
    for line in config.lines() {
        let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
        let line = match key {
            "module" => format!("module = {:?}", library.display().to_string()),
            "sessions" => format!("sessions = {engines}"),
            "environment" => {
                let module = config.lines().find_map(|l| l.strip_prefix("module = "));
                format!(
                    "environment = {{ FAULTY_TOKEN_MODULE = {}, FAULTY_TOKEN_CONTROL = {:?}, FAULTY_TOKEN_START = {:?}, {}",
                    module.expect("dev writes it").trim(),
                    dir.join("token.sock").display().to_string(),
                    format!("engines {engines};latency {}", latency.as_micros()),
                    value.trim_start_matches("{ "),
                )
            }
            _ => line.to_owned(),
        };
        out += &line;
        out.push('\n');
    }
    out
}

/// The configuration with a second token, a copy of the first one's files. Each runs in a process of its own: a library reads
/// its environment once.
pub(crate) fn with_a_twin(config: &str, dir: &Path) -> String {
    let (first, second) = (dir.join("token"), dir.join("twin"));
    copy(&first, &second);
    let conf = second.join("softhsm2.conf");
    let text = fs::read_to_string(&conf).expect("dev writes softhsm2.conf");
    let moved = text.replace(&first.display().to_string(), &second.display().to_string());
    fs::write(&conf, moved).expect("a copy can be written");
    let begin = config.find("[[token]]").expect("dev writes a token");
    let end = config[begin..].find("[[client]]").map_or(config.len(), |at| begin + at);
    let token = config[begin..end].replace("[[token]]\n", "[[token]]\nisolation = \"process\"\n");
    let twin = token
        .replace("name = \"dev\"", "name = \"twin\"")
        .replace("/token/", "/twin/")
        .replace("token.sock", "twin.sock");
    format!("{}{token}{twin}{}", &config[..begin], &config[end..])
}

/// Copies a folder and all that is in it.
///
/// # Panics
/// Where it cannot.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("it is a folder").flatten() {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).expect("a file can be copied");
        }
    }
}
