//! `muhurdar dev`: a throw-away appliance, like `vault server -dev`.
//!
//! Comes in: a folder, and for whom to make seals. Goes out: the folder with a SoftHSM2 token, a test CA, keys and
//! certificates, a configuration, programs that call it, and the service itself. What is there already stays; the programs are
//! written anew.

mod examples;
mod home;
mod pki;
mod token;
mod vkn;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;

use self::{home::Home, pki::Authority};
use super::{Failure, exit, serve, signals};
use crate::{
    appliance::Appliance,
    config::{Config, DEFAULT_ADMIN_PORT, DEFAULT_PORT, is_taxpayer},
};

/// The clients' identities are this URI and their name.
const CLIENT_URI: &str = "urn:muhurdar:client:";
const TOKEN_LABEL: &str = "muhurdar-dev";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_ADMIN_PORT);
/// More would keep a laptop busy for hours with generating keys.
const MAX_TAXPAYERS: u32 = 10_000;

/// `muhurdar dev`
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Folder of the appliance; made where it is missing, continued where it is not
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Address of the gRPC listener [default: the folder's configuration, at first 127.0.0.1:7443]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of the metrics and health listener [default: the folder's configuration, at first 127.0.0.1:7480, or a
    /// free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// Test taxpayers to make seals for; the last one gets an EC P-384 key, the others RSA-2048
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_TAXPAYERS)))]
    taxpayers: u32,
    /// A taxpayer by number, with an RSA-2048 key, or :p384; may be given many times
    #[arg(long = "taxpayer", value_name = "VKN[:p384]")]
    named: Vec<Named>,
    /// The SoftHSM2 library, where it is not in one of the usual places
    #[arg(long, value_name = "FILE", env = "MUHURDAR_SOFTHSM2")]
    module: Option<PathBuf>,
    /// Prepare the folder and stop
    #[arg(long)]
    prepare_only: bool,
}

/// The key of a test taxpayer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa2048,
    P384,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa2048",
            Self::P384 => "p384",
        }
    }
}

/// `VKN[:p384]`
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    vkn: String,
    key: KeyKind,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vkn, key) = match text.split_once(':') {
            None => (text, KeyKind::Rsa2048),
            Some((vkn, "rsa2048")) => (vkn, KeyKind::Rsa2048),
            Some((vkn, "p384")) => (vkn, KeyKind::P384),
            Some((_, other)) => return Err(format!("\"{other}\" is no key type; rsa2048 and p384 are")),
        };
        if !is_taxpayer(vkn) {
            return Err("a VKN has 10 digits, a TCKN 11".to_owned());
        }
        Ok(Self {
            vkn: vkn.to_owned(),
            key,
        })
    }
}

impl Dev {
    pub(super) fn run(self) -> Result<(), Failure> {
        let home = Home::open(&self.dir)?;
        let module = token::find_module(self.module.as_deref())?;
        self.prepare(&home, &module)?;
        if self.prepare_only {
            println!(
                "{} is prepared; serve it with: muhurdar serve --config {}",
                self.dir.display(),
                home.path("muhurdar.toml").display()
            );
            return Ok(());
        }
        // Until here they end it at once: there is nobody yet to be answered.
        let signals = signals::take().map_err(|e| Failure::io("signals", &e))?;
        let config = self.config(&home, &module)?;
        serve::serve(
            config,
            &home.path("muhurdar.toml"),
            "info,muhurdar::audit=off",
            signals,
            |appliance| {
                announce(&home, appliance);
            },
        )
    }

    /// Everything in the folder that is not there yet.
    fn prepare(&self, home: &Home, module: &Path) -> Result<(), Failure> {
        let path = home.configure(module, self.listen, self.admin_listen)?;
        let config = Config::load(&path).map_err(Failure::usage)?;
        let authority = Authority::load_or_make(&home.path("ca.crt"), &home.path("ca.key"))?;
        home.certify(&authority, config.server.listen)?;
        home.write_client(config.server.listen)?;
        let known = home.taxpayers()?;
        let missing: Vec<_> = self
            .wanted()
            .into_iter()
            .filter(|w| known.iter().all(|k| k.vkn != w.vkn))
            .collect();
        let mut known = known;
        token::provide(home, &config, &missing, &authority, |made| {
            known.push(made);
            home.write_taxpayers(&known)
        })?;
        home.write_taxpayers(&known)
    }

