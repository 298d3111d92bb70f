//! What `deploy/` promises about other files of the tree: what a build or a cluster would only find out by failing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

fn read(path: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between two texts, where both are on one line.
fn between<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    let at = text.find(before).unwrap_or_else(|| panic!("no {before:?}")) + before.len();
    text[at..].split(after).next().unwrap()
}

#[test]
fn the_image_is_built_by_the_oldest_compiler_that_the_workspace_promises() {
    let promised = read("Cargo.toml");
    let promised = between(&promised, "\nrust-version = \"", '"');
    let image = read("deploy/Containerfile");
    assert_eq!(
        between(&image, "\nARG RUST_IMAGE=docker.io/library/rust:", '-'),
        promised
    );
}

#[test]
fn the_image_does_not_run_as_root_and_drains_when_it_is_stopped() {
    let text = read("deploy/Containerfile");
    let service = &text[text.find(" AS service").unwrap()..];
    let user = between(service, "\nUSER ", ':');
    assert!(
        user.parse::<u32>().is_ok_and(|id| id > 0),
        "{user}: Kubernetes takes only a number for not root"
    );
    assert_eq!(between(service, "\nSTOPSIGNAL ", '\n'), "SIGTERM");
}
