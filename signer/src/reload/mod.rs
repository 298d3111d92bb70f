//! A new configuration without a restart: by SIGHUP, or because a file has changed.
//!
//! Comes in: the path of the configuration. Goes out: clients, quotas, limits, forms, certificates and TLS as they are now,
//! all of them or none: whatever is wrong with the new ones is said, and the service goes on with what it had. What is
//! admitted is not touched; connections stay, and are looked at again at their next call.

mod changes;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use muhurdar_xades::Certificate;

use self::changes::Changes;
pub(crate) use self::watch::watch;
use crate::{
    config::{Config, ConfigError},
    pipeline::{Pipeline, Rules},
    seals,
    server::{Live, TlsError, Trust},
    telemetry::Reload,
    tokens,
};

/// How long reading may take: files of a megabyte, and a folder of some thousand certificates.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a new configuration was not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS files that it names.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The folder of certificates that it names.
    #[error(transparent)]
    Certificates(#[from] crate::credentials::CredentialError),
    /// Reading does not end.
    #[error(
        "reading the configuration and the files that it names takes longer than {} s: is one of them a pipe, or on a file system that does not answer?",
        PATIENCE.as_secs()
    )]
    Late,
    /// Reading it panicked, which is a defect.
    #[error("reading the configuration failed; the log has the place")]
    Failed,
}

/// What a reload reads, before anything is changed.
#[derive(Debug)]
struct Fresh {
    config: Config,
    trust: Trust,
    certificates: Vec<Certificate>,
}

impl Fresh {
    fn read(path: &Path) -> Result<Self, ReloadError> {
        let config = Config::load(path)?;
        let trust = Trust::read(&config.server.tls)?;
        let certificates = match &config.sealing.certificates {
            Some(folder) => seals::read_certificates(folder)?,
            None => Vec::new(),
        };
        Ok(Self {
            config,
            trust,
            certificates,
        })
    }
}

/// Takes over new configurations.
#[derive(Debug)]
pub(crate) struct Reloader {
    path: PathBuf,
    /// What holds now.
    config: Config,
    pipeline: Arc<Pipeline>,
    live: Arc<Live>,
}

impl Reloader {
    pub(crate) fn new(path: PathBuf, config: Config, pipeline: Arc<Pipeline>, live: Arc<Live>) -> Self {
        Self {
            path,
            config,
            pipeline,
            live,
        }
    }

    /// The files that the configuration in force was read from.
    fn files(&self) -> Vec<PathBuf> {
        let tls = &self.config.server.tls;
        let tls = [&tls.certificate, &tls.key, &tls.client_ca].into_iter().chain(&tls.crl);
        let lists = self.config.clients.iter().flat_map(|client| &client.taxpayers_file);
        let named = [&self.path].into_iter().chain(tls).chain(lists).cloned();
        // The folder changes with its entries' names, an entry with its content.
        let folder = self.config.sealing.certificates.iter().flat_map(|folder| {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
            [folder.clone()].into_iter().chain(entries)
        });
        named.chain(folder).collect()
    }

    /// What a command beside this service changes on a token, it announces in this file.
    fn announcement(&self) -> PathBuf {
        tokens::announcement(&self.config)
    }

    /// Reads the tokens anew: what a key ceremony has brought to one of them.
    async fn read_tokens(&self) {
        self.pipeline.pool.rediscover_all().await;
    }

    /// Reads everything anew and takes it over, or leaves everything as it is. Both are in the log.
    async fn reload(&mut self) {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || Fresh::read(&path));
        // One that never ends must not be the last: a pipe that nobody writes to, a file system that does not answer.
        let read = match tokio::time::timeout(PATIENCE, read).await {
            Ok(read) => read.unwrap_or(Err(ReloadError::Failed)),
            Err(_) => Err(ReloadError::Late),
        };
        let outcome = match read {
            Ok(fresh) => self.take_over(fresh),
            Err(error) => {
                tracing::error!(%error, "the new configuration is refused; the service goes on with the one it had");
                Reload::Refused
            }
        };
        self.pipeline.metrics.reloaded(outcome);
    }

    fn take_over(&mut self, fresh: Fresh) -> Reload {
        let Fresh {
            mut config,
            trust,
            certificates,
        } = fresh;
        let changes = Changes::between(&self.config, &config);
        let facts = trust.facts.clone();
        let tls_changed = self.live.trust().facts != facts;
        if tls_changed {
            tracing::info!(
                certificate = facts.certificate,
                not_after = facts.not_after,
                client_authorities = facts.authorities,
                revoked_clients = facts.revoked,
                "new TLS files"
            );
        }
        if !changes.restart.is_empty() {
            let keys = changes.restart.join(", ");
            tracing::warn!(keys, "changed, but only a restart takes these over");
        }
        changes::keep_what_needs_a_restart(&self.config, &mut config);
        let seals_changed = self.pipeline.seals.replace_folder(&self.pipeline.pool, certificates);
        self.pipeline.rules.store(Arc::new(Rules::new(&config)));
        self.pipeline.door.reconfigure(&config.limits);
        self.live.replace(&config, trust);
        self.config = config;
        if changes.taken_over.is_empty() && !tls_changed && !seals_changed {
            tracing::info!("the configuration was read again; nothing that can be taken over has changed");
            return Reload::Unchanged;
        }
        let changed = changes.taken_over.join(", ");
        let taxpayers = self.pipeline.seals.load().len();
        tracing::info!(changed, taxpayers, "the new configuration holds");
        Reload::TakenOver
    }
}
