//! What remains of a seal with the appliance: the receipt.

use std::{sync::Arc, time::SystemTime};

use data_encoding::HEXLOWER;
use muhurdar_xades::DocumentType;
use uuid::Uuid;

use crate::{outside::Outside, seals::Seal, trace};

/// What the auditor asks for. The wire's `Receipt` says the same.
#[derive(Debug)]
pub struct Receipt {
    /// UUID version 7: the request's id, by which the log knows it too.
    pub id: Uuid,
    /// The caller's name.
    pub client: Arc<str>,
    /// The seal that was used.
    pub used: Arc<Seal>,
    /// What was sealed; none where only a digest was shown and the caller did not say.
    pub document_type: Option<DocumentType>,
    /// Its own identifier; of a digest, what the caller said it was.
    pub document_id: Option<Outside>,
    /// XML Signature algorithm URI.
    pub algorithm: &'static str,
    /// Name of the token that signed.
    pub token: Arc<str>,
    /// When.
    pub sealed_at: SystemTime,
}

impl Receipt {
    /// Makes the receipt and accounts for it: one line in the audit log, without anything of the document but its identifier.
    pub(super) fn issue(self) -> Self {
        self.issue_and_say(None)
    }

    /// The same, with the SHA-256 of the sealed file.
    pub(super) fn issue_for(self, sha256: &[u8; 32]) -> Self {
        self.issue_and_say(Some(sha256))
    }

    fn issue_and_say(self, sha256: Option<&[u8; 32]>) -> Self {
        trace::sealed(self.document_type, &self.token);
        tracing::info!(
            target: "muhurdar::audit",
            receipt = %self.id,
            client = %self.client,
            taxpayer = %self.used.taxpayer,
            document = self.document_type.map_or("unknown", DocumentType::name),
            document_id = self.document_id.as_ref().map_or("", Outside::as_str),
            certificate = self.used.certificate.serial_decimal(),
            token = %self.token,
            sha256 = sha256.map(|sha256| HEXLOWER.encode(sha256)),
            peer = trace::peer().as_deref(),
            "sealed"
        );
        self
    }
}

/// Says what a large document became: its digest is known when it was handed out, which is after its receipt, and not at all where its
/// caller does not take it to the end.
pub(super) fn handed_out(receipt: Uuid, sha256: &[u8; 32], bytes: u64) {
    tracing::info!(
        target: "muhurdar::audit",
        %receipt,
        sha256 = HEXLOWER.encode(sha256),
        bytes,
        peer = trace::peer().as_deref(),
        "handed out"
    );
}
