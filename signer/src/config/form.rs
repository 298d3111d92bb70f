//! How a seal is written, as an operator says it: any part of [`Policy`], the rest as it was.

use muhurdar_xades::{
    DigestAlgorithm, Policy,
    policy::{CanonicalizationMethod, ReferenceOrder, SealPlace, is_text},
};
use serde::Deserialize;

/// `[sealing.form]`, `[taxpayer."VKN".form]`, `[client.form]`: what is not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Form {
    /// `ds:CanonicalizationMethod`.
    pub canonicalization: Option<Canonicalization>,
    /// Which reference stands first.
    pub reference_order: Option<Order>,
    /// Children of `ds:KeyInfo`, in their order.
    pub key_info: Option<Vec<String>>,
    /// Which extension of a UBL document holds the seal.
    pub place: Option<Place>,
    /// `xades:ClaimedRole` on UBL documents; empty: none.
    pub claimed_role: Option<String>,
    /// `+03:00`, `Z`, or an IANA name.
    pub signing_time_zone: Option<String>,
    /// `Signature/@Id` of a document that names none; `{id}` is the document's own identifier.
    pub signature_id: Option<String>,
    /// Digest of RSA seals; a curve brings its own.
    pub rsa_digest: Option<RsaDigest>,
}

/// The names of the canonicalization methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Canonicalization {
    /// Canonical XML 1.0.
    Inclusive,
    /// Canonical XML 1.0 with comments.
    InclusiveWithComments,
    /// Exclusive XML Canonicalization 1.0.
    Exclusive,
    /// Exclusive XML Canonicalization 1.0 with comments.
    ExclusiveWithComments,
}

/// The orders of the references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// `URI=""` first.
    DocumentFirst,
    /// SignedProperties first.
    PropertiesFirst,
}

/// The places in a UBL document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The first extension that is free, or one of the seal's own.
    FreeExtension,
    /// One of its own behind all others.
    OwnExtension,
}

/// The digests of RSA seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RsaDigest {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Form {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A policy with what is said here put over it.
    ///
    /// # Errors
    /// A key and what is wrong with its value.
    pub fn over(&self, base: &Policy) -> Result<Policy, String> {
        let mut policy = base.clone();
        if let Some(method) = self.canonicalization {
            policy.canonicalization = match method {
                Canonicalization::Inclusive => CanonicalizationMethod::Inclusive,
                Canonicalization::InclusiveWithComments => CanonicalizationMethod::InclusiveWithComments,
                Canonicalization::Exclusive => CanonicalizationMethod::Exclusive,
                Canonicalization::ExclusiveWithComments => CanonicalizationMethod::ExclusiveWithComments,
            };
        }
        if let Some(order) = self.reference_order {
            policy.reference_order = match order {
                Order::DocumentFirst => ReferenceOrder::DocumentFirst,
                Order::PropertiesFirst => ReferenceOrder::PropertiesFirst,
            };
        }
        if let Some(children) = &self.key_info {
            policy.key_info = children.join(",").parse().map_err(|e| format!("key_info: {e}"))?;
        }
        if let Some(place) = self.place {
            policy.place = match place {
                Place::FreeExtension => SealPlace::FreeExtension,
                Place::OwnExtension => SealPlace::OwnExtension,
            };
        }
        if let Some(role) = &self.claimed_role {
            if !is_text(role) {
                return Err("claimed_role: has a control character, which no XML can carry".to_owned());
            }
            policy.claimed_role = Some(role.clone()).filter(|r| !r.is_empty());
        }
        if let Some(zone) = &self.signing_time_zone {
            policy.zone = zone.parse().map_err(|e| format!("signing_time_zone: {e}"))?;
        }
        if let Some(pattern) = &self.signature_id {
            if !pattern.contains("{id}") {
                return Err("signature_id: must contain {id}, since sealed documents meet in one envelope".to_owned());
            }
            policy.signature_id.clone_from(pattern);
        }
        if let Some(digest) = self.rsa_digest {
            policy.rsa_digest = match digest {
                RsaDigest::Sha256 => DigestAlgorithm::Sha256,
                RsaDigest::Sha384 => DigestAlgorithm::Sha384,
                RsaDigest::Sha512 => DigestAlgorithm::Sha512,
            };
        }
        Ok(policy)
    }
}
