//! Discovery: what on a token belongs together, and what can sign. In comes a logged-in session, out come the private keys, each with its
//! public key and its certificates, and what is left out with the reason.
//!
//! Finding is slow on every token (2-3 s with 300 keys on some), so it is done once per epoch of a slot, in three searches, and never for a
//! signature. Neither CKA_ID nor label is unique (PKCS#11 3.1, section 4.4 and 4.8, only recommends that they tell objects apart), so objects
//! belong together by public key. A private key that does not show its public half, as EC keys need not, takes the one that goes by its CKA_ID
//! where that is the only one for the only such key; otherwise it signs a probe, and whose public key verifies that is its own. An object that
//! cannot be read or used costs itself and no other.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::ckr::{CkrError, ckr};
use crate::config::RsaMechanism;
use crate::driver::{FoundKey, SignCall};
use crate::health::probe_call;
use crate::job::SignInput;
use crate::keys::{Curve, KeyKind, PUBLIC_PARTS, Read, certificate_spki, handle, hex, read, same_key};
use crate::table;

/// Signs with a key that is being looked at, on a session that may be spoiled by it.
pub(crate) type Probe<'a> = dyn Fn(&SignCall<'_>) -> Result<Vec<u8>, CkrError> + 'a;

/// Why a key with CKA_SIGN = false is left out: that it is not for signing is nothing to worry about.
pub(crate) const NOT_FOR_SIGNING: &str = "CKA_SIGN is false";

/// What is signed to see whose key a private key is: not a document's digest.
const PROBE: &[u8] = b"muhurdar discovery";

/// The lengths of RSA keys whose signatures can be checked, in bits; what does not verify is never released.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key on the token, by itself or in a certificate.
struct Public {
    id: Vec<u8>,
    spki: Vec<u8>,
}

struct Certificate {
    id: Vec<u8>,
    spki: Vec<u8>,
    der: Vec<u8>,
}

struct Private {
    object: ObjectHandle,
    found: Read,
}

/// Looks at objects, and remembers whether any of them could be read.
struct Reader<'a> {
    session: &'a Session,
    any: bool,
    failed: Option<CkrError>,
    left_out: Vec<FoundKey>,
}

