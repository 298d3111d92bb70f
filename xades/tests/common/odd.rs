//! Certificates with names that nobody should have, made of others by hand: no tool would write them.

use muhurdar_xades::Certificate;

use super::Identity;

/// A tag, a length, and what is in it.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(u8::try_from(length).unwrap()),
        0x80..0x100 => out.extend([0x81, u8::try_from(length).unwrap()]),
        _ => {
            out.push(0x82);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

/// The elements in `der`, whole.
pub fn elements(mut der: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (header, length) = header(der);
        let (element, rest) = der.split_at(header + length);
        found.push(element);
        der = rest;
    }
    found
}

/// What is in an element.
pub fn content(element: &[u8]) -> &[u8] {
    &element[header(element).0..]
}

fn header(der: &[u8]) -> (usize, usize) {
    match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        short => (2, usize::from(short)),
    }
}

pub const COMMON_NAME: &[u8] = &[0x55, 4, 3];
pub const SERIAL_NUMBER: &[u8] = &[0x55, 4, 5];
pub const COUNTRY: &[u8] = &[0x55, 4, 6];

/// An attribute: its type, the tag of its string, its bytes.
pub type Attribute<'a> = (&'a [u8], u8, Vec<u8>);

/// A name of these relative names.
pub fn name(relative: &[&[Attribute<'_>]]) -> Vec<u8> {
    let sets = relative.iter().map(|attributes| {
        let attributes = attributes
            .iter()
            .map(|(kind, tag, bytes)| tlv(0x30, &[tlv(6, kind), tlv(*tag, bytes)].concat()));
        tlv(0x31, &attributes.collect::<Vec<_>>().concat())
    });
    tlv(0x30, &sets.collect::<Vec<_>>().concat())
}

/// The fields of a TBSCertificate that a test may want otherwise, by their place.
pub const ISSUER: usize = 3;
pub const VALIDITY: usize = 4;
pub const SUBJECT: usize = 5;
pub const PUBLIC_KEY: usize = 6;

/// The certificate of `der` with other fields; its authority's signature is not renewed.
pub fn altered(der: &[u8], fields: &[(usize, &[u8])]) -> Vec<u8> {
    let parts = elements(content(der));
    let mut tbs = elements(content(parts[0]));
    for (at, field) in fields {
        tbs[*at] = field;
    }
    tlv(0x30, &[&tlv(0x30, &tbs.concat()), parts[1], parts[2]].concat())
}

impl Identity {
    /// The same key under other names.
    pub fn renamed(&self, subject: &[u8], issuer: &[u8]) -> Self {
        let der = altered(self.certificate.der(), &[(SUBJECT, subject), (ISSUER, issuer)]);
        self.with_certificate(Certificate::from_der(&der).unwrap())
    }

    /// The same key with another certificate of it.
    pub fn with_certificate(&self, certificate: Certificate) -> Self {
        Self {
            certificate,
            pkcs8: self.pkcs8.clone(),
        }
    }
}
