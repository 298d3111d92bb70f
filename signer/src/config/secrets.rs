//! Who may read the files that nobody else should.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use super::{Config, Token};

/// Everybody may read, write.
const OTHERS: u32 = 0o006;
const GROUP: u32 = 0o060;

impl Config {
    /// What is to be said of PIN and key files that others may read or change. A file of root's may be its group's, which is how
    /// a service gets to read it; else the group has no business there.
    #[must_use]
    pub fn open_secrets(&self) -> Vec<String> {
        let pins = self.tokens.iter().filter_map(|token| {
            let credential = token.pin_credential.as_deref().and_then(Token::credential_path);
            let path = token.pin_file.clone().or(credential)?;
            Some((format!("the PIN of token \"{}\"", token.name), path))
        });
        let key = ("the key of server.tls".to_owned(), self.server.tls.key.clone());
        pins.chain([key])
            .filter_map(|(what, path)| open_to(&path).map(|whom| warning(&what, &path, whom)))
            .collect()
    }
}

/// Who has no business in this file and may read or change it; nobody where there is no file, which is found out when it is read.
fn open_to(path: &Path) -> Option<&'static str> {
    let file = std::fs::metadata(path).ok()?;
    open(file.mode(), file.uid())
}

fn open(mode: u32, owner: u32) -> Option<&'static str> {
    if mode & OTHERS != 0 {
        return Some("everybody");
    }
    (mode & GROUP != 0 && owner != 0).then_some("its group")
}

fn warning(what: &str, path: &Path, whom: &str) -> String {
    format!(
        "{}: {what} is open to {whom}; chmod 600 it, or 640 where it is root's",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_and_roots_may_be_its_groups() {
        for (mode, owner, whom) in [
            (0o100_600, 1000, None),
            (0o100_400, 0, None),
            (0o100_640, 0, None),
            (0o100_640, 1000, Some("its group")),
            (0o100_620, 1000, Some("its group")),
            (0o100_644, 0, Some("everybody")),
            (0o100_602, 0, Some("everybody")),
        ] {
            assert_eq!(open(mode, owner), whom, "{mode:o} of {owner}");
        }
    }
}
