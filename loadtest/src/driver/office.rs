//! A branch office whose documents do not leave it: it prepares them with the document engine, sends digests, and puts the seals
//! together itself.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use muhurdar_proto::seal::v1::{SealPatch, SealResponse, seal_response};
use muhurdar_xades::{Certificate, Limits, Policy, Prepared, Sealing};

use super::DriveError;
use crate::generator::{Document, Taxpayer};

/// The certificates of the taxpayers for whom the office seals, and how it writes a seal: as the service does where nothing is configured.
#[derive(Debug, Default)]
pub(super) struct Office {
    certificates: HashMap<Arc<str>, Certificate>,
    policy: Policy,
    limits: Limits,
}

impl Office {
    pub(super) fn new(taxpayers: &[Taxpayer]) -> Result<Self, DriveError> {
        let mut office = Self::default();
        for taxpayer in taxpayers {
            let unusable = |why: String| DriveError::Certificate(taxpayer.number.to_string(), why);
            let der = taxpayer
                .certificate
                .as_deref()
                .ok_or_else(|| unusable("it is not known here: --taxpayers FILE names it".to_owned()))?;
            let certificate = Certificate::from_der(der).map_err(|error| unusable(error.to_string()))?;
            office.certificates.insert(taxpayer.number.clone(), certificate);
        }
        Ok(office)
    }

    /// What is to be signed for a document, and where the seal will stand.
    pub(super) fn prepare(&self, document: &Document) -> Result<Prepared, String> {
        let taxpayer = document.taxpayer();
        let certificate = self
            .certificates
            .get(taxpayer)
            .ok_or_else(|| format!("the certificate of {taxpayer} is not known here"))?;
        let sealing = Sealing {
            certificate,
            policy: &self.policy,
            limits: &self.limits,
            signing_time: Timestamp::now(),
            expect: None,
        };
        muhurdar_xades::prepare(&document.to_vec(), &sealing).map_err(|refusal| refusal.to_string())
    }
}

/// The seal that an answer of `SignDigest` completes, as `Seal` would have given it alone; or what is wrong with it.
pub(super) fn completed(prepared: Prepared, answer: SealResponse) -> Result<SealResponse, String> {
    if prepared.wants_countersignature() {
        return Err("a counter-signed document takes two digests, and the harness sends one".to_owned());
    }
    let seal = prepared
        .finish(answer.result.as_ref().map_or(&[], |result| &result.signature_value[..]))
        .map_err(|unverified| unverified.to_string())?;
    let range = seal.range();
    Ok(SealResponse {
        answer: Some(seal_response::Answer::Patch(SealPatch {
            offset: range.start as u64,
            length: range.len() as u64,
            replacement: seal.replacement().to_vec().into(),
        })),
        ..answer
    })
}
