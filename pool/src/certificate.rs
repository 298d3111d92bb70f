//! A certificate as far as PKCS#11 asks: the parts that a token stores of it, and the key that it is matched by.
//!
//! Only the frame is read. What stands in its names is not looked at: an odd string there (UniversalString, an identifier with
//! a long arc) must not part a key from its certificate.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Error, ErrorKind, Reader as _, SliceReader, Tag, TagNumber, Tagged as _};

/// Parts of a certificate (RFC 5280, section 4.1), each as DER.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// CKA_SERIAL_NUMBER.
    pub(crate) serial_number: &'a [u8],
    /// CKA_ISSUER.
    pub(crate) issuer: &'a [u8],
    /// CKA_SUBJECT.
    pub(crate) subject: &'a [u8],
    /// SubjectPublicKeyInfo.
    pub(crate) public_key: &'a [u8],
}

/// Reads them.
///
/// # Errors
/// Where this is no certificate.
pub(crate) fn parts(certificate: &[u8]) -> Result<Parts<'_>, Error> {
    let whole = sequence(certificate)?;
    let tbs = sequence(SliceReader::new(whole)?.tlv_bytes()?)?;
    let mut fields = SliceReader::new(tbs)?;
    let version = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::N0,
    };
    if fields.peek_tag()? == version {
        fields.tlv_bytes()?;
    }
    let serial_number = fields.tlv_bytes()?;
    let _signature_algorithm = fields.tlv_bytes()?;
    let issuer = fields.tlv_bytes()?;
    let _validity = fields.tlv_bytes()?;
    let subject = fields.tlv_bytes()?;
    let public_key = fields.tlv_bytes()?;
    AnyRef::from_der(serial_number)?.tag().assert_eq(Tag::Integer)?;
    for name in [issuer, subject, public_key] {
        sequence(name)?;
    }
    Ok(Parts {
        serial_number,
        issuer,
        subject,
        public_key,
    })
}

/// What is in a SEQUENCE, which is all there is.
fn sequence(der: &[u8]) -> Result<&[u8], Error> {
    let any = AnyRef::from_der(der)?;
    if any.tag() == Tag::Sequence {
        Ok(any.value())
    } else {
        Err(ErrorKind::Failed.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        assert!(length < 0x80);
        [&[tag, length], content].concat()
    }

    #[test]
    fn a_certificate_is_matched_by_its_key_whatever_its_names_are_made_of() {
        // CN as UniversalString, which the decoder of names does not know.
        let attribute = tlv(0x30, &[tlv(6, &[0x55, 4, 3]), tlv(0x1c, &[0, 0, 0, 0x41])].concat());
        let name = tlv(0x30, &tlv(0x31, &attribute));
        let (algorithm, serial) = (tlv(0x30, &[6, 1, 0]), tlv(2, &[7]));
        let key = tlv(0x30, &[algorithm.clone(), tlv(3, &[0, 1])].concat());
        let validity = tlv(0x30, &[]);
        let rest = [&serial, &algorithm, &name, &validity, &name, &key].map(|part| &part[..]);
        for version in [&[][..], &[0xa0, 3, 2, 1, 2]] {
            let tbs = tlv(0x30, &[version, &rest.concat()].concat());
            let certificate = tlv(0x30, &[tbs, algorithm.clone(), tlv(3, &[0])].concat());
            let parts = parts(&certificate).unwrap();
            assert_eq!(parts.public_key, key);
            assert_eq!(
                (parts.subject, parts.issuer, parts.serial_number),
                (&name[..], &name[..], &serial[..])
            );
            for end in 0..certificate.len() {
                assert!(super::parts(&certificate[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
