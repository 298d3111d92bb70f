//! What a receiver may want otherwise: the settable parts of a seal.
//!
//! Turkish verifiers accept all of these forms; some receivers insist on one. The defaults are what verifies everywhere
//! and passes GİB's Schematron. Plain data, without a configuration format: whoever reads one converts.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use crate::algorithm::{DigestAlgorithm, SignatureAlgorithm};
use crate::certificate::Certificate;

/// How a seal is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of SignedInfo. Default: inclusive C14N 1.0 without comments. The references always use that one.
    pub canonicalization: CanonicalizationMethod,
    /// Default: the document first.
    pub reference_order: ReferenceOrder,
    /// Default: KeyValue, X509SubjectName, X509Certificate.
    pub key_info: KeyInfoOrder,
    /// Where in a document of the UBL family; the other families have one place each. Default: the first extension that
    /// is free.
    pub place: SealPlace,
    /// `xades:ClaimedRole` on documents of the UBL family; the others carry none. Default: `Supplier`.
    pub claimed_role: Option<String>,
    /// Default: `+03:00`, Turkey's time since 2016.
    pub zone: SigningTimeZone,
    /// The digest of RSA seals; a curve brings its own. Default: SHA-256.
    pub rsa_digest: DigestAlgorithm,
    /// `Signature/@Id` of a document that names none, with `{id}` for the document's own identifier.
    /// Default: `Signature_{id}`.
    pub signature_id: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            canonicalization: CanonicalizationMethod::default(),
            reference_order: ReferenceOrder::default(),
            key_info: KeyInfoOrder::default(),
            place: SealPlace::default(),
            claimed_role: Some("Supplier".to_owned()),
            zone: SigningTimeZone::default(),
            rsa_digest: DigestAlgorithm::Sha256,
            signature_id: "Signature_{id}".to_owned(),
        }
    }
}

impl Policy {
    /// What a certificate seals with under this policy. Its digest is that of the references too.
    #[must_use]
    pub fn signature_algorithm(&self, certificate: &Certificate) -> SignatureAlgorithm {
        SignatureAlgorithm::for_key_with(certificate.key_type(), self.rsa_digest)
    }

    /// The pattern [`signature_id`](Self::signature_id), filled. The caller makes it an NCName.
    #[must_use]
    pub fn signature_id_of(&self, document_id: &str) -> String {
        self.signature_id.replace("{id}", document_id)
    }
}

/// Whether XML can carry a text at all: every character is one of XML 1.0 section 2.2 (Char). What comes from outside of a
/// document, a [`claimed_role`](Policy::claimed_role) say, must.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.chars().all(is_xml)
}

/// Char of XML 1.0 section 2.2, but for surrogates, which no `char` is.
pub(crate) fn is_xml(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// `ds:CanonicalizationMethod/@Algorithm`: the form in which SignedInfo is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CanonicalizationMethod {
    /// Canonical XML 1.0.
    #[default]
    Inclusive,
    /// Canonical XML 1.0 with comments.
    InclusiveWithComments,
    /// Exclusive XML Canonicalization 1.0.
    Exclusive,
    /// Exclusive XML Canonicalization 1.0 with comments.
    ExclusiveWithComments,
}

impl CanonicalizationMethod {
    /// Every method that a seal may use.
    pub const ALL: [Self; 4] = [
        Self::Inclusive,
        Self::InclusiveWithComments,
        Self::Exclusive,
        Self::ExclusiveWithComments,
    ];

    /// The identifier (XML Signature 1.1 section 6.5).
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::Inclusive => "http://www.w3.org/TR/2001/REC-xml-c14n-20010315",
            Self::InclusiveWithComments => "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments",
            Self::Exclusive => "http://www.w3.org/2001/10/xml-exc-c14n#",
            Self::ExclusiveWithComments => "http://www.w3.org/2001/10/xml-exc-c14n#WithComments",
        }
    }

    /// The method of an identifier.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.uri() == uri)
    }

    /// Whether only the namespaces that are visibly used are written.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        matches!(self, Self::Exclusive | Self::ExclusiveWithComments)
    }

    /// Whether comments are part of the form.
    #[must_use]
    pub fn with_comments(self) -> bool {
        matches!(self, Self::InclusiveWithComments | Self::ExclusiveWithComments)
    }
}

/// Which of the two references of a seal stands first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReferenceOrder {
    /// `URI=""`, then SignedProperties.
    #[default]
    DocumentFirst,
    /// SignedProperties, then `URI=""`.
    PropertiesFirst,
}

/// Which `ext:UBLExtension` of a UBL document holds the seal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SealPlace {
    /// The first one whose `ext:ExtensionContent` is empty or holds but a placeholder; where there is none, one of its own.
    #[default]
    FreeExtension,
    /// One of its own behind all others, which stay as they are though one of them be free.
    OwnExtension,
}

/// A child of `ds:KeyInfo`, or of the `ds:X509Data` in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyInfoChild {
    /// `ds:KeyValue`.
    KeyValue,
    /// `ds:X509Data/ds:X509SubjectName`.
    X509SubjectName,
    /// `ds:X509Data/ds:X509Certificate`.
    X509Certificate,
}

impl KeyInfoChild {
    /// The element's local name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KeyValue => "KeyValue",
            Self::X509SubjectName => "X509SubjectName",
            Self::X509Certificate => "X509Certificate",
        }
    }
}

/// The children of `ds:KeyInfo` in their order. Neighbours that belong into `ds:X509Data` share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfoOrder(Vec<KeyInfoChild>);

