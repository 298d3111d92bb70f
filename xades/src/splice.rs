//! A finished seal and its document: one range of the input gives way, every other byte stays as it came.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest::{Context, SHA256};

use crate::encoding::Encoding;

/// A seal whose value verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Seal {
    range: Range<usize>,
    replacement: Vec<u8>,
    signature_value: Vec<u8>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Seal {
    pub(crate) fn new(range: Range<u64>, parts: &[&str], encoding: Encoding, signature_value: Vec<u8>) -> Self {
        let place = |offset: u64| usize::try_from(offset).expect("an offset into a document that was read");
        let mut replacement = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            match encoding {
                Encoding::Utf8 => replacement.extend_from_slice(part.as_bytes()),
                other => replacement.extend(other.encode(part)),
            }
        }
        Self {
            range: place(range.start)..place(range.end),
            replacement,
            signature_value,
        }
    }

    /// What of the document gives way, in bytes of the input; empty where the seal is inserted.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What stands there instead, in the encoding of the document.
    pub fn replacement(&self) -> &[u8] {
        &self.replacement
    }

    /// The signature value: PKCS#1 v1.5, or r‖s for ECDSA.
    pub fn signature_value(&self) -> &[u8] {
        &self.signature_value
    }

    /// The sealed document. `document` is the one that was prepared.
    pub fn splice(&self, document: &[u8]) -> Vec<u8> {
        let (before, after) = self.around(document);
        let mut sealed = Vec::with_capacity(before.len() + self.replacement.len() + after.len());
        for part in [before, &self.replacement, after] {
            sealed.extend_from_slice(part);
        }
        sealed
    }

    /// SHA-256 of the sealed document, without making it.
    pub fn sealed_sha256(&self, document: &[u8]) -> [u8; 32] {
        let (before, after) = self.around(document);
        let mut context = Context::new(&SHA256);
        for part in [before, &self.replacement, after] {
            context.update(part);
        }
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn around<'d>(&self, document: &'d [u8]) -> (&'d [u8], &'d [u8]) {
        let end = self.range.end.min(document.len());
        (&document[..self.range.start.min(end)], &document[end..])
    }
}
