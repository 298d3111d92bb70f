//! What any X.509 certificate says, whatever its key.

use std::ops::Range;

use jiff::Timestamp;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::time::Time;

use super::name::{self, Name};
use super::profile::{NameProblem, Unfit, Usage};
use super::tlv::{self, Tlv};
use super::{CertificateError, decimal, is_taxpayer};

/// What a certificate says of its holder, its issuer and its time: also one whose key no seal can be made with, as a client's
/// may be, or an authority's. A foreign thing in it (a string type, an identifier, an extension that is not known here) hides
/// nothing else.
#[derive(Debug)]
pub struct Details {
    /// The part that the authority signed, as a range of the DER.
    pub(super) tbs: Range<usize>,
    pub(super) authority_algorithm: Option<ObjectIdentifier>,
    pub(super) authority_signature: Box<[u8]>,
    pub(super) subject_der: Box<[u8]>,
    pub(super) issuer_der: Box<[u8]>,
    pub(super) usage: Usage,
    pub(super) taxpayer: Option<String>,
    /// Why the names cannot be quoted in a seal.
    pub(super) unwritable: Option<Unfit>,
    subject: String,
    issuer: String,
    common_names: Vec<String>,
    title: String,
    uris: Vec<String>,
    dns_names: Vec<String>,
    serial: Box<[u8]>,
    serial_decimal: String,
    not_before: Timestamp,
    not_after: Timestamp,
    spki_der: Box<[u8]>,
}

/// RFC 5280 allows 20 octets; this bounds what a decimal form costs.
const LONGEST_SERIAL: usize = 64;
/// id-ce-subjectAltName (RFC 5280 section 4.2.1.6).
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// uniformResourceIdentifier and dNSName of a GeneralName.
const URI: u8 = 0x86;
const DNS_NAME: u8 = 0x82;

impl Details {
    /// Reads DER.
    ///
    /// # Errors
    /// [`CertificateError`] where this is no X.509 certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let wrong = CertificateError::Structure;
        let (whole, rest) = tlv::next(der).ok_or(wrong("it is no DER"))?;
        if !rest.is_empty() {
            return Err(wrong("something follows it"));
        }
        let parts = tlv::within(whole, tlv::SEQUENCE).ok_or(wrong("it is no SEQUENCE"))?;
        let &[tbs, algorithm, signature] = &parts[..] else {
            return Err(wrong("it is not signed as certificates are"));
        };
        let algorithm = tlv::within(algorithm, tlv::SEQUENCE)
            .and_then(|parts| parts.first().copied())
            .filter(|oid| oid.tag == tlv::OBJECT_IDENTIFIER)
            .ok_or(wrong("its signatureAlgorithm cannot be read"))?;
        let signature = match signature.content.split_first() {
            Some((0, value)) if signature.tag == tlv::BIT_STRING => value,
            _ => return Err(wrong("its signature cannot be read")),
        };
        let start = der.len() - whole.content.len();
        let tbs_range = start..start + tbs.whole.len();

        let fields = tlv::within(tbs, tlv::SEQUENCE).ok_or(wrong("what is signed cannot be read"))?;
        let versioned = fields.first().is_some_and(|first| first.tag == VERSION);
        let &[serial, _, issuer, validity, subject, spki, ref others @ ..] = &fields[usize::from(versioned)..] else {
            return Err(wrong("a field is missing"));
        };
        if serial.tag != tlv::INTEGER || !(1..=LONGEST_SERIAL).contains(&serial.content.len()) {
            return Err(wrong("its serial number cannot be read"));
        }
        if spki.tag != tlv::SEQUENCE {
            return Err(wrong("its public key cannot be read"));
        }
        let (not_before, not_after) = match tlv::within(validity, tlv::SEQUENCE).as_deref() {
            Some(&[from, until]) => (instant(from)?, instant(until)?),
            _ => return Err(CertificateError::Validity),
        };
        let subject_name = Name::read(subject).ok_or(wrong("its subject cannot be read"))?;
        let issuer_name = Name::read(issuer).ok_or(wrong("its issuer cannot be read"))?;
        let extensions = Extensions::of(others).ok_or(wrong("its extensions cannot be read"))?;
        let (uris, dns_names) = alternative_names(&extensions)?;
        let common_names: Vec<_> = subject_name.strings(name::COMMON_NAME).collect();
        let written = |name: &Name<'_>| name.rfc4514().unwrap_or_default();
        let (subject_text, issuer_text) = (written(&subject_name), written(&issuer_name));
        let unwritable = unwritable("subject", &subject_name, &subject_text)
            .or_else(|| unwritable("issuer", &issuer_name, &issuer_text));
        Ok(Self {
            tbs: tbs_range,
            authority_algorithm: ObjectIdentifier::from_bytes(algorithm.content).ok(),
            authority_signature: signature.into(),
            subject_der: subject.whole.into(),
            issuer_der: issuer.whole.into(),
            usage: Usage::of(&extensions)?,
            taxpayer: taxpayer(&subject_name),
            unwritable,
            subject: subject_text,
            issuer: issuer_text,
            title: common_names
                .first()
                .map(|name| name::printable(name))
                .unwrap_or_default(),
            common_names,
            uris,
            dns_names,
            serial: serial.content.into(),
            serial_decimal: decimal(serial.content),
            not_before,
            not_after,
            spki_der: spki.whole.into(),
        })
    }

    /// The subject as RFC 4514 text, with readable attribute names: `CN=…,SERIALNUMBER=1234567801`. Control characters in it
    /// are written as hex pairs.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The issuer as RFC 4514 text: `CN=…,O=…,C=TR`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The subject's first common name, for people: control characters are replaced (U+FFFD).
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The subject's common names, character for character: for comparing, not for showing.
    #[must_use]
    pub fn common_names(&self) -> &[String] {
        &self.common_names
    }

    /// The URIs among the subject's alternative names.
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The host names among the subject's alternative names.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The serial number, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The serial number in decimal, as `ds:X509SerialNumber` has it.
    #[must_use]
    pub fn serial_decimal(&self) -> &str {
        &self.serial_decimal
    }

    /// The first instant of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last instant of its validity; [`NO_EXPIRATION`] where it has no well-defined one (RFC 5280 section 4.1.2.5), or
    /// none that can be counted.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Whether this certificate is an authority's, that may sign others (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
    #[must_use]
    pub fn is_authority(&self) -> bool {
        self.usage.is_authority()
    }

    /// Whether `issuer` is named as the issuer of this certificate; no signature is looked at.
    #[must_use]
    pub fn names_as_issuer(&self, issuer: &Self) -> bool {
        self.issuer_der == issuer.subject_der
    }
}

