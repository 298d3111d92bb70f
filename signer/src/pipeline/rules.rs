//! What a reload may change of the pipeline.

use std::time::Duration;

use muhurdar_xades as xades;

use crate::{
    config::{Config, UnnamedSealer},
    forms::Forms,
};

/// What the configuration says about documents and their seals; a reload changes all of it at once.
#[derive(Debug)]
pub struct Rules {
    /// Of a document in one message.
    pub(super) limits: xades::Limits,
    /// Of one in chunks.
    pub(super) large: xades::Limits,
    /// Longest time that such a one may take.
    pub(super) large_timeout: Duration,
    /// Longest time that one may bring, or take, nothing to speak of.
    pub(super) large_patience: Duration,
    pub(super) forms: Forms,
    pub(super) unnamed_sealer: UnnamedSealer,
}

impl Rules {
    /// Reads them out of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut limits = xades::Limits::default();
        limits.bytes = config.limits.document.as_u64();
        limits.depth = config.limits.depth;
        limits.attributes = config.limits.attributes;
        let mut large = limits.clone();
        large.bytes = config.limits.large_document.as_u64();
        Self {
            limits,
            large,
            large_timeout: config.limits.large_timeout,
            large_patience: config.limits.arrival_timeout,
            forms: Forms::new(config),
            unnamed_sealer: config.sealing.unnamed_sealer,
        }
    }
}
