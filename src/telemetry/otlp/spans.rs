//! Tasks enter, OTLP's spans leave.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{attribute, nanoseconds};
use crate::telemetry::trace::{Task, TraceState};

const SAMPLED: u32 = 1;

pub(super) fn request(
    resource: Resource,
    scope: Option<InstrumentationScope>,
    tasks: &[Task],
) -> ExportTraceServiceRequest {
    let spans = tasks.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope, spans, schema_url: String::new() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn span(task: &Task) -> Span {
    let labels = task.labels.iter().map(|(key, value)| attribute(key, value));
    let output = task.output.iter().map(|output| attribute("captured_output", output));
    let status = task.error.as_ref().map_or_else(Status::default, |error| Status {
        message: error.clone(),
        code: StatusCode::Error.into(),
    });
    Span {
        trace_id: task.ids.trace.to_be_bytes().to_vec(),
        span_id: task.ids.span.to_be_bytes().to_vec(),
        trace_state: task.state.as_ref().map(TraceState::as_str).unwrap_or_default().to_owned(),
        parent_span_id: task.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: task.task.to_owned(),
        kind: kind(task.task).into(),
        start_time_unix_nano: nanoseconds(task.started),
        end_time_unix_nano: nanoseconds(task.ended()),
        attributes: labels.chain(output).chain([attribute("input", task.input.as_ref())]).collect(),
        status: Some(status),
        ..Span::default()
    }
}

/// Who is on the other side.
fn kind(task: &str) -> SpanKind {
    match task {
        "flight_request" => SpanKind::Client,
        "sql_query" => SpanKind::Server,
        _ => SpanKind::Internal,
    }
}