    /// Whom the command line asks for, each once.
    fn wanted(&self) -> Vec<Named> {
        let numbered = (0..self.taxpayers).map(|index| Named {
            vkn: vkn::test_vkn(index),
            key: if index + 1 == self.taxpayers {
                KeyKind::P384
            } else {
                KeyKind::Rsa2048
            },
        });
        let mut wanted: Vec<Named> = Vec::new();
        for one in numbered.chain(self.named.iter().cloned()) {
            match wanted.iter_mut().find(|w| w.vkn == one.vkn) {
                Some(same) => same.key = one.key,
                None => wanted.push(one),
            }
        }
        wanted
    }

    /// The folder's configuration. Where nobody chose the admin address and it is taken, another port will do; it is
    /// written down, since the load harness looks there.
    fn config(&self, home: &Home, module: &Path) -> Result<Config, Failure> {
        let path = home.path("muhurdar.toml");
        let config = Config::load(&path).map_err(Failure::usage)?;
        let admin = config.server.admin_listen;
        if self.admin_listen.is_some() || admin != DEFAULT_ADMIN_LISTEN || TcpListener::bind(admin).is_ok() {
            return Ok(config);
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
        let free = free.map_err(|e| Failure::io("admin listener", &e))?;
        home.configure(module, None, Some(free))?;
        Config::load(&path).map_err(Failure::usage)
    }
}

/// What to try next, once everything listens.
fn announce(home: &Home, appliance: &Appliance) {
    let Ok(address) = appliance.address() else { return };
    if let Err(failure) = home.write_client(address) {
        let _ = failure.report();
    }
    let admin = appliance
        .admin_address()
        .map_or_else(|_| String::new(), |a| format!("http://{a}/metrics"));
    let dir = home.path("");
    let dir = dir.display().to_string();
    let dir = dir.trim_end_matches('/');
    let taxpayers = home.taxpayers().unwrap_or_default();
    let first = taxpayers.first().map_or("VKN", |t| t.vkn.as_str());
    println!(
        "\n\
         !! Throw-away appliance: test keys in software, made by a test CA. Never put a real seal here. !!\n\
         \n\
         sealing for {count} taxpayers (taxpayers.json) at https://{address}\n\
         metrics at {admin}\n\
         \n\
         Try next:\n\
         \x20 muhurdar seal --config {dir}/client.toml --taxpayer {first} INVOICE.xml --out sealed/\n\
         \x20 muhurdar verify --trust {dir}/ca.crt sealed/INVOICE.xml\n\
         \x20 muhurdar-loadtest run --dir {dir}\n\
         \x20 grpcurl -cacert {dir}/ca.crt -cert {dir}/clients/branch-1.crt -key {dir}/clients/branch-1.key \\\n\
         \x20     {address} muhurdar.seal.v1.SealService/ListSeals\n\
         \n\
         A first seal from a program of your own, in Go, Java, Node and Python: {dir}/clients/examples/README.md\n\
         For Java and .NET, key, certificate and CA are in clients/branch-1.p12 too (password \"{password}\").\n",
        password = pki::P12_PASSWORD,
        count = appliance.taxpayers(),
    );
}

/// Lanes of the software token: it is CPU-bound, so a few more than processors keep them busy.
fn default_sessions() -> usize {
    std::thread::available_parallelism()
        .map_or(2, std::num::NonZeroUsize::get)
        .min(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_taxpayer_is_a_number_with_an_optional_key_type() {
        assert_eq!(
            "1234567890".parse(),
            Ok(Named {
                vkn: "1234567890".to_owned(),
                key: KeyKind::Rsa2048
            })
        );
        assert_eq!(
            "12345678901:p384".parse(),
            Ok(Named {
                vkn: "12345678901".to_owned(),
                key: KeyKind::P384
            })
        );
        assert!("123".parse::<Named>().is_err());
        assert!("1234567890:dsa".parse::<Named>().is_err());
    }
}
