//! The exporter between real sockets: a collector of tonic's, one of axum's, and none at all.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::*;
use crate::task::Scope;

/// What a collector was sent.
#[derive(Clone, Default)]
struct Taken {
    spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    numbers: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    keys: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        self.keys.lock().unwrap().push(key.to_owned());
        self.spans.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taken {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.numbers.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn otlp(port: u16, protocol: OtlpProtocol) -> Otlp {
    let mut headers = HeaderMap::new();
    headers.insert("x-key", "hunter2".parse().unwrap());
    Otlp {
        endpoint: format!("http://127.0.0.1:{port}").parse().unwrap(),
        protocol,
        headers,
        push_interval: Duration::from_secs(3_600),
        metrics: Vec::new(),
        resource: vec![("env".to_owned(), "test".to_owned())],
    }
}

/// Runs an exporter over one failed task, to its end.
async fn run_over_a_task(otlp: Otlp) {
    let tracer = Tracer::default();
    let exporter = OtlpExporter::try_new(otlp, &tracer, Registry::default()).unwrap();
    let span = tracer.start("sql_query", "SELECT 1", None);
    span.context().label("protocol", "http");
    span.fail("it broke");
    drop(span);
    let stop = CancellationToken::new();
    stop.cancel();
    exporter.run(stop).await;
}

fn assert_taken(taken: &Taken) {
    let spans = taken.spans.lock().unwrap();
    let [request] = &spans[..] else { panic!("{spans:?}") };
    let resource = &request.resource_spans[0].resource.as_ref().unwrap().attributes;
    let keys: Vec<&str> = resource.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["service.name", "service.version", "env"]);
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.trace_id.len(), span.span_id.len()), ("sql_query", 16, 8));
    assert_eq!(span.status.as_ref().unwrap().message, "it broke");
    assert!(span.attributes.contains(&attribute("protocol", "http")));
    let numbers = taken.numbers.lock().unwrap();
    let metrics = &numbers.last().unwrap().resource_metrics[0].scope_metrics[0].metrics;
    let duration = metrics.iter().find(|metric| metric.name == "query_duration_ms").unwrap();
    assert_eq!(duration.unit, "ms");
}

#[tokio::test]
async fn a_collector_takes_spans_and_numbers_by_grpc() {
    let (taken, scope) = (Taken::default(), Scope::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(taken.clone()))
        .add_service(MetricsServiceServer::new(taken.clone()));
    scope.spawn("collector", async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    run_over_a_task(otlp(port, OtlpProtocol::Grpc)).await;
    assert_taken(&taken);
    assert_eq!(*taken.keys.lock().unwrap(), ["hunter2"]);
    scope.cancel();
}

#[tokio::test]
async fn a_collector_takes_spans_and_numbers_by_http() {
    let (taken, scope) = (Taken::default(), Scope::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (spans, numbers) = (taken.spans.clone(), taken.numbers.clone());
    let router = Router::new()
        .route(
            "/below/v1/traces",
            post(async move |body: Bytes| {
                spans.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            }),
        )
        .route(
            "/below/v1/metrics",
            post(async move |body: Bytes| {
                numbers.lock().unwrap().push(ExportMetricsServiceRequest::decode(body).unwrap());
            }),
        );
    scope.spawn("collector", async move { axum::serve(listener, router).await.unwrap() });
    let endpoint = format!("http://127.0.0.1:{port}/below/").parse().unwrap();
    run_over_a_task(Otlp { endpoint, ..otlp(port, OtlpProtocol::Http) }).await;
    assert_taken(&taken);
    scope.cancel();
}

#[tokio::test]
async fn without_a_collector_what_does_not_fit_is_dropped_and_nobody_waits() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let tracer = Tracer::default();
    let registry = Registry::default();
    let otlp = otlp(unused, OtlpProtocol::Grpc);
    let exporter = OtlpExporter::try_new(otlp, &tracer, registry.clone()).unwrap();
    metrics::with_local_recorder(&registry, || {
        for _ in 0..QUEUE_MAX + 7 {
            drop(tracer.start("sql_query", "SELECT 1", None));
        }
    });
    let error = exporter.sender.spans(&ExportTraceServiceRequest::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OtlpError::Unreachable { .. }) && text.contains("refused"), "{text}");
    let dropped = registry.render();
    assert!(dropped.contains("otel_export_dropped{signal=\"traces\"} 7\n"), "{dropped}");
}
