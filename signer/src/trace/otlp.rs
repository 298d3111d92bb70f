//! Spans for a collector: OpenTelemetry's SDK samples, batches and sends them, on a thread of its own.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tonic::{metadata::MetadataMap, transport::ClientTlsConfig};

use super::journey::Ended;

/// A collector that cannot be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint: {0}")]
pub struct TraceError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The caller's span (W3C Trace Context, `traceparent` and `tracestate`).
#[derive(Debug, Clone)]
pub(super) struct Parent(SpanContext);

impl Parent {
    pub(super) fn of(metadata: &MetadataMap) -> Option<Self> {
        let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(metadata));
        let parent = found.span().span_context().clone();
        parent.is_valid().then_some(Self(parent))
    }
}

struct Carrier<'a>(&'a MetadataMap);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Sends spans.
#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// To this collector, of this share of the requests whose caller has not decided itself.
    pub(super) fn new(endpoint: &str, ratio: f64) -> Result<Self, TraceError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        let exporter = if endpoint.starts_with("https:") {
            exporter.with_tls_config(ClientTlsConfig::new().with_native_roots())
        } else {
            exporter
        };
        let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // Who names the service in the environment, as OpenTelemetry has it, has said how they want it named.
        let resource = if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource.with_service_name("muhurdar")
        } else {
            resource
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_batch_exporter(exporter.build()?)
            .build();
        let tracer = provider.tracer("muhurdar");
        Ok(Self { provider, tracer })
    }

    /// Makes the spans of a journey, where it is sampled; tells under which trace they are found.
    pub(super) fn export(&self, journey: &Ended<'_>) -> Option<TraceId> {
        let end = SystemTime::now();
        let begin = end.checked_sub(journey.took)?;
        let above = match journey.parent {
            Some(Parent(parent)) => Context::new().with_remote_span_context(parent.clone()),
            None => Context::new(),
        };
        let root = SpanBuilder::from_name(journey.method.span_name())
            .with_kind(SpanKind::Server)
            .with_start_time(begin);
        let mut root = self.tracer.build_with_context(root, &above);
        if !root.is_recording() {
            return None;
        }
        root.set_attributes(attributes(journey));
        if let Some(outcome) = journey.facts.outcome.filter(|outcome| is_our_fault(outcome)) {
            root.set_status(Status::error(outcome));
        }
        let here = above.with_span(root);
        for passed in journey.steps.iter().flatten() {
            let step = SpanBuilder::from_name(passed.step.name()).with_start_time(begin + passed.at);
            let mut step = self.tracer.build_with_context(step, &here);
            step.end_with_timestamp(begin + passed.at + passed.took);
        }
        here.span().end_with_timestamp(end);
        Some(here.span().span_context().trace_id())
    }

    pub(super) fn close(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// What a span may say: nothing that was read in a document, and nobody's identity number.
fn attributes(journey: &Ended<'_>) -> Vec<KeyValue> {
    let facts = journey.facts;
    let mut attributes = vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", "muhurdar.seal.v1.SealService"),
        KeyValue::new("rpc.method", journey.method.name()),
        KeyValue::new("muhurdar.request", journey.id.to_string()),
        KeyValue::new("muhurdar.outcome", facts.outcome.unwrap_or("cancelled")),
        KeyValue::new("muhurdar.bytes", i64::try_from(facts.bytes).unwrap_or(i64::MAX)),
    ];
    let mut say = |key: &'static str, value: Option<String>| {
        attributes.extend(value.map(|value| KeyValue::new(key, value)));
    };
    say("muhurdar.client", facts.client.as_deref().map(str::to_owned));
    say(
        "muhurdar.priority",
        facts.priority.map(|priority| priority.name().to_owned()),
    );
    say(
        "muhurdar.document",
        facts.document.map(|document| document.name().to_owned()),
    );
    say("muhurdar.token", facts.token.as_deref().map(str::to_owned));
    attributes
}

/// Whether a span of this outcome is an error of the server (OpenTelemetry, semantic conventions for gRPC: what the caller
/// has done wrong is none).
fn is_our_fault(outcome: &str) -> bool {
    matches!(outcome, "INTERNAL" | "TOKEN_UNAVAILABLE" | "DEADLINE" | "DRAINING")
}
