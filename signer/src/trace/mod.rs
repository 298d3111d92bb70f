//! Where the time of one request went: spans for whoever collects traces, and a line in the log where it took too long.
//!
//! Comes in: a request's [`Journey`], which the server begins; its steps and facts, which the rooms on the way note without
//! handing it to each other (it travels with the task). Goes out, when the journey ends in whatever way: spans by OTLP, where
//! the configuration names a collector, and the slow-request line. It knows times, names of the configuration, sizes and
//! outcomes, and from where a call comes, which only the audit log is told; it is never shown a document, a digest or a taxpayer, so it can tell of none.
//!
//! Where nothing is collected a request pays a few clock readings that the metrics need too, and no allocation.

mod journey;
mod otlp;
mod peer;
mod slow;

use std::sync::Arc;

use tonic::metadata::MetadataMap;

pub(crate) use self::journey::{Journey, Step, admitting, ended, passed, request_id, sealed, step};
pub use self::otlp::TraceError;
pub(crate) use self::peer::{asking_for, coming_from, peer};
use self::{
    otlp::{Exporter, Parent},
    slow::SlowLog,
};
use crate::config::Config;

/// A call of the wire, as far as traces tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Seal,
    SealStream,
    SealBatch,
    SealLarge,
    SignDigest,
}

impl Method {
    /// Its name in the proto, and that of its spans (OpenTelemetry, semantic conventions for RPC: `package.Service/Method`).
    pub(crate) fn span_name(self) -> &'static str {
        match self {
            Self::Seal => "muhurdar.seal.v1.SealService/Seal",
            Self::SealStream => "muhurdar.seal.v1.SealService/SealStream",
            Self::SealBatch => "muhurdar.seal.v1.SealService/SealBatch",
            Self::SealLarge => "muhurdar.seal.v1.SealService/SealLarge",
            Self::SignDigest => "muhurdar.seal.v1.SealService/SignDigest",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        let name = self.span_name();
        name.rsplit('/').next().unwrap_or(name)
    }
}

/// Where a call comes from: every document in it has this origin.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    method: Method,
    parent: Option<Parent>,
    /// Where its caller is; none where nobody knows.
    peer: Option<Arc<str>>,
}

/// Records journeys.
#[derive(Debug)]
pub(crate) struct Recorder {
    slow: SlowLog,
    exporter: Option<Exporter>,
}

impl Recorder {
    /// As configured. Must be called within the runtime, which speaks to the collector.
    ///
    /// # Errors
    /// Where the collector's address makes no sense. That it does not answer is none: it may come later.
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, TraceError> {
        let telemetry = &config.telemetry;
        let exporter = telemetry.otlp_endpoint.as_deref();
        let exporter = exporter.map(|endpoint| Exporter::new(endpoint, telemetry.sample_ratio));
        Ok(Arc::new(Self {
            slow: SlowLog::new(config.log.slow_request),
            exporter: exporter.transpose()?,
        }))
    }

    /// Reads who asks, where anybody collects.
    pub(crate) fn origin(&self, method: Method, metadata: &MetadataMap) -> Origin {
        let parent = self.exporter.as_ref().and_then(|_| Parent::of(metadata));
        let peer = peer();
        Origin { method, parent, peer }
    }

    /// A document of this origin begins its way.
    pub(crate) fn begin(self: &Arc<Self>, origin: &Origin) -> Journey {
        Journey::begin(Arc::clone(self), origin.clone())
    }

    fn record(&self, journey: &journey::Ended<'_>) {
        let trace = self.exporter.as_ref().and_then(|exporter| exporter.export(journey));
        self.slow.look(journey, trace.as_ref());
    }

    /// Sends what is left, and then no more. Blocks, but not for long.
    pub(crate) fn close(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.close();
        }
    }
}
