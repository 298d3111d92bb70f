//! Who calls: the names in a verified client certificate.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode as _, asn1::Ia5StringRef, asn1::PrintableStringRef, asn1::Utf8StringRef, oid::AssociatedOid as _},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// id-at-commonName (RFC 5280, appendix A.1).
const COMMON_NAME: &str = "2.5.4.3";

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its names as the configuration writes them (`uri:…`, `dns:…`, `cn:…`), strongest first; none where it showed no
    /// certificate. The chain was verified in the handshake.
    pub names: Option<Vec<String>>,
}

impl Peer {
    /// Reads the names of a certificate that the handshake has verified.
    #[must_use]
    pub fn new(address: SocketAddr, chain: Option<&[CertificateDer<'_>]>) -> Self {
        let leaf = chain.and_then(|c| c.first());
        Self {
            address,
            names: leaf.map(|leaf| names(leaf)),
        }
    }
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
