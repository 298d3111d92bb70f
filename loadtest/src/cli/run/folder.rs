//! What a folder of `muhurdar dev` says of its service.

use std::path::Path;

use serde::Deserialize;

use crate::cli::Exit;

/// What of `muhurdar.toml` is of use here.
#[derive(Debug, Deserialize)]
pub(super) struct ServerToml {
    pub(super) server: Option<ServerSection>,
    #[serde(default)]
    pub(super) token: Vec<TokenSection>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenSection {
    #[serde(default)]
    pub(super) label: Option<String>,
    #[serde(default)]
    pub(super) environment: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServerSection {
    pub(super) admin_listen: Option<String>,
}

/// `muhurdar.toml` of a folder, if it has one.
pub(super) fn server_toml(dir: &Path) -> Result<Option<ServerToml>, Exit> {
    let Ok(text) = std::fs::read_to_string(dir.join("muhurdar.toml")) else {
        return Ok(None);
    };
    toml::from_str(&text)
        .map(Some)
        .map_err(|error| Exit::usage(format!("{}/muhurdar.toml: {error}", dir.display())))
}
