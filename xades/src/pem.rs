//! Files with certificates, keys and revocation lists in them, as other people's tools write them.
//!
//! Bytes come in, DER goes out, or one sentence that says what the file is and what to do about it. PEM (RFC 7468) is read
//! as bytes: what stands around its blocks may be in any encoding (`openssl pkcs12` writes friendly names in Latin-1), a
//! byte order mark before them, UTF-16 all over. DER is told by its form, whatever the file is called. Nothing here opens a
//! file, and nothing here judges a certificate.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;

use crate::certificate::tlv::{self, Tlv};

/// What something in a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An X.509 certificate.
    Certificate,
    /// A certificate revocation list.
    RevocationList,
    /// A private key.
    PrivateKey(KeyForm),
    /// A private key under a password.
    EncryptedPrivateKey,
    /// A private key as OpenSSH writes it.
    OpenSshKey,
    /// A public key without a certificate.
    PublicKey,
    /// PKCS#10.
    Request,
    /// PKCS#7 or CMS.
    Pkcs7,
    /// PKCS#12.
    Pkcs12,
    /// A PEM block with another label, cut to what is shown.
    Other(String),
}

/// How a private key is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyForm {
    /// PrivateKeyInfo (RFC 5958).
    Pkcs8,
    /// RSAPrivateKey (RFC 8017).
    Pkcs1,
    /// ECPrivateKey (RFC 5915).
    Sec1,
}

impl KeyForm {
    /// What PEM calls it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PRIVATE KEY",
            Self::Pkcs1 => "RSA PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
        }
    }
}

/// Something in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its DER; empty where it is encrypted in a form of its own.
    pub der: Vec<u8>,
}

/// What was expected of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// Certificates.
    Certificate,
    /// A private key.
    PrivateKey,
    /// Revocation lists.
    RevocationList,
}

/// Why a file does not give what was expected of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// No bytes, or only white space.
    #[error("the file is empty; it should hold {}", .0.article())]
    Empty(Wanted),
    /// Neither PEM nor DER of any kind.
    #[error("the file holds {} neither in PEM (text with -----BEGIN …-----) nor in DER", .0.none())]
    Unknown(Wanted),
    /// Something else.
    #[error("the file holds {} but {}{}", .wanted.none(), .found.article(), .found.advice(*.wanted))]
    Other {
        /// What was expected.
        wanted: Wanted,
        /// What is there instead, or the first such thing.
        found: Kind,
    },
    /// Cut off or changed.
    #[error("the file is damaged: {0}; copy it again")]
    Damaged(String),
}

/// Every certificate of a file, in its order.
///
/// # Errors
/// [`FileError`] where there is none, or the file is damaged.
pub fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>, FileError> {
    all(file, Wanted::Certificate, |kind| *kind == Kind::Certificate)
        .map(|found| found.into_iter().map(|item| item.der).collect())
}

/// Every revocation list of a file.
///
/// # Errors
/// [`FileError`] where there is none, or the file is damaged.
pub fn revocation_lists(file: &[u8]) -> Result<Vec<Vec<u8>>, FileError> {
    all(file, Wanted::RevocationList, |kind| *kind == Kind::RevocationList)
        .map(|found| found.into_iter().map(|item| item.der).collect())
}

/// The first private key of a file.
///
/// # Errors
/// [`FileError`] where there is none that can be read without a password, or the file is damaged.
pub fn private_key(file: &[u8]) -> Result<(KeyForm, Vec<u8>), FileError> {
    let found = all(file, Wanted::PrivateKey, |kind| matches!(kind, Kind::PrivateKey(_)))?;
    let key = found.into_iter().find_map(|item| match item.kind {
        Kind::PrivateKey(form) => Some((form, item.der)),
        _ => None,
    });
    key.ok_or(FileError::Unknown(Wanted::PrivateKey))
}

