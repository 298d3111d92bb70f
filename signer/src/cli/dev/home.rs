//! The folder of a throw-away appliance: what lies where, and the files that describe it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use toml_edit::DocumentMut;

use super::{CLIENT_URI, Failure, examples, pki};

/// Names of the clients that get a certificate, with their rights.
const CLIENTS: [(&str, &str); 3] = [
    (
        "branch-1",
        "taxpayers = [\"*\"]\ncalls = [\"seal\", \"list\", \"digest\"]",
    ),
    ("branch-2", "taxpayers = [\"*\"]"),
    ("auditor", "taxpayers = [\"*\"]\ncalls = [\"list\"]"),
];

/// `DIR` of `muhurdar dev`.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
}

/// A line of `taxpayers.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Taxpayer {
    /// VKN or TCKN.
    pub(super) vkn: String,
    /// Common name of the certificate.
    pub(super) title: String,
    /// `rsa2048` or `p384`.
    pub(super) key_type: String,
    /// The sealing certificate (PEM), from the folder.
    pub(super) certificate: PathBuf,
}

impl Home {
    /// Opens the folder, or makes it, for its owner only.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = std::path::absolute(dir).map_err(|e| Failure::io(dir.display(), &e))?;
        for folder in [
            dir.clone(),
            dir.join("clients"),
            dir.join("certificates"),
            dir.join("token/store"),
        ] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|e| Failure::io(folder.display(), &e))?;
        }
        Ok(Self { dir })
    }

    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The taxpayers of an earlier run.
    pub(super) fn taxpayers(&self) -> Result<Vec<Taxpayer>, Failure> {
        let path = self.path("taxpayers.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&pki::read(&path)?).map_err(|e| Failure::usage(format_args!("{}: {e}", path.display())))
    }

    pub(super) fn write_taxpayers(&self, taxpayers: &[Taxpayer]) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(taxpayers).map_err(|e| Failure::new(super::exit::SOFTWARE, e))?;
        // A run that is killed here leaves the old list, never half a list.
        pki::write(&self.path("taxpayers.json"), text.as_bytes())
    }

    /// The certificates of the server and the clients, made anew where they are missing or about to end.
    pub(super) fn certify(&self, authority: &pki::Authority, listen: SocketAddr) -> Result<(), Failure> {
        let (certificate, key) = (self.path("server.crt"), self.path("server.key"));
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let covered = loopback.contains(&listen.ip()) || listen.ip().is_unspecified();
        let addresses: Vec<_> = loopback.into_iter().chain([listen.ip()]).collect();
        if !covered || !key.exists() || !pki::still_valid(&certificate, 30) {
            authority.server(&addresses, &certificate, &key)?;
        }
        for (name, _) in CLIENTS {
            let (certificate, key) = self.client(name);
            let anew = !key.exists() || !pki::still_valid(&certificate, 30);
            if anew {
                authority.client(name, &certificate, &key)?;
            }
            let p12 = self.path(format!("clients/{name}.p12"));
            if anew || !p12.exists() {
                pki::p12(&self.path("ca.crt"), &certificate, &key, &p12)?;
            }
        }
        Ok(())
    }

    fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        (
            self.path(format!("clients/{name}.crt")),
            self.path(format!("clients/{name}.key")),
        )
    }

    /// `muhurdar.toml`: written once, then the operator's own; only addresses that were asked for are changed in it.
    pub(super) fn configure(
        &self,
        module: &Path,
        listen: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Result<PathBuf, Failure> {
        let path = self.path("muhurdar.toml");
        let text = if path.exists() {
            pki::read(&path)?
        } else {
            self.fresh_config(module)
        };
        let mut document: DocumentMut = text
            .parse()
            .map_err(|e| Failure::usage(format_args!("{}: {e}", path.display())))?;
        for (name, address) in [("listen", listen), ("admin_listen", admin)] {
            if let Some(address) = address {
                document["server"][name] = toml_edit::value(address.to_string());
            }
        }
        pki::write(&path, document.to_string().as_bytes())?;
        Ok(path)
    }

    fn fresh_config(&self, module: &Path) -> String {
        let quote = |path: &Path| toml_edit::Value::from(path.display().to_string()).to_string();
        let clients = CLIENTS.map(|(name, rights)| {
            format!("\n[[client]]\nname = \"{name}\"\nidentity = \"uri:{CLIENT_URI}{name}\"\n{rights}\n")
        });
        format!(
            "# Written by `muhurdar dev`: for trying out, never for a real seal. deploy/muhurdar.toml explains every key.\n\
             \n\
             [server]\n\
             listen = \"{}\"\n\
             admin_listen = \"{}\"\n\
             \n\
             [server.tls]\n\
             certificate = \"server.crt\"\n\
             key = \"server.key\"\n\
             client_ca = \"ca.crt\"\n\
             \n\
             [sealing]\n\
             unnamed_sealer = \"allow\"\n\
             \n\
             [[token]]\n\
             name = \"dev\"\n\
             module = {}\n\
             label = \"{}\"\n\
             pin_file = \"token/pin\"\n\
             sessions = {}\n\
             environment = {{ SOFTHSM2_CONF = {} }}\n\
             {}",
            super::DEFAULT_LISTEN,
            super::DEFAULT_ADMIN_LISTEN,
            quote(module),
            super::TOKEN_LABEL,
            super::default_sessions(),
            quote(&self.path("token/softhsm2.conf")),
            clients.concat(),
        )
    }

    /// How branch-1 reaches the appliance: `client.toml`, and the programs of `clients/examples`.
    pub(super) fn write_client(&self, address: SocketAddr) -> Result<(), Failure> {
        let reachable = if address.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        } else {
            address
        };
        let text = format!(
            "# For `muhurdar seal --config`. Written by `muhurdar dev` at each start.\n\
             endpoint = \"https://{reachable}\"\n\
             ca = \"ca.crt\"\n\
             cert = \"clients/branch-1.crt\"\n\
             key = \"clients/branch-1.key\"\n"
        );
        pki::write(&self.path("client.toml"), text.as_bytes())?;
        examples::write(&self.path("clients/examples"), &self.dir, reachable)
    }
}