impl Reader<'_> {
    fn find(&self, class: ObjectClass) -> Result<Vec<ObjectHandle>, CkrError> {
        self.session
            .find_objects(&[Attribute::Class(class), Attribute::Token(true)])
            .map_err(|e| ckr(&e))
    }

    /// Reads an object, or leaves it out.
    ///
    /// # Errors
    /// Where the failure says something of the token, and not of the object.
    fn read(&mut self, object: ObjectHandle, what: &str, wanted: &[AttributeType]) -> Result<Option<Read>, CkrError> {
        // A second time, since what fails once may have failed for another reason than the object.
        match read(self.session, object, wanted).or_else(|_| read(self.session, object, wanted)) {
            Ok(found) => {
                self.any = true;
                Ok(Some(found))
            }
            Err(error) if is_of_the_object(&error) => {
                let named = read(self.session, object, &[AttributeType::Id, AttributeType::Label]).unwrap_or_default();
                self.leave_out(object, named, format!("{what} cannot be read: {error}"));
                self.failed = Some(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn leave_out(&mut self, object: ObjectHandle, named: Read, why: String) {
        self.left_out.push(FoundKey {
            handle: handle(object),
            label: named.label,
            cka_id: named.id,
            spki_der: Vec::new(),
            certificates: Vec::new(),
            refused: Some(why),
        });
    }
}

/// Whether a failed `C_GetAttributeValue` is about this object alone. A module that fails in general does so with the next call too.
fn is_of_the_object(error: &CkrError) -> bool {
    use cryptoki_sys as ck;
    // What cryptoki cannot make sense of is the value of an attribute, such as a vendor's own type of key.
    error.function == "cryptoki"
        || matches!(
            error.code as ck::CK_RV,
            ck::CKR_ATTRIBUTE_SENSITIVE
                | ck::CKR_ATTRIBUTE_TYPE_INVALID
                | ck::CKR_ATTRIBUTE_VALUE_INVALID
                | ck::CKR_OBJECT_HANDLE_INVALID
                | ck::CKR_BUFFER_TOO_SMALL
                | ck::CKR_ARGUMENTS_BAD
                | ck::CKR_FUNCTION_FAILED
                | ck::CKR_GENERAL_ERROR
        )
}

/// Finds the private keys of a token, and what is left out of them and why. Answers the keys first.
///
/// # Errors
/// Where the token does not answer, or answers for no object at all.
pub(crate) fn discover(session: &Session, probe: &Probe<'_>) -> Result<Vec<FoundKey>, CkrError> {
    let mut reader = Reader {
        session,
        any: false,
        failed: None,
        left_out: Vec::new(),
    };
    let mut certificates = Vec::new();
    for object in reader.find(ObjectClass::CERTIFICATE)? {
        let wanted = [AttributeType::Id, AttributeType::Label, AttributeType::Value];
        let Some(found) = reader.read(object, "this certificate", &wanted)? else {
            continue;
        };
        match certificate_spki(&found.value) {
            Some(spki) => certificates.push(Certificate {
                id: found.id,
                spki,
                der: found.value,
            }),
            None => reader.leave_out(
                object,
                found,
                "this certificate is not one of X.509 (RFC 5280)".to_owned(),
            ),
        }
    }
    let mut public = Vec::new();
    for object in reader.find(ObjectClass::PUBLIC_KEY)? {
        if let Some(found) = reader.read(object, "this public key", &PUBLIC_PARTS)?
            && let Some(spki) = found.spki()
        {
            public.push(Public { id: found.id, spki });
        }
    }
    public.extend(certificates.iter().map(|certificate| Public {
        id: certificate.id.clone(),
        spki: certificate.spki.clone(),
    }));
    let mut private = Vec::new();
    for object in reader.find(ObjectClass::PRIVATE_KEY)? {
        let mut wanted = PUBLIC_PARTS.to_vec();
        wanted.extend([AttributeType::Sign, AttributeType::AlwaysAuthenticate]);
        if let Some(found) = reader.read(object, "this private key", &wanted)? {
            private.push(Private { object, found });
        }
    }
    if let (false, Some(error)) = (reader.any, reader.failed) {
        return Err(error);
    }

    let mut keys = Vec::with_capacity(private.len());
    for key in &private {
        let (spki, refused) = judge(key, &private, &public, probe)?;
        keys.push(found_key(key, spki, refused, &certificates));
    }
    keys.append(&mut reader.left_out);
    Ok(keys)
}

/// Writes what cannot be used of what a token holds, by its names.
pub(crate) fn tell(token: &str, found: &[FoundKey]) {
    for left_out in found {
        let (label, cka_id) = (&left_out.label, hex(&left_out.cka_id));
        match left_out.refused.as_deref() {
            None => {}
            Some(NOT_FOR_SIGNING) => tracing::info!(token, label, cka_id, "a key cannot sign: {NOT_FOR_SIGNING}"),
            Some(why) => tracing::warn!(token, label, cka_id, "an object on the token cannot be used: {why}"),
        }
    }
}

/// The public key of a private one, and why it cannot sign where it cannot.
fn judge(
    key: &Private,
    all: &[Private],
    public: &[Public],
    probe: &Probe<'_>,
) -> Result<(Option<Vec<u8>>, Option<String>), CkrError> {
    let flag = |flag| key.found.flags.get(&flag).copied();
    let why_not = if flag(AttributeType::Sign) == Some(false) {
        Some(NOT_FOR_SIGNING.to_owned())
    } else if flag(AttributeType::AlwaysAuthenticate) == Some(true) {
        Some("it wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which cannot be had a thousand times a second".to_owned())
    } else {
        None
    };
    // Its own numbers say it best.
    if let Some(spki) = key.found.spki() {
        let why_not = why_not.or_else(|| unfit(&spki));
        return Ok((Some(spki), why_not));
    }
    if let Some(why) = kind_that_cannot(&key.found) {
        return Ok((None, why_not.or(Some(why))));
    }
    let by_id = candidates(key, public.iter().filter(|p| !p.id.is_empty() && p.id == key.found.id));
    let alone = all
        .iter()
        .filter(|other| other.found.id == key.found.id && other.found.spki().is_none() && may_share(key, other))
        .count()
        == 1;
    if let ([only], true) = (by_id.as_slice(), alone) {
        return Ok((Some(only.to_vec()), why_not.or_else(|| unfit(only))));
    }
    if why_not.is_some() {
        // It cannot be asked, and need not be.
        return Ok((None, why_not));
    }
    let everybody = candidates(key, public.iter());
    let mut asked = whose(key, &everybody, probe)?;
    if !matches!(asked, Asked::Is(_)) {
        // Once more, since what goes wrong once may have gone wrong for another reason than the key.
        asked = whose(key, &everybody, probe)?;
    }
    Ok(match asked {
        Asked::Is(spki) => (Some(spki), None),
        Asked::Fails(error) => (None, Some(nobody(Some(error)))),
        Asked::Nobody => (None, Some(nobody(None))),
    })
}

fn nobody(error: Option<CkrError>) -> String {
    match error {
        Some(error) => format!(
            "it does not show its public key, and signing to see which of those on the token is its own fails: {error}"
        ),
        None => {
            "it does not show its public key, and no public key or certificate on the token verifies what it signs; \
                 bring its certificate (muhurdar token import)"
                .to_owned()
        }
    }
}

/// Public keys of this private key's type and curve, each once.
fn candidates<'a>(key: &Private, public: impl Iterator<Item = &'a Public>) -> Vec<&'a [u8]> {
    let mut found: Vec<&[u8]> = Vec::new();
    for spki in public.map(|public| public.spki.as_slice()) {
        let fits = match KeyKind::of_spki(spki) {
            Some(KeyKind::Rsa { .. }) => key.found.key_type.is_none_or(|own| own == KeyType::RSA),
            Some(KeyKind::Ec(curve)) => {
                key.found.key_type.is_none_or(|own| own == KeyType::EC)
                    && curve_of(&key.found).is_none_or(|own| own == curve)
            }
            None => false,
        };
        if fits && !found.iter().any(|known| same_key(known, spki)) {
            found.push(spki);
        }
    }
    found
}

/// The curve that a key says it is on, where it is one of those known here.
fn curve_of(found: &Read) -> Option<Curve> {
    Curve::of_params(&found.ec_params)
}

/// Whether two private keys may have the same public key, as far as they show.
fn may_share(one: &Private, other: &Private) -> bool {
    one.found.key_type == other.found.key_type
        && match (curve_of(&one.found), curve_of(&other.found)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
}

/// Why a key of this type can never seal, though its public half is not known.
fn kind_that_cannot(found: &Read) -> Option<String> {
    let known = match found.key_type {
        None | Some(KeyType::RSA) => true,
        Some(KeyType::EC) => found.ec_params.is_empty() || curve_of(found).is_some(),
        _ => false,
    };
    (!known).then(|| NO_TYPE.to_owned())
}

const NO_TYPE: &str = "its type is not RSA, P-256, P-384 or P-521";

/// Why nothing can be sealed with the private key of this public one.
fn unfit(spki: &[u8]) -> Option<String> {
    match KeyKind::of_spki(spki) {
        None => Some(NO_TYPE.to_owned()),
        Some(KeyKind::Rsa { bits }) if !RSA_BITS.contains(&bits) => Some(format!(
            "it has {bits} bits; {} is the least and {} the most",
            RSA_BITS.start(),
            RSA_BITS.end()
        )),
        Some(_) => None,
    }
}

enum Asked {
    /// This public key verifies what it has signed.
    Is(Vec<u8>),
    /// It signs, and none does.
    Nobody,
    /// It does not sign.
    Fails(CkrError),
}

/// Has a private key sign, and looks which of the candidates verifies that: once for each kind among them, which is one where the key
/// shows its curve.
fn whose(key: &Private, candidates: &[&[u8]], probe: &Probe<'_>) -> Result<Asked, CkrError> {
    let mut kinds: Vec<KeyKind> = candidates.iter().filter_map(|spki| KeyKind::of_spki(spki)).collect();
    kinds.sort_by_key(|kind| kind.signature_len());
    kinds.dedup();
    let mut failed = None;
    for kind in kinds {
        let input = SignInput::message(kind.default_hash(), PROBE);
        let made = match sign(key, kind, &input, probe) {
            Ok(made) => made,
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let own = candidates
            .iter()
            .filter(|spki| KeyKind::of_spki(spki) == Some(kind))
            .find(|spki| table::verifies(kind, spki, &input, &made));
        if let Some(spki) = own {
            return Ok(Asked::Is(spki.to_vec()));
        }
        failed = None;
    }
    match failed {
        // Nobody signs any more: then it is not about this key.
        Some(error)
            if crate::ladder::is_absence(&error) || error.code == u64::from(cryptoki_sys::CKR_USER_NOT_LOGGED_IN) =>
        {
            Err(error)
        }
        Some(error) => Ok(Asked::Fails(error)),
        None => Ok(Asked::Nobody),
    }
}

fn sign(key: &Private, kind: KeyKind, input: &SignInput, probe: &Probe<'_>) -> Result<Vec<u8>, CkrError> {
    let with = |rsa| {
        let mut data = Vec::new();
        let mechanism = probe_call(kind, rsa, input, &mut data);
        probe(&SignCall {
            handle: handle(key.object),
            mechanism,
            data: &data,
            length: kind.signature_len(),
        })
    };
    match kind {
        // What the token is configured for is not known here; a token in FIPS mode hashes for itself.
        KeyKind::Rsa { .. } => with(RsaMechanism::Pkcs).or_else(|_| with(RsaMechanism::ShaPkcs)),
        KeyKind::Ec(_) => with(RsaMechanism::Pkcs),
    }
}

fn found_key(key: &Private, spki: Option<Vec<u8>>, refused: Option<String>, certificates: &[Certificate]) -> FoundKey {
    let spki_der = spki.unwrap_or_default();
    let belongs = |certificate: &&Certificate| !spki_der.is_empty() && same_key(&certificate.spki, &spki_der);
    for stranger in certificates.iter().filter(|c| !c.id.is_empty() && c.id == key.found.id) {
        if !belongs(&stranger) {
            tracing::info!(label = %key.found.label, cka_id = %hex(&stranger.id),
                "a certificate has this key's CKA_ID and another public key: it is not this key's");
        }
    }
    FoundKey {
        handle: handle(key.object),
        label: key.found.label.clone(),
        cka_id: key.found.id.clone(),
        certificates: certificates.iter().filter(belongs).map(|c| c.der.clone()).collect(),
        spki_der,
        refused,
    }
}
