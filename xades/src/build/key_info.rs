//! What a seal quotes of its certificate, written once per certificate: `ds:KeyInfo` and `xades:SigningCertificate`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::escape;
use crate::algorithm::DigestAlgorithm;
use crate::certificate::{Certificate, KeyParameters};
use crate::policy::{KeyInfoChild, KeyInfoOrder};

/// The elements that are the same in every seal of a certificate.
#[derive(Debug)]
pub(crate) struct CertificateTexts {
    key_value: String,
    subject_name: String,
    certificate: String,
    /// By digest: SHA-256, SHA-384, SHA-512.
    signing_certificate: [String; 3],
}

impl CertificateTexts {
    pub(crate) fn of(certificate: &Certificate) -> Self {
        Self {
            key_value: key_value(certificate.public_key().parameters()),
            subject_name: element("ds:X509SubjectName", certificate.subject()),
            certificate: element("ds:X509Certificate", &STANDARD.encode(certificate.der())),
            signing_certificate: DigestAlgorithm::ALL.map(|digest| signing_certificate(certificate, digest)),
        }
    }

    /// `xades:SigningCertificate` (XAdES 1.4.2 section 7.2.2): the certificate's digest, its issuer and serial number.
    pub(super) fn signing_certificate(&self, digest: DigestAlgorithm) -> &str {
        match digest {
            DigestAlgorithm::Sha256 => &self.signing_certificate[0],
            DigestAlgorithm::Sha384 => &self.signing_certificate[1],
            DigestAlgorithm::Sha512 => &self.signing_certificate[2],
        }
    }

    /// `ds:KeyInfo` with its children in the order of the policy; those of X509Data that follow one another share it.
    pub(super) fn write_key_info(&self, out: &mut String, order: &KeyInfoOrder) {
        out.push_str("<ds:KeyInfo>");
        let mut within_x509 = false;
        for child in order.children() {
            let (text, is_x509) = match child {
                KeyInfoChild::KeyValue => (&self.key_value, false),
                KeyInfoChild::X509SubjectName => (&self.subject_name, true),
                KeyInfoChild::X509Certificate => (&self.certificate, true),
            };
            match (within_x509, is_x509) {
                (false, true) => out.push_str("<ds:X509Data>"),
                (true, false) => out.push_str("</ds:X509Data>"),
                _ => {}
            }
            within_x509 = is_x509;
            out.push_str(text);
        }
        if within_x509 {
            out.push_str("</ds:X509Data>");
        }
        out.push_str("</ds:KeyInfo>");
    }

    pub(super) fn len_hint(&self) -> usize {
        self.key_value.len() + self.subject_name.len() + self.certificate.len() + 100
    }
}

fn element(name: &str, value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2 * name.len() + 5);
    out.extend(["<", name, ">"]);
    escape::text(&mut out, value);
    out.extend(["</", name, ">"]);
    out
}

/// XML Signature 1.1 section 4.5.2: CryptoBinary for RSA, the 2009 namespace for EC, declared where it is used.
fn key_value(key: &KeyParameters) -> String {
    match key {
        KeyParameters::Rsa { modulus, exponent } => format!(
            "<ds:KeyValue><ds:RSAKeyValue><ds:Modulus>{}</ds:Modulus><ds:Exponent>{}</ds:Exponent></ds:RSAKeyValue></\
             ds:KeyValue>",
            STANDARD.encode(modulus),
            STANDARD.encode(exponent)
        ),
        KeyParameters::Ec { curve, point } => format!(
            "<ds:KeyValue><dsig11:ECKeyValue xmlns:dsig11=\"http://www.w3.org/2009/xmldsig11#\"><dsig11:NamedCurve \
             URI=\"urn:oid:{curve}\"></dsig11:NamedCurve><dsig11:PublicKey>{}</dsig11:PublicKey></dsig11:ECKeyValue></\
             ds:KeyValue>",
            STANDARD.encode(point)
        ),
    }
}

fn signing_certificate(certificate: &Certificate, digest: DigestAlgorithm) -> String {
    let mut out = String::with_capacity(640);
    out.extend([
        "<xades:SigningCertificate><xades:Cert><xades:CertDigest><ds:DigestMethod Algorithm=\"",
        digest.uri(),
        "\"></ds:DigestMethod><ds:DigestValue>",
        &STANDARD.encode(digest.digest(certificate.der())),
        "</ds:DigestValue></xades:CertDigest><xades:IssuerSerial>",
    ]);
    out.push_str(&element("ds:X509IssuerName", certificate.issuer()));
    out.push_str(&element("ds:X509SerialNumber", certificate.serial_decimal()));
    out.push_str("</xades:IssuerSerial></xades:Cert></xades:SigningCertificate>");
    out
}
