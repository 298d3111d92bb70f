//! What callers copy from: programs and commands in docs/clients.md and the READMEs are those that the tests run, and so are those that
//! `muhurdar dev` writes.
//!
//! A fenced block below `<!-- snippet: FILE -->` is that file, below `<!-- snippet: FILE#NAME -->` what stands there between lines with
//! `snippet: NAME` and `end snippet`. `MUHURDAR_RENEW_SNIPPETS=1 cargo test -p muhurdar-tests --test client_docs` writes the blocks anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{env, fs, path::Path};

#[path = "client_docs/examples.rs"]
mod examples;
#[path = "client_docs/snippets.rs"]
mod snippets;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_documents_quote_the_programs_that_are_tested() {
    for name in ["README.md", "README.tr.md", "docs/clients.md"] {
        let document = read(name);
        let renewed = snippets::renewed(&document, read);
        if env::var_os("MUHURDAR_RENEW_SNIPPETS").is_some() {
            fs::write(Path::new(ROOT).join(name), &renewed).unwrap();
            continue;
        }
        let differs = document
            .lines()
            .zip(renewed.lines())
            .position(|(is, wanted)| is != wanted);
        let at = differs.unwrap_or_else(|| document.lines().count().min(renewed.lines().count()));
        assert_eq!(
            document,
            renewed,
            "{name}, line {}: a snippet is not what its source says; MUHURDAR_RENEW_SNIPPETS=1 writes it anew",
            at + 1
        );
    }
}

#[test]
fn no_program_in_the_callers_document_is_written_there_by_hand() {
    let by_hand = snippets::by_hand(&read("docs/clients.md"));
    assert!(
        by_hand.is_empty(),
        "blocks that no test runs, in lines {by_hand:?}: quote them, or say why: <!-- not run: … -->"
    );
}