impl KeyInfoOrder {
    /// An order with the certificate, which every verifier needs, and nothing twice.
    ///
    /// # Errors
    /// [`PolicyError::KeyInfo`] otherwise.
    pub fn new(children: Vec<KeyInfoChild>) -> Result<Self, PolicyError> {
        let once = children
            .iter()
            .enumerate()
            .all(|(i, child)| !children[..i].contains(child));
        if once && children.contains(&KeyInfoChild::X509Certificate) {
            Ok(Self(children))
        } else {
            Err(PolicyError::KeyInfo)
        }
    }

    /// The children.
    #[must_use]
    pub fn children(&self) -> &[KeyInfoChild] {
        &self.0
    }
}

impl Default for KeyInfoOrder {
    fn default() -> Self {
        Self(vec![
            KeyInfoChild::KeyValue,
            KeyInfoChild::X509SubjectName,
            KeyInfoChild::X509Certificate,
        ])
    }
}

/// `KeyValue, X509SubjectName, X509Certificate`.
impl FromStr for KeyInfoOrder {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let known = [
            KeyInfoChild::KeyValue,
            KeyInfoChild::X509SubjectName,
            KeyInfoChild::X509Certificate,
        ];
        let children = text
            .split(',')
            .map(|name| {
                known
                    .into_iter()
                    .find(|child| child.name() == name.trim())
                    .ok_or(PolicyError::KeyInfo)
            })
            .collect::<Result<_, _>>()?;
        Self::new(children)
    }
}

/// The zone that `xades:SigningTime` is written in. The instant is the same in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningTimeZone(TimeZone);

impl SigningTimeZone {
    /// `Z`.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// `2026-05-15T15:43:13+03:00`: xs:dateTime in whole seconds, as an e-Arşiv report quotes it.
    #[must_use]
    pub fn format(&self, at: Timestamp) -> String {
        let offset = self.0.to_offset(at);
        let local = offset.to_datetime(at);
        let (date, time) = (local.date(), local.time());
        let mut text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        let minutes = offset.seconds() / 60;
        if minutes == 0 {
            text.push('Z');
        } else {
            let sign = if minutes < 0 { '-' } else { '+' };
            let minutes = minutes.abs();
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
        text
    }
}

impl Default for SigningTimeZone {
    fn default() -> Self {
        Self(TimeZone::fixed(Offset::constant(3)))
    }
}

/// `Z`, an offset (`+03:00`), or an IANA name (`Europe/Istanbul`).
impl FromStr for SigningTimeZone {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Zone(text.to_owned());
        if text == "Z" {
            return Ok(Self::utc());
        }
        let Some(sign) = text.strip_prefix('+').map(|_| 1).or(text.strip_prefix('-').map(|_| -1)) else {
            return TimeZone::get(text).map(Self).map_err(|_| wrong());
        };
        let (hours, minutes) = text[1..].split_once(':').ok_or_else(wrong)?;
        let number = |digits: &str, limit: i32| -> Option<i32> {
            let digits = Some(digits).filter(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()));
            digits
                .and_then(|digits| digits.parse().ok())
                .filter(|number| *number <= limit)
        };
        let seconds = number(hours, 14)
            .zip(number(minutes, 59))
            .map(|(hours, minutes)| sign * (hours * 3600 + minutes * 60))
            .ok_or_else(wrong)?;
        Offset::from_seconds(seconds)
            .map(|offset| Self(TimeZone::fixed(offset)))
            .map_err(|_| wrong())
    }
}

/// A policy that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// KeyInfo without the certificate, with something twice, or with something unknown.
    #[error(
        "KeyInfo takes KeyValue, X509SubjectName and X509Certificate, each at most once; X509Certificate must be there"
    )]
    KeyInfo,
    /// Not a zone.
    #[error("no time zone {0:?}: give Z, an offset such as +03:00, or an IANA name such as Europe/Istanbul")]
    Zone(String),
}

impl fmt::Display for KeyInfoOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|child| child.name()).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        "2026-05-15T12:43:13.987Z".parse().unwrap()
    }

    #[test]
    fn signing_time_is_written_in_the_zone_that_was_asked_for() {
        assert_eq!(SigningTimeZone::default().format(at()), "2026-05-15T15:43:13+03:00");
        for (zone, text) in [
            ("Z", "2026-05-15T12:43:13Z"),
            ("+03:00", "2026-05-15T15:43:13+03:00"),
            ("-05:30", "2026-05-15T07:13:13-05:30"),
            ("+00:00", "2026-05-15T12:43:13Z"),
            ("Europe/Istanbul", "2026-05-15T15:43:13+03:00"),
        ] {
            assert_eq!(zone.parse::<SigningTimeZone>().unwrap().format(at()), text, "{zone}");
        }
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for zone in [
            "",
            "z",
            "+3",
            "+03",
            "+15:00",
            "+03:60",
            "+é3:00",
            "Turkey/Ankara",
            "++3:00",
        ] {
            assert!(zone.parse::<SigningTimeZone>().is_err(), "{zone}");
        }
    }

    #[test]
    fn key_info_keeps_its_order_and_must_hold_the_certificate() {
        let order: KeyInfoOrder = "X509Certificate,KeyValue".parse().unwrap();
        assert_eq!(
            order.children(),
            [KeyInfoChild::X509Certificate, KeyInfoChild::KeyValue]
        );
        assert_eq!(
            KeyInfoOrder::default().to_string(),
            "KeyValue, X509SubjectName, X509Certificate"
        );
        for wrong in [
            "",
            "KeyValue",
            "X509Certificate,X509Certificate",
            "X509Certificate,KeyName",
        ] {
            assert_eq!(wrong.parse::<KeyInfoOrder>(), Err(PolicyError::KeyInfo), "{wrong}");
        }
    }
}
