//! Who calls: the names in a verified client certificate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use muhurdar_xades::certificate::Details;
use rustls_pki_types::CertificateDer;

use super::tls::Trust;

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; none on the Unix socket.
    pub address: Option<SocketAddr>,
    /// Its names as the configuration writes them (`uri:…`, `dns:…`, `cn:…`, `uid:…`), strongest first; none where it showed
    /// no certificate. The chain was verified in the handshake.
    pub names: Option<Vec<String>>,
    /// Where it is, for the audit log: its address, or on the Unix socket its user.
    pub(super) place: Arc<str>,
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
            // As people know it, where an IPv6 listener takes IPv4 too.
            place: SocketAddr::new(address.ip().to_canonical(), address.port())
                .to_string()
                .into(),
            names: chain.first().map(|leaf| names(leaf)),
            ends: chain.iter().filter_map(|certificate| end(certificate)).min(),
            chain,
            verified_by: AtomicU64::new(generation),
        }
    }

    /// A process of this machine, known by its user.
    pub(super) fn local(uid: u32) -> Self {
        let user = format!("uid:{uid}");
        Self {
            address: None,
            place: user.as_str().into(),
            names: Some(vec![user]),
            chain: Vec::new(),
            ends: None,
            verified_by: AtomicU64::new(0),
        }
    }

    /// When its certificate ends, or the first of its intermediates does.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        self.ends
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
    let certificate = Details::from_der(certificate).ok()?;
    Some(certificate.not_after().into())
}

/// The names of a certificate; an empty list where it cannot be read, which then matches no client.
fn names(leaf: &[u8]) -> Vec<String> {
    let Ok(details) = Details::from_der(leaf) else {
        return Vec::new();
    };
    let uris = details.uris().iter().map(|uri| format!("uri:{uri}"));
    let hosts = details
        .dns_names()
        .iter()
        .map(|host| format!("dns:{}", host.to_ascii_lowercase()));
    let common = details.common_names().iter().map(|cn| format!("cn:{cn}"));
    uris.chain(hosts).chain(common).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DnType, DnValue, KeyPair, SanType,
        string::{BmpString, Ia5String, TeletexString, UniversalString},
    };

    use super::*;

    #[test]
    fn a_client_is_known_by_its_name_whichever_string_it_is_written_in() {
        for value in [
            DnValue::Utf8String("Åube".to_owned()),
            DnValue::BmpString(BmpString::try_from("Åube").unwrap()),
            DnValue::UniversalString(UniversalString::try_from("Åube").unwrap()),
        ] {
            assert_eq!(names_with(value.clone(), &[]), ["cn:Åube"], "{value:?}");
        }
        let teletex = DnValue::TeletexString(TeletexString::try_from("branch-1").unwrap());
        let ia5 = DnValue::Ia5String(Ia5String::try_from("branch-1").unwrap());
        for value in [teletex, ia5] {
            let alternative = [
                SanType::DnsName(Ia5String::try_from("Branch.Example").unwrap()),
                SanType::URI(Ia5String::try_from("urn:x:Y").unwrap()),
            ];
            let strongest_first = ["uri:urn:x:Y", "dns:branch.example", "cn:branch-1"];
            assert_eq!(names_with(value, &alternative), strongest_first);
        }
        assert_eq!(names(b"no certificate"), Vec::<String>::new());
    }

    fn names_with(common_name: DnValue, alternative: &[SanType]) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = alternative.to_vec();
        // No key that a seal could be made with.
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        names(params.self_signed(&key).unwrap().der())
    }
}