/// Writes DER as PEM under this label (RFC 7468 section 4): `CERTIFICATE`, or a key's
/// [`label`](KeyForm::label).
#[must_use]
pub fn write(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes are 64 characters, the length of a line (RFC 7468 section 2).
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn all(file: &[u8], wanted: Wanted, is: impl Fn(&Kind) -> bool) -> Result<Vec<Item>, FileError> {
    if file.trim_ascii().is_empty() {
        return Err(FileError::Empty(wanted));
    }
    let (found, others): (Vec<_>, Vec<_>) = items(file)?.into_iter().partition(|item| is(&item.kind));
    if !found.is_empty() {
        return Ok(found);
    }
    // What stands nearest to what was wanted says most: an encrypted key rather than the certificate beside it.
    let telling = |item: &&Item| wanted == Wanted::PrivateKey && item.kind.is_key();
    let other = others.iter().find(telling).or(others.first());
    Err(match other {
        Some(item) => FileError::Other {
            wanted,
            found: item.kind.clone(),
        },
        None => FileError::Unknown(wanted),
    })
}

/// What a file holds, in its order; nothing where nothing is recognised.
///
/// # Errors
/// [`FileError::Damaged`] where something begins and does not go on as it must.
pub fn items(file: &[u8]) -> Result<Vec<Item>, FileError> {
    let narrowed = narrow(file);
    let file = narrowed.as_deref().unwrap_or(file);
    if memmem::find(file, BEGIN).is_some() {
        return blocks(file);
    }
    if file.first() == Some(&tlv::SEQUENCE) {
        return elements(file);
    }
    // Base64 without its boundaries, as some authorities send it.
    let bare = decode(file.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(file));
    match bare {
        Some(der) if der.first() == Some(&tlv::SEQUENCE) => elements(&der),
        _ => Ok(Vec::new()),
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// UTF-16 with its byte order mark (what a Windows shell writes by `>`) as bytes: all that matters of PEM is ASCII.
fn narrow(file: &[u8]) -> Option<Vec<u8>> {
    let read: fn([u8; 2]) -> u16 = match file.get(..2)? {
        [0xff, 0xfe] => u16::from_le_bytes,
        [0xfe, 0xff] => u16::from_be_bytes,
        _ => return None,
    };
    let (units, _) = file[2..].as_chunks::<2>();
    Some(
        units
            .iter()
            .map(|unit| u8::try_from(read(*unit)).unwrap_or(b'?'))
            .collect(),
    )
}

fn blocks(file: &[u8]) -> Result<Vec<Item>, FileError> {
    let mut found = Vec::new();
    let mut rest = file;
    while let Some(at) = memmem::find(rest, BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        let ordinal = found.len() + 1;
        let damaged = |what: &str| FileError::Damaged(format!("its PEM block {ordinal} {what}"));
        let end = memmem::find(rest, DASHES).filter(|end| *end <= 64 && !rest[..*end].contains(&b'\n'));
        let (label, behind) = rest.split_at(end.ok_or_else(|| damaged("has a first line that does not end in -----"))?);
        let boundary = [b"-----END ", label, DASHES].concat();
        let behind = &behind[DASHES.len()..];
        let end = memmem::find(behind, &boundary).ok_or_else(|| damaged("has no last line (-----END …-----)"))?;
        rest = &behind[end + boundary.len()..];
        found.push(block(label, &behind[..end]).ok_or_else(|| damaged("is not base64"))?);
    }
    Ok(found)
}

/// A PEM block; `None` where its body is not base64.
fn block(label: &[u8], body: &[u8]) -> Option<Item> {
    let label = String::from_utf8_lossy(label);
    let kind = match &*label {
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Kind::Certificate,
        "X509 CRL" => Kind::RevocationList,
        "PRIVATE KEY" => Kind::PrivateKey(KeyForm::Pkcs8),
        "RSA PRIVATE KEY" => Kind::PrivateKey(KeyForm::Pkcs1),
        "EC PRIVATE KEY" => Kind::PrivateKey(KeyForm::Sec1),
        "ENCRYPTED PRIVATE KEY" => Kind::EncryptedPrivateKey,
        "OPENSSH PRIVATE KEY" => Kind::OpenSshKey,
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Kind::PublicKey,
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Kind::Request,
        "PKCS7" | "CMS" => Kind::Pkcs7,
        other => Kind::Other(other.chars().filter(|c| !c.is_control()).collect()),
    };
    // Headers (RFC 1421 section 4.6.1.1) have a colon, which base64 has not.
    let headed = body.contains(&b':');
    if headed && memmem::find(body, b"ENCRYPTED").is_some() {
        return Some(Item {
            kind: Kind::EncryptedPrivateKey,
            der: Vec::new(),
        });
    }
    let lines = body.split(|byte| matches!(byte, b'\n' | b'\r'));
    let der = decode(&lines.filter(|line| !line.contains(&b':')).collect::<Vec<_>>().concat());
    if matches!(kind, Kind::Other(_) | Kind::OpenSshKey) {
        return Some(Item {
            kind,
            der: der.unwrap_or_default(),
        });
    }
    let der = der?;
    // The content has the last word; OpenSSL's trusted certificates carry more behind it.
    let first = tlv::next(&der).map(|(first, _)| first);
    let told = first.and_then(sniff);
    let der = match (&told, first) {
        (Some(Kind::Certificate), Some(first)) => first.whole.to_vec(),
        _ => der,
    };
    Some(Item {
        kind: told.unwrap_or(kind),
        der,
    })
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let base64: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    STANDARD.decode(base64).ok()
}

/// One DER element after the other; white space and zeros at the end are an editor's or a card's.
fn elements(file: &[u8]) -> Result<Vec<Item>, FileError> {
    let mut found = Vec::new();
    let mut rest = file;
    while rest.iter().any(|byte| *byte != 0 && !byte.is_ascii_whitespace()) {
        let Some((element, behind)) = tlv::next(rest) else {
            return Err(FileError::Damaged(format!(
                "its DER breaks off, or something else follows it, at byte {}",
                file.len() - rest.len()
            )));
        };
        rest = behind;
        found.extend(sniff(element).map(|kind| Item {
            kind,
            der: element.whole.to_vec(),
        }));
    }
    Ok(found)
}

/// What an element of DER is, by its form.
fn sniff(element: Tlv<'_>) -> Option<Kind> {
    use tlv::{BIT_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};
    let children = tlv::within(element, SEQUENCE)?;
    let tags: Vec<_> = children.iter().map(|child| child.tag).collect();
    match tags[..] {
        [SEQUENCE, SEQUENCE, BIT_STRING] => signed(children[0]),
        [SEQUENCE, OCTET_STRING] => Some(Kind::EncryptedPrivateKey),
        [SEQUENCE, BIT_STRING] => Some(Kind::PublicKey),
        [INTEGER, SEQUENCE, OCTET_STRING, ..] => Some(Kind::PrivateKey(KeyForm::Pkcs8)),
        [INTEGER, SEQUENCE, ..] if children[0].content == [3] => Some(Kind::Pkcs12),
        [INTEGER, INTEGER, INTEGER, INTEGER, ..] => Some(Kind::PrivateKey(KeyForm::Pkcs1)),
        [INTEGER, INTEGER] => Some(Kind::PublicKey),
        [INTEGER, OCTET_STRING, ..] => Some(Kind::PrivateKey(KeyForm::Sec1)),
        [OBJECT_IDENTIFIER, 0xa0] => Some(Kind::Pkcs7),
        _ => None,
    }
}

/// What somebody has signed: TBSCertificate, TBSCertList (RFC 5280) or CertificationRequestInfo (RFC 2986).
fn signed(what: Tlv<'_>) -> Option<Kind> {
    use tlv::{GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME};
    let children = tlv::within(what, SEQUENCE)?;
    let fields = children.iter().map(|child| child.tag);
    // Version and serial number, where they are.
    let fields: Vec<_> = fields.skip_while(|tag| matches!(*tag, 0xa0 | INTEGER)).collect();
    match fields[..] {
        [SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..] => Some(Kind::RevocationList),
        [SEQUENCE, SEQUENCE, SEQUENCE, ..] => Some(Kind::Certificate),
        [SEQUENCE, SEQUENCE, ..] => Some(Kind::Request),
        _ => None,
    }
}

impl Wanted {
    fn article(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate",
            Self::PrivateKey => "a private key",
            Self::RevocationList => "a certificate revocation list",
        }
    }

    fn none(self) -> &'static str {
        match self {
            Self::Certificate => "no certificate",
            Self::PrivateKey => "no private key that can be read",
            Self::RevocationList => "no certificate revocation list",
        }
    }
}

impl Kind {
    fn is_key(&self) -> bool {
        matches!(self, Self::EncryptedPrivateKey | Self::OpenSshKey | Self::Pkcs12)
    }

    fn article(&self) -> String {
        match self {
            Self::Certificate => "a certificate".to_owned(),
            Self::RevocationList => "a certificate revocation list".to_owned(),
            Self::PrivateKey(_) => "a private key".to_owned(),
            Self::EncryptedPrivateKey => "an encrypted private key".to_owned(),
            Self::OpenSshKey => "a private key in OpenSSH's own form".to_owned(),
            Self::PublicKey => "a public key".to_owned(),
            Self::Request => "a certificate request".to_owned(),
            Self::Pkcs7 => "a PKCS#7 container".to_owned(),
            Self::Pkcs12 => "a PKCS#12 container (.pfx, .p12)".to_owned(),
            Self::Other(label) => format!("a PEM block {label:?}"),
        }
    }

    /// What to do with it.
    fn advice(&self, wanted: Wanted) -> &'static str {
        match (self, wanted) {
            (Self::EncryptedPrivateKey, Wanted::PrivateKey) => {
                ", and nobody is asked for its password here: `openssl pkey -in FILE -out NEW` writes it without one, into \
                 a file that only the service may read"
            }
            (Self::OpenSshKey, Wanted::PrivateKey) => ": `ssh-keygen -p -m PKCS8 -f COPY` turns a copy into PEM",
            (Self::Pkcs12, Wanted::PrivateKey) => {
                ": `openssl pkcs12 -in FILE -nocerts -noenc -out NEW` takes its key out"
            }
            (Self::Pkcs12, Wanted::Certificate) => {
                ": `openssl pkcs12 -in FILE -nokeys -out NEW` takes its certificates out"
            }
            (Self::Pkcs7, Wanted::Certificate) => {
                ": `openssl pkcs7 -in FILE -print_certs -out NEW` (with -inform DER where it is no text) takes its \
                 certificates out"
            }
            (Self::Request, Wanted::Certificate) => "; what the authority has issued for it is wanted",
            _ => "; is it the right file?",
        }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a key.
        f.debug_struct("Item").field("kind", &self.kind).finish_non_exhaustive()
    }
}
