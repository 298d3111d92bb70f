//! Canonical XML, digests and XAdES seals.
