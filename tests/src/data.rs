//! Documents, schemas and certificates that nobody here wrote. They lie beside the project and are no part of it, so a
//! clone elsewhere has none of them: tests that need them say that they skip.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// A file or folder in `../shared`, seen from the project's root. None, and a line that says so, where it is missing.
#[must_use]
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!(
        "there is no {} here; it is no part of the project",
        path.display()
    ));
    None
}

/// Says so where it is seen: the test runner keeps what a passing test prints, but not this.
pub fn skipped(why: &str) {
    // A closed standard error is no reason to fail.
    drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
}

/// The files of a folder with this ending, by name.
#[must_use]
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = folder
        .read_dir()
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == ending));
    files.sort();
    assert!(!files.is_empty(), "{} holds no .{ending} file", folder.display());
    files
}
