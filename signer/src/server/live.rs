//! What of the server may change while it runs: who is known, whom TLS trusts, how many may connect.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use muhurdar_proto::seal::v1::GetServerInfoResponse;

use super::{descriptors, identity::Peer, info, tls::Trust};
use crate::{
    admission::{Access, Caller},
    config::Config,
    refusal::Refusal,
    trace,
};

/// The changeable part of the server; every request looks at what it is then.
#[derive(Debug)]
pub struct Live {
    access: ArcSwap<Access>,
    trust: ArcSwap<Trust>,
    settings: ArcSwap<Settings>,
}

/// Numbers of the configuration that a reload may change.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) handshake_timeout: Duration,
    /// None: as old as they like.
    pub(super) max_connection_age: Option<Duration>,
    pub(super) arrival_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// As many as there are descriptors for.
    pub(super) max_connections: usize,
    pub(super) max_connections_per_client: usize,
    pub(super) batch_items: usize,
    pub(super) stream_in_flight: usize,
    pub(super) admin_hosts: Vec<String>,
    /// What callers are told of them.
    pub(super) info: GetServerInfoResponse,
}

impl Settings {
    fn of(config: &Config, most: usize) -> Self {
        Self {
            handshake_timeout: config.server.handshake_timeout,
            max_connection_age: Some(config.server.max_connection_age).filter(|age| !age.is_zero()),
            arrival_timeout: config.limits.arrival_timeout,
            request_timeout: config.limits.request_timeout,
            max_connections: most,
            max_connections_per_client: config.server.max_connections_per_client,
            batch_items: config.limits.batch_items,
            stream_in_flight: config.limits.stream_in_flight,
            admin_hosts: config.server.admin_hosts.clone(),
            info: info::of(config),
        }
    }
}

impl Live {
    /// With so many connections at the most.
    pub(super) fn new(config: &Config, trust: Trust, most: usize) -> Arc<Self> {
        Arc::new(Self {
            access: ArcSwap::from_pointee(Access::new(&config.clients)),
            trust: ArcSwap::from_pointee(trust),
            settings: ArcSwap::from_pointee(Settings::of(config, most)),
        })
    }

    /// Takes over a new configuration whose TLS files have been read. Connections stay; at its next call each is looked at
    /// again, by what is trusted then.
    pub(crate) fn replace(&self, config: &Config, trust: Trust) {
        let access = Access::after(&self.access.load(), &config.clients);
        self.trust.store(Arc::new(trust));
        self.access.store(Arc::new(access));
        // Where there are hardly any descriptors, those who are connected are served on.
        let most = descriptors::connections(config).unwrap_or(self.settings().max_connections);
        self.settings.store(Arc::new(Settings::of(config, most)));
    }

    pub(crate) fn trust(&self) -> Guard<Arc<Trust>> {
        self.trust.load()
    }

    pub(super) fn access(&self) -> Guard<Arc<Access>> {
        self.access.load()
    }

    pub(super) fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Whether somebody has a certificate that is trusted now.
    ///
    /// # Errors
    /// UNAUTHENTICATED without one, or where it has ended, was revoked or lost its authority since the connection was made.
    pub(super) fn authenticate(&self, peer: Option<&Peer>) -> Result<(), Refusal> {
        peer.filter(|peer| peer.names.is_some() && peer.is_trusted_by(&self.trust.load(), SystemTime::now()))
            .map(drop)
            .ok_or(Refusal::Unauthenticated)
    }

    /// The client that a peer is, whatever it may; none where it is nobody's.
    pub(super) fn known(&self, peer: Option<&Peer>) -> Option<Arc<Caller>> {
        self.access.load().known(peer?.names.as_deref()?)
    }

    /// Who calls, by what is known and trusted now.
    ///
    /// # Errors
    /// As [`Live::authenticate`]; ACCESS where no client has one of its names.
    pub(super) fn caller(&self, peer: Option<&Peer>) -> Result<Arc<Caller>, Refusal> {
        self.authenticate(peer)?;
        let caller = || self.access.load().caller(peer.and_then(|peer| peer.names.as_deref()));
        match peer {
            // Not every task that asks is that of a call.
            Some(peer) => trace::asking_for(&peer.place, caller),
            None => caller(),
        }
    }
}
