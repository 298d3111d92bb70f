//! The digests and signatures of a seal, by their XML Signature names.
//!
//! A certificate's key comes in, the algorithm that its seals use goes out: the *leaf* key alone decides, never the
//! algorithm that the authority signed the certificate with (a Kamu SM S3 leaf is RSA-2048 under ecdsa-with-SHA384).
//! Nothing here knows XML beyond the URIs.

use aws_lc_rs::{digest, signature};

/// A digest of a reference, a certificate or SignedInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl DigestAlgorithm {
    /// Every digest algorithm a seal may use.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The identifier in `ds:DigestMethod/@Algorithm` (XML Encryption 1.1 section 5.8, RFC 9231 section 2.1.3).
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::Sha256 => "http://www.w3.org/2001/04/xmlenc#sha256",
            Self::Sha384 => "http://www.w3.org/2001/04/xmldsig-more#sha384",
            Self::Sha512 => "http://www.w3.org/2001/04/xmlenc#sha512",
        }
    }

    /// The algorithm of a `ds:DigestMethod/@Algorithm`; `None` for SHA-1 and all else that a seal must not use.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.uri() == uri)
    }

    /// The length of the digest in bytes.
    #[must_use]
    pub fn output_len(self) -> usize {
        self.implementation().output_len()
    }

    /// A fresh context to feed bytes into.
    #[must_use]
    pub fn context(self) -> digest::Context {
        digest::Context::new(self.implementation())
    }

    /// The digest of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> digest::Digest {
        digest::digest(self.implementation(), data)
    }

    /// The DER of `DigestInfo { AlgorithmIdentifier, OCTET STRING }` up to the digest itself (RFC 8017 section 9.2,
    /// note 1). This prefix and the digest are what CKM_RSA_PKCS signs (PKCS #11 3.1 section 6.1.6).
    #[must_use]
    pub fn digest_info_prefix(self) -> &'static [u8; 19] {
        match self {
            Self::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
            Self::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
            Self::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        }
    }

    /// The DigestInfo of `digest`, which must be this algorithm's: 51, 67 or 83 bytes.
    #[must_use]
    pub fn digest_info(self, digest: &[u8]) -> Vec<u8> {
        debug_assert_eq!(digest.len(), self.output_len(), "a digest of another algorithm");
        [self.digest_info_prefix(), digest].concat()
    }

    fn implementation(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// The key of a certificate: RSA by the size of its modulus, EC by its curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA, 2048 bits: the mali mühür until 2025.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// NIST P-256 (secp256r1).
    EcP256,
    /// NIST P-384 (secp384r1): the mali mühür since 2025.
    EcP384,
    /// NIST P-521 (secp521r1).
    EcP521,
}

impl KeyType {
    /// As people write it: `RSA-2048`, `EC P-384`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::EcP256 => "EC P-256",
            Self::EcP384 => "EC P-384",
            Self::EcP521 => "EC P-521",
        }
    }

    /// Whether this is an RSA key.
    #[must_use]
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    /// The length in bytes of a signature in a seal: the modulus', or twice the curve order's (r‖s).
    #[must_use]
    pub fn signature_len(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::EcP256 => 64,
            Self::EcP384 => 96,
            Self::EcP521 => 132,
        }
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How the value of a seal is made: RSASSA-PKCS1-v1_5, or ECDSA with its value as r‖s (XML Signature 1.1 section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaSha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaSha512,
    /// ECDSA on P-256 with SHA-256.
    EcdsaSha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaSha384,
    /// ECDSA on P-521 with SHA-512.
    EcdsaSha512,
}

impl SignatureAlgorithm {
    /// Every signature algorithm a seal may use.
    pub const ALL: [Self; 6] = [
        Self::RsaSha256,
        Self::RsaSha384,
        Self::RsaSha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
    ];

    /// The algorithm that a key of this type seals with: RSA with SHA-256, a curve with the digest of its size.
    #[must_use]
    pub fn for_key(key: KeyType) -> Self {
        match key {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Self::RsaSha256,
            KeyType::EcP256 => Self::EcdsaSha256,
            KeyType::EcP384 => Self::EcdsaSha384,
            KeyType::EcP521 => Self::EcdsaSha512,
        }
    }