/// The end of a certificate without one: 99991231235959Z (RFC 5280 section 4.1.2.5) lies two hours beyond the last instant
/// that every time zone can show, which this is.
pub const NO_EXPIRATION: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// UTCTime or GeneralizedTime.
fn instant(time: Tlv<'_>) -> Result<Timestamp, CertificateError> {
    let time = Time::from_der(time.whole).map_err(|_| CertificateError::Validity)?;
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| CertificateError::Validity)?;
    let counted = Timestamp::from_second(seconds.min(NO_EXPIRATION.as_second()));
    counted.map_err(|_| CertificateError::Validity)
}

/// Whom the subject's serialNumber names; nobody where it names two.
fn taxpayer(subject: &Name<'_>) -> Option<String> {
    let numbers = subject.strings(name::SERIAL_NUMBER);
    let mut numbers = numbers
        .map(|number| number.trim().to_owned())
        .filter(|number| is_taxpayer(number));
    let first = numbers.next()?;
    numbers.all(|other| other == first).then_some(first)
}

/// Why a name cannot be quoted in a seal.
fn unwritable(which: &'static str, name: &Name<'_>, text: &str) -> Option<Unfit> {
    let problem = match name.beyond_xml() {
        Some(character) => NameProblem::Character(character),
        // Whoever verifies reads it, and so must we.
        None if name::match_texts(text, text) => return None,
        None => NameProblem::Unreadable,
    };
    Some(Unfit::Name { which, problem })
}

fn alternative_names(extensions: &Extensions<'_>) -> Result<(Vec<String>, Vec<String>), CertificateError> {
    let names = extensions.get(ALTERNATIVE_NAMES)?;
    let names = names
        .and_then(|names| tlv::within(tlv::next(names)?.0, tlv::SEQUENCE))
        .unwrap_or_default();
    let these = |tag: u8| {
        let these = names.iter().filter(move |name| name.tag == tag);
        let texts = these.filter_map(|name| std::str::from_utf8(name.content).ok());
        texts.filter(|text| text.is_ascii()).map(str::to_owned).collect()
    };
    Ok((these(URI), these(DNS_NAME)))
}

/// `version` and `extensions` of a TBSCertificate.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// The extensions of a certificate: identifier and value of each.
pub(super) struct Extensions<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Extensions<'a> {
    /// Out of what follows the public key.
    fn of(fields: &[Tlv<'a>]) -> Option<Self> {
        let Some(field) = fields.iter().find(|field| field.tag == EXTENSIONS) else {
            return Some(Self(Vec::new()));
        };
        let (list, rest) = tlv::next(field.content)?;
        let one = |extension: Tlv<'a>| match &tlv::within(extension, tlv::SEQUENCE)?[..] {
            [kind, value] | [kind, Tlv { tag: tlv::BOOLEAN, .. }, value]
                if kind.tag == tlv::OBJECT_IDENTIFIER && value.tag == tlv::OCTET_STRING =>
            {
                Some((kind.content, value.content))
            }
            _ => None,
        };
        let all = tlv::within(list, tlv::SEQUENCE).filter(|_| rest.is_empty())?;
        all.into_iter().map(one).collect::<Option<_>>().map(Self)
    }

    /// The value of the extension with this identifier.
    ///
    /// # Errors
    /// Where it stands twice (RFC 5280 section 4.2).
    pub(super) fn get(&self, kind: &[u8]) -> Result<Option<&'a [u8]>, CertificateError> {
        let mut these = self
            .0
            .iter()
            .filter(|(other, _)| *other == kind)
            .map(|(_, value)| *value);
        match (these.next(), these.next()) {
            (_, Some(_)) => Err(CertificateError::Structure("an extension stands twice")),
            (first, None) => Ok(first),
        }
    }
}
