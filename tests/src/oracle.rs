//! Other people's verdicts: xmlsec1 on seals, libxml2 on schemas, lxml and SaxonC on what else a document must be.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Output, data::skipped};

/// Whether xmlsec1 takes the seal of a file: digests and signature value.
///
/// # Errors
/// What xmlsec1 says.
pub fn xmlsec1(file: &Path) -> Result<(), String> {
    let ids = [
        "http://uri.etsi.org/01903/v1.3.2#:SignedProperties",
        "http://www.w3.org/2000/09/xmldsig#:Signature",
        "http://www.w3.org/2000/09/xmldsig#:SignatureValue",
    ];
    let mut command = Command::new("xmlsec1");
    command.args(["--verify", "--insecure"]);
    for id in ids {
        command.args(["--id-attr:Id", id]);
    }
    let output = Output::of(command.arg(file));
    let ok = output.status.success() && output.text.lines().any(|l| l.trim() == "OK");
    if ok { Ok(()) } else { Err(output.text) }
}

/// What libxml2 (xmllint) holds against files of one schema: for each invalid one its complaints.
#[must_use]
pub fn invalid<'a>(schema: &Path, files: impl IntoIterator<Item = &'a Path>) -> BTreeMap<PathBuf, Vec<String>> {
    let files: Vec<_> = files.into_iter().collect();
    let output = Output::of(
        Command::new("xmllint")
            .args(["--nonet", "--noout", "--schema"])
            .arg(schema)
            .args(&files),
    );
    let mut found = BTreeMap::new();
    for file in files {
        let name = file.display();
        if output.text.lines().any(|l| l == format!("{name} validates")) {
            continue;
        }
        let own = output.text.lines().filter(|l| l.starts_with(&format!("{name}:")));
        found.insert(file.to_owned(), own.map(str::to_owned).collect());
    }
    assert_eq!(output.status.success(), found.is_empty(), "{}", output.text);
    found
}

/// A Python with lxml and saxonche in it, as `make test` sets it up.
#[derive(Debug)]
pub struct Python(PathBuf);

impl Python {
    /// The one named by `MUHURDAR_TEST_VENV`, else that in `target/test-venv`. None, and a line that says so, where there
    /// is none.
    #[must_use]
    pub fn find() -> Option<Self> {
        let folder = std::env::var_os("MUHURDAR_TEST_VENV").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv"),
            PathBuf::from,
        );
        let python = folder.join("bin/python");
        if python.exists() {
            return Some(Self(python));
        }
        skipped(&format!(
            "there is no {}; `make test` sets it up where PyPI can be reached",
            python.display()
        ));
        None
    }

    /// Runs a script.
    #[must_use]
    pub fn run<'a>(&self, script: &Path, arguments: impl IntoIterator<Item = &'a Path>) -> Output {
        Output::of(Command::new(&self.0).arg(script).args(arguments))
    }
}