    /// As [`for_key`](Self::for_key), but with this digest where the key leaves the choice: RSA does, a curve does not.
    #[must_use]
    pub fn for_key_with(key: KeyType, rsa_digest: DigestAlgorithm) -> Self {
        match rsa_digest {
            _ if !key.is_rsa() => Self::for_key(key),
            DigestAlgorithm::Sha256 => Self::RsaSha256,
            DigestAlgorithm::Sha384 => Self::RsaSha384,
            DigestAlgorithm::Sha512 => Self::RsaSha512,
        }
    }

    /// The identifier in `ds:SignatureMethod/@Algorithm` (RFC 9231 sections 2.3.2 to 2.3.6).
    #[must_use]
    pub fn uri(self) -> &'static str {
        match self {
            Self::RsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
            Self::RsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
            Self::RsaSha512 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
            Self::EcdsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
            Self::EcdsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
            Self::EcdsaSha512 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
        }
    }

    /// The algorithm of a `ds:SignatureMethod/@Algorithm`; `None` for rsa-sha1 and all else that a seal must not use.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.uri() == uri)
    }

    /// The digest that SignedInfo is signed under; the references of our seals use the same.
    #[must_use]
    pub fn digest(self) -> DigestAlgorithm {
        match self {
            Self::RsaSha256 | Self::EcdsaSha256 => DigestAlgorithm::Sha256,
            Self::RsaSha384 | Self::EcdsaSha384 => DigestAlgorithm::Sha384,
            Self::RsaSha512 | Self::EcdsaSha512 => DigestAlgorithm::Sha512,
        }
    }

    /// Whether a key of this type can make such a signature. A curve goes with one digest only.
    #[must_use]
    pub fn fits(self, key: KeyType) -> bool {
        self == Self::for_key_with(key, self.digest())
    }

    pub(crate) fn verification(self) -> &'static dyn signature::VerificationAlgorithm {
        match self {
            Self::RsaSha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaSha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaSha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::EcdsaSha256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::EcdsaSha384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::EcdsaSha512 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_one_algorithm() {
        for algorithm in SignatureAlgorithm::ALL {
            assert_eq!(SignatureAlgorithm::from_uri(algorithm.uri()), Some(algorithm));
        }
        for algorithm in DigestAlgorithm::ALL {
            assert_eq!(DigestAlgorithm::from_uri(algorithm.uri()), Some(algorithm));
        }
        assert_eq!(
            SignatureAlgorithm::from_uri("http://www.w3.org/2000/09/xmldsig#rsa-sha1"),
            None
        );
        assert_eq!(
            DigestAlgorithm::from_uri("http://www.w3.org/2000/09/xmldsig#sha1"),
            None
        );
    }

    #[test]
    fn the_key_decides_and_a_curve_leaves_no_choice() {
        assert_eq!(
            SignatureAlgorithm::for_key(KeyType::Rsa2048),
            SignatureAlgorithm::RsaSha256
        );
        assert_eq!(
            SignatureAlgorithm::for_key(KeyType::EcP384),
            SignatureAlgorithm::EcdsaSha384
        );
        let sha512 = DigestAlgorithm::Sha512;
        assert_eq!(
            SignatureAlgorithm::for_key_with(KeyType::Rsa4096, sha512),
            SignatureAlgorithm::RsaSha512
        );
        assert_eq!(
            SignatureAlgorithm::for_key_with(KeyType::EcP256, sha512),
            SignatureAlgorithm::EcdsaSha256
        );
        assert!(SignatureAlgorithm::RsaSha384.fits(KeyType::Rsa2048));
        assert!(!SignatureAlgorithm::EcdsaSha256.fits(KeyType::EcP384));
        assert!(!SignatureAlgorithm::RsaSha256.fits(KeyType::EcP256));
    }

    #[test]
    fn a_digest_info_is_the_der_of_rfc_8017() {
        for (algorithm, length) in DigestAlgorithm::ALL.into_iter().zip([51, 67, 83]) {
            let der = algorithm.digest_info(algorithm.digest(b"").as_ref());
            assert_eq!(der.len(), length);
            assert_eq!(usize::from(der[1]), length - 2, "the outer SEQUENCE spans all");
            assert_eq!(
                usize::from(der[18]),
                algorithm.output_len(),
                "the OCTET STRING is the digest"
            );
        }
    }
}
