//! Traces, as a collector receives them by OTLP, and the line of a slow request: where a request's time went, and nothing of
//! what was in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use muhurdar_proto::seal::v1::{SealStreamRequest, seal_response::Answer as Body};
use muhurdar_tests::{Appliance, Branch, Builder, RSA, invoice, own_address};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that keeps everything.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn listen() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let serving = Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until so many requests are there, with all of their steps, and gives all spans.
    async fn hears_of(&self, requests: usize) -> Vec<Span> {
        let end = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            // A batch may end between a step and its request, which is told last.
            if spans.iter().filter(|span| is_request(span)).count() >= requests {
                return spans;
            }
            assert!(Instant::now() < end, "only {spans:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_request(span: &Span) -> bool {
    span.kind == SpanKind::Server as i32
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn says(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn telling(collector: SocketAddr, more: &str) -> Appliance {
    let lines = format!("\n[telemetry]\notlp_endpoint = \"http://{collector}\"\n{more}\n[[token]]\n");
    Builder::default().edit("\n[[token]]\n", &lines).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_each_document_with_its_steps_under_the_callers_span_and_nothing_of_its_content() {
    let (collector, address) = Collector::listen().await;
    let appliance = telling(address, "");
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let secret = "Gizli Müşteri A.Ş.";
    let document = || invoice(RSA, &format!("<cbc:Note>{secret}</cbc:Note>"));

    let mut request = Request::new(Branch::request(RSA, document()));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let answer = client.seal(request).await.unwrap().into_inner();
    let receipt = answer.result.unwrap().receipt.unwrap();
    assert!(matches!(answer.answer, Some(Body::SealedDocument(_))));
    // Its caller does not want this one.
    let mut unwanted = Request::new(Branch::request(RSA, document()));
    let parent = format!("00-{}-{PARENT}-00", TRACE.replace('0', "1"));
    unwanted.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client.seal(unwanted).await.unwrap();
    client
        .seal(Branch::request(RSA, format!("<a>{secret}")))
        .await
        .unwrap_err();
    let items = [1, 2].map(|n| SealStreamRequest {
        id: n.to_string(),
        request: Some(Branch::request(RSA, document())),
    });
    let mut answers = client
        .seal_stream(tokio_stream::iter(items))
        .await
        .unwrap()
        .into_inner();
    while answers.message().await.unwrap().is_some() {}

    let spans = collector.hears_of(4).await;
    let requests: Vec<_> = spans.iter().filter(|span| is_request(span)).collect();
    assert_eq!(requests.len(), 4, "{requests:?}");
    let first = requests.iter().find(|span| hex(&span.trace_id) == TRACE).unwrap();
    assert_eq!(hex(&first.parent_span_id), PARENT);
    assert_eq!(first.name, "muhurdar.seal.v1.SealService/Seal");
    assert_eq!(
        says(first, "muhurdar.request"),
        Some(receipt.id),
        "found again by its receipt"
    );
    assert_eq!(says(first, "muhurdar.outcome").as_deref(), Some("sealed"));
    assert_eq!(says(first, "muhurdar.client").as_deref(), Some("branch-1"));
    assert_eq!(says(first, "muhurdar.document").as_deref(), Some("Invoice"));
    assert_eq!(says(first, "muhurdar.token").as_deref(), Some("dev"));
    assert_eq!(says(first, "muhurdar.bytes"), Some(document().len().to_string()));

    let steps: Vec<_> = spans
        .iter()
        .filter(|span| span.parent_span_id == first.span_id)
        .collect();
    let names: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["admit", "queue", "digest", "sign", "check", "splice"]);
    for (before, step) in steps.iter().zip(steps.iter().skip(1)) {
        assert!(
            before.end_time_unix_nano <= step.start_time_unix_nano,
            "{before:?} and {step:?}"
        );
    }
    for step in &steps {
        assert_eq!(step.trace_id, first.trace_id);
        assert!(
            step.start_time_unix_nano >= first.start_time_unix_nano,
            "{step:?} in {first:?}"
        );
        assert!(
            step.end_time_unix_nano <= first.end_time_unix_nano,
            "{step:?} in {first:?}"
        );
    }

    let refused = requests
        .iter()
        .find(|span| says(span, "muhurdar.outcome").as_deref() == Some("DOCUMENT_TYPE"));
    let refused = refused.unwrap();
    assert!(refused.parent_span_id.is_empty() && hex(&refused.trace_id) != TRACE);
    // What the caller has done wrong is no error of the service.
    assert!(
        refused
            .status
            .as_ref()
            .is_none_or(|status| status.code() != StatusCode::Error)
    );
    let streamed = requests.iter().filter(|span| span.name.ends_with("/SealStream"));
    let traces: BTreeSet<_> = streamed.map(|span| span.trace_id.clone()).collect();
    assert_eq!(
        traces.len(),
        2,
        "each document of a stream has a trace of its own, where the caller names none"
    );

    for request in collector.0.lock().unwrap().iter() {
        let service = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
        assert!(
            service
                .iter()
                .any(|a| a.key == "service.name" && format!("{a:?}").contains("\"muhurdar\""))
        );
        // As it went over the wire: no content, no identity number.
        let bytes = request.encode_to_vec();
        for word in [secret, "Gizli", RSA, "TST2026000000001", "<Invoice"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "a span tells of {word:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_traced_when_the_service_ends_is_still_sent() {
    let (collector, address) = Collector::listen().await;
    let appliance = telling(address, "");
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
    appliance.signal("TERM");
    assert_eq!(appliance.exit_code_within(PATIENCE), Some(0));
    assert_eq!(collector.spans().iter().filter(|span| is_request(span)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_no_seal_and_no_drain() {
    let appliance = telling(own_address(), "");
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    for _ in 0..20 {
        client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
    }
    appliance.signal("TERM");
    let begun = Instant::now();
    assert_eq!(appliance.exit_code_within(PATIENCE), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?} to end",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_traced_where_nobody_asked_and_only_the_wanted_share_where_somebody_did() {
    let (collector, address) = Collector::listen().await;
    let appliance = telling(address, "sample_ratio = 0.0");
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
    let mut wanted = Request::new(Branch::request(RSA, invoice(RSA, "")));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    wanted.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client.seal(wanted).await.unwrap();
    appliance.signal("TERM");
    assert_eq!(appliance.exit_code_within(PATIENCE), Some(0));
    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| is_request(span)).collect();
    assert_eq!(requests.len(), 1, "the caller's own decision goes before: {requests:?}");
    assert_eq!(hex(&requests[0].trace_id), TRACE);
}

#[tokio::test]
async fn a_slow_request_is_a_line_that_tells_where_its_time_went_and_a_quick_one_is_none() {
    let secret = "Gizli Müşteri A.Ş.";
    let appliance = Builder::default()
        .taxpayers(1)
        .hsm(1, Duration::from_millis(1))
        .edit(
            "[server]\n",
            "[log]\nslow_request = \"600ms\"\nformat = \"json\"\n\n[server]\n",
        )
        .start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    let document = invoice(RSA, &format!("<cbc:Note>{secret}</cbc:Note>"));
    client.seal(Branch::request(RSA, document.clone())).await.unwrap();
    appliance.token("latency 800000");
    let answer = client.seal(Branch::request(RSA, document)).await.unwrap().into_inner();
    let receipt = answer.result.unwrap().receipt.unwrap();

    let log = appliance.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("slow request"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Under a debugger's or a neighbour's weight the first may have been slow too.
    let line = lines.iter().find(|line| line["request"] == receipt.id).unwrap();
    assert_eq!(line["target"], "muhurdar::slow");
    assert_eq!(
        (&line["client"], &line["outcome"]),
        (&"branch-1".into(), &"sealed".into()),
        "{line}"
    );
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
    assert!(
        number("sign_ms") >= 800.0 && number("took_ms") >= number("sign_ms"),
        "{line}"
    );
    let steps = ["admit_ms", "queue_ms", "digest_ms", "sign_ms", "check_ms", "splice_ms"];
    let together: f64 = steps.map(number).iter().sum();
    assert!(together <= number("took_ms") + 0.1, "{line}");
    assert!(together > number("took_ms") / 2.0, "its steps account for it: {line}");
    for word in [secret, "Gizli", RSA] {
        assert!(
            !lines.iter().any(|line| line.to_string().contains(word)),
            "{word} in {lines:?}"
        );
    }
}
