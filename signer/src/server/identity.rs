//! Who calls: the names in a verified client certificate.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode as _, asn1::Ia5StringRef, asn1::PrintableStringRef, asn1::Utf8StringRef, oid::AssociatedOid as _},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::tls::Trust;

/// id-at-commonName (RFC 5280, appendix A.1).
const COMMON_NAME: &str = "2.5.4.3";

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; none on the Unix socket.
    pub address: Option<SocketAddr>,
    /// Its names as the configuration writes them (`uri:…`, `dns:…`, `cn:…`, `uid:…`), strongest first; none where it showed
    /// no certificate. The chain was verified in the handshake.
    pub names: Option<Vec<String>>,
    /// Its certificates, leaf first; empty on the Unix socket.
    chain: Vec<CertificateDer<'static>>,
    /// When the first of them ends: a connection may outlive what it was let in by.
    ends: Option<SystemTime>,
    /// The generation of the trust that has let it in.
    verified_by: AtomicU64,
}

impl Peer {
    /// Reads the names of a certificate that the handshake has verified.
    pub(super) fn new(address: SocketAddr, chain: Option<&[CertificateDer<'_>]>, generation: u64) -> Self {
        let chain: Vec<_> = chain
            .unwrap_or_default()
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        Self {
            address: Some(address),
            names: chain.first().map(|leaf| names(leaf)),
            ends: chain.iter().filter_map(|certificate| end(certificate)).min(),
            chain,
            verified_by: AtomicU64::new(generation),
        }
    }

    /// A process of this machine, known by its user.
    pub(super) fn local(uid: u32) -> Self {
        Self {
            address: None,
            names: Some(vec![format!("uid:{uid}")]),
            chain: Vec::new(),
            ends: None,
            verified_by: AtomicU64::new(0),
        }
    }

    /// Whether it would be let in at this time. Where the trust has changed since it was let in, its chain is verified again,
    /// once; where a certificate of the chain has ended, each time, since it may be one that nobody needs.
    pub(super) fn is_trusted_by(&self, trust: &Trust, now: SystemTime) -> bool {
        let ended = self.ends.is_some_and(|end| end < now);
        let verified = self.verified_by.load(Ordering::Relaxed) == trust.generation();
        if self.address.is_none() || (verified && !ended) {
            return true;
        }
        let trusted = trust.admits(&self.chain, now);
        if trusted {
            self.verified_by.store(trust.generation(), Ordering::Relaxed);
        }
        trusted
    }
}

/// When a certificate ends.
fn end(certificate: &[u8]) -> Option<SystemTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_system_time())
}

/// The names of a certificate; an empty list where it cannot be read, which then matches no client.
fn names(leaf: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let mut names = alternative_names(&certificate);
    names.extend(common_names(&certificate).map(|cn| format!("cn:{cn}")));
    names
}

fn alternative_names(certificate: &Certificate) -> Vec<String> {
    let extensions = certificate.tbs_certificate.extensions.iter().flatten();
    let san = extensions
        .filter(|e| e.extn_id == SubjectAltName::OID)
        .find_map(|e| SubjectAltName::from_der(e.extn_value.as_bytes()).ok());
    let mut uris = Vec::new();
    let mut hosts = Vec::new();
    for name in san.iter().flat_map(|san| &san.0) {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(format!("uri:{uri}")),
            GeneralName::DnsName(host) => hosts.push(format!("dns:{}", host.as_str().to_ascii_lowercase())),
            _ => {}
        }
    }
    uris.extend(hosts);
    uris
}

fn common_names(certificate: &Certificate) -> impl Iterator<Item = String> + '_ {
    let attributes = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|rdn| rdn.0.iter());
    attributes.filter(|a| a.oid.to_string() == COMMON_NAME).filter_map(|a| {
        let text = a.value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str().to_owned());
        let text = text.or_else(|_| {
            a.value
                .decode_as::<PrintableStringRef<'_>>()
                .map(|s| s.as_str().to_owned())
        });
        text.or_else(|_| a.value.decode_as::<Ia5StringRef<'_>>().map(|s| s.as_str().to_owned()))
            .ok()
    })
}
