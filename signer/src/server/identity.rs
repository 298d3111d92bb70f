//! Who calls: the names in a verified client certificate.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
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
    /// Its certificates, leaf first; empty on the Unix socket.
    chain: Vec<CertificateDer<'static>>,
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
            verified_by: AtomicU64::new(0),
        }
    }

    /// Whether it would be let in now. Where the trust has changed since it was let in, its chain is verified again, once.
    pub(super) fn is_trusted_by(&self, trust: &Trust) -> bool {
        if self.address.is_none() || self.verified_by.load(Ordering::Relaxed) == trust.generation() {
            return true;
        }
        let trusted = trust.admits(&self.chain);
        if trusted {
            self.verified_by.store(trust.generation(), Ordering::Relaxed);
        }
        trusted
    }
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
