//! `muhurdar seal --hash-only`: the engine runs here, and only a digest goes to the service.

use std::path::Path;

use jiff::Timestamp;
use muhurdar_proto::seal::v1::{
    DigestAlgorithm, GetSealRequest, SignDigestRequest, get_seal_request, seal_service_client::SealServiceClient,
};
use muhurdar_xades::{self as xades, Certificate, Limits, Policy, Prepared, Sealing, prepare};
use tonic::transport::Channel;

use super::{Failure, Seal, exit, reason, refused};

/// How often a document is prepared where its certificate's successor comes in between.
const ATTEMPTS: usize = 2;

impl Seal {
    /// One document after the other; a document that cannot be sealed does not keep the next from it.
    pub(super) async fn seal_by_digest(&self, channel: Channel) -> Result<(), Failure> {
        let mut client = SealServiceClient::new(channel);
        let mut certificate = self.certificate(&mut client).await?;
        let mut failed = false;
        for path in &self.files {
            let document = tokio::fs::read(path)
                .await
                .map_err(|e| Failure::io(path.display(), &e))?;
            // One that ends while others wait for their turn has a successor at the service.
            if certificate.not_after() < Timestamp::now() {
                certificate = self.certificate(&mut client).await?;
            }
            for attempt in 1..=ATTEMPTS {
                let prepared = match self.prepare_here(&document, &certificate) {
                    Ok(prepared) => prepared,
                    Err(problem) => {
                        failed = true;
                        eprintln!("{}: {problem}", path.display());
                        break;
                    }
                };
                if self.seal_prepared(&mut client, path, &document, prepared).await? {
                    break;
                }
                if attempt == ATTEMPTS {
                    return Err(Failure::unavailable(
                        "the service changes its certificate with every call",
                    ));
                }
                certificate = self.certificate(&mut client).await?;
            }
        }
        if failed {
            Err(Failure::silent(exit::FAILED))
        } else {
            Ok(())
        }
    }

    /// What seals for the taxpayer now.
    async fn certificate(&self, client: &mut SealServiceClient<Channel>) -> Result<Certificate, Failure> {
        let request = GetSealRequest {
            seal: Some(get_seal_request::Seal::Taxpayer(self.taxpayer.clone())),
        };
        let seal = client.get_seal(request).await.map_err(|s| refused(&s))?;
        let info = seal.into_inner().seal.unwrap_or_default();
        Certificate::from_der(&info.certificate).map_err(Failure::unavailable)
    }

    fn prepare_here(&self, document: &[u8], certificate: &Certificate) -> Result<Prepared, String> {
        let now = Timestamp::now();
        certificate
            .fit_for_sealing(now)
            .map_err(|unfit| format!("the certificate cannot seal: {unfit}"))?;
        let sealing = Sealing {
            certificate,
            policy: &Policy::default(),
            limits: &Limits::default(),
            signing_time: now,
            expect: None,
        };
        let prepared = prepare(document, &sealing).map_err(|refusal| refusal.to_string())?;
        // The service cannot see whom the document names: here is the only place where it can be checked.
        match prepared.sealer().taxpayer() {
            Ok(Some(named)) if named != self.taxpayer => {
                Err(format!("names {named} as its sealer, not {}", self.taxpayer))
            }
            Err(unclear) => Err(format!("does not say whose seal it wants: {unclear}")),
            Ok(_) => Ok(prepared),
        }
    }

    /// False where the service seals with another certificate by now than the one that the document was prepared for.
    async fn seal_prepared(
        &self,
        client: &mut SealServiceClient<Channel>,
        path: &Path,
        document: &[u8],
        mut prepared: Prepared,
    ) -> Result<bool, Failure> {
        let seal = loop {
            let request = SignDigestRequest {
                taxpayer: self.taxpayer.clone(),
                digest: prepared.digest().to_vec().into(),
                digest_algorithm: digest_algorithm(&prepared).into(),
                certificate_sha256: prepared.certificate().sha256().to_vec().into(),
                document_id: prepared.document_id().unwrap_or_default().to_owned(),
                ..SignDigestRequest::default()
            };
            let answer = match client.sign_digest(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if reason(&status) == "CERTIFICATE_CHANGED" => return Ok(false),
                Err(status) => return Err(refused(&status)),
            };
            let value = answer.result.map(|result| result.signature_value).unwrap_or_default();
            let value = &value[..];
            if prepared.wants_countersignature() {
                prepared = prepared.countersign(value).map_err(Failure::unavailable)?;
            } else {
                let signing_time = prepared.signing_time().to_owned();
                break prepared
                    .finish(value)
                    .map(|seal| (seal, signing_time))
                    .map_err(Failure::unavailable)?;
            }
        };
        let (seal, signing_time) = seal;
        let written = self.put(path, seal.splice(document)).await?;
        println!("{} -> {} at {signing_time}", path.display(), written.display());
        Ok(true)
    }
}

/// The wire's name for how a document's SignedInfo was digested.
fn digest_algorithm(prepared: &Prepared) -> DigestAlgorithm {
    match prepared.signature_algorithm().digest() {
        xades::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
        xades::DigestAlgorithm::Sha384 => DigestAlgorithm::Sha384,
        xades::DigestAlgorithm::Sha512 => DigestAlgorithm::Sha512,
        _ => DigestAlgorithm::Unspecified,
    }
}
