//! The TLS side of the listener: certificates, the authorities of clients, who is revoked. Built anew at each reload, and whole
//! or not at all.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use muhurdar_xades::certificate::Details;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_cert::{crl::CertificateList, der::Decode as _};

use crate::{
    config::Tls,
    credentials::{self, CredentialError},
};

/// What is wrong with the TLS files. Always the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error(transparent)]
    File(#[from] CredentialError),
    /// The pieces do not fit together.
    #[error("TLS: {0}")]
    Config(String),
}

/// Whom the listener trusts, and how it shows itself.
#[derive(Debug)]
pub struct Trust {
    pub(super) config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Every one built has a number of its own.
    generation: u64,
    /// What ops see of it in the log when it changes.
    pub(crate) facts: Facts,
}

/// What a set of TLS files says, for the log: nothing of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Serial number of the listener's certificate, hexadecimal.
    pub(crate) certificate: String,
    /// When it ends.
    pub(crate) not_after: String,
    /// Authorities of clients.
    pub(crate) authorities: usize,
    /// Revoked client certificates.
    pub(crate) revoked: usize,
    /// When the listener's certificate ends, and the first of the revocation lists (its nextUpdate).
    pub(crate) ends: Option<SystemTime>,
    pub(crate) next_update: Option<SystemTime>,
}

/// What of a set of TLS files has run out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RunOut {
    certificate: bool,
    list: bool,
}

impl Trust {
    /// Reads the files: TLS 1.3 (1.2 where allowed), client certificates checked in every handshake.
    ///
    /// # Errors
    /// Where a file is missing, holds no certificate or key, or the key does not fit the certificate.
    pub(crate) fn read(tls: &Tls) -> Result<Self, TlsError> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut facts = Facts::default();
        let roots = credentials::authorities(&tls.client_ca)?;
        facts.authorities = roots.len();
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        if let Some(path) = &tls.crl {
            let lists = revocation_lists(path, &mut facts)?;
            // The authority itself is the operator's own choice; an issuer without a list lets nobody in.
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        let verifier = builder
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Config(e.to_string()))?;
        let versions: &[&rustls::SupportedProtocolVersion] =
            if tls.allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let (chain, key) = credentials::identity(&tls.certificate, &tls.key, &provider)?;
        facts.describe(chain.first().map(|leaf| &**leaf));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| TlsError::Config(e.to_string()))?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, key)
            .map_err(|e| TlsError::Config(format!("{} and {}: {e}", tls.certificate.display(), tls.key.display())))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would carry a client certificate that nobody has looked at since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            verifier,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            facts,
        })
    }

    /// Its number.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a client's chain, leaf first, would be let in at this time.
    pub(super) fn admits(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(now);
        chain.split_first().is_some_and(|(leaf, intermediates)| {
            let verified = self.verifier.verify_client_cert(leaf, intermediates, now);
            verified.is_ok()
        })
    }
}

impl Trust {
    /// Says what has run out since it was said last; a set of files that was not seen before is looked at anew. rustls lets clients
    /// in by a list that is past its nextUpdate, as it does when it reads one, and so does this: whom it revokes stays
    /// revoked, and a list that comes late shuts nobody out.
    pub(crate) fn warn_of_what_has_run_out(&self, said: &mut Option<Said>, now: SystemTime) {
        let past = |end: Option<SystemTime>| end.is_some_and(|end| end < now);
        let run_out = RunOut {
            certificate: past(self.facts.ends),
            list: past(self.facts.next_update),
        };
        let before = said.filter(|said| said.generation == self.generation);
        let before = before.map(|said| said.run_out).unwrap_or_default();
        if run_out.list && !before.list {
            tracing::warn!(
                "a certificate revocation list is past its nextUpdate; it still holds, but newer revocations are missing: bring its successor"
            );
        }
        if run_out.certificate && !before.certificate {
            tracing::error!(
                certificate = self.facts.certificate,
                not_after = self.facts.not_after,
                "the listener's certificate has expired: clients refuse the connection; put its successor into its place"
            );
        }
        *said = Some(Said {
            generation: self.generation,
            run_out,
        });
    }
}

/// What [`Trust::warn_of_what_has_run_out`] has said already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    generation: u64,
    run_out: RunOut,
}

impl Facts {
    fn describe(&mut self, leaf: Option<&[u8]>) {
        let Some(certificate) = leaf.and_then(|leaf| Details::from_der(leaf).ok()) else {
            return;
        };
        let serial: Vec<_> = certificate.serial().iter().map(|byte| format!("{byte:02X}")).collect();
        self.certificate = serial.join(":");
        self.not_after = certificate.not_after().to_string();
        self.ends = Some(certificate.not_after().into());
    }
}

/// The lists of a file.
fn revocation_lists(path: &Path, facts: &mut Facts) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = credentials::revocation_lists(path)?;
    for list in &lists {
        let list = CertificateList::from_der(list).map_err(|e| CredentialError {
            path: path.to_owned(),
            problem: format!("not a certificate revocation list in DER: {e}"),
        })?;
        facts.revoked += list
            .tbs_cert_list
            .revoked_certificates
            .map_or(0, |revoked| revoked.len());
        let next = list.tbs_cert_list.next_update.map(|t| t.to_system_time());
        facts.next_update = facts.next_update.into_iter().chain(next).min();
    }
    Ok(lists)
}
