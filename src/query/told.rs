//! What is told of a query while it runs and when it ends: its metrics, and the labels of its task.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use metrics::Counter;

use super::{CacheStatus, Cached, Place, Protocol, QueryRecord, Request, Rights};
use crate::name::QueryId;
use crate::query::Principal;
use crate::telemetry::{Context, Owner, Span};
use crate::wire::Part;

/// Of an answer that is captured.
const OUTPUT_ROWS_MAX: usize = 3;

/// The handles of one query's metrics, looked up once.
pub(super) struct Told {
    protocol: &'static str,
    rows: Counter,
    bytes: Counter,
    /// The first rows were seen, or are not to be kept.
    is_captured: bool,
}

impl Told {
    pub fn begin(request: &Request, id: QueryId, context: &Context) -> Self {
        let protocol = request.protocol.word();
        metrics::counter!("query_executions", "protocol" => protocol).increment(1);
        context.owned_by(Owner {
            name: request.principal.to_string().into(),
            sees_all: request.principal == Principal::Anonymous || request.rights == Rights::ReadWrite,
        });
        context.label("protocol", protocol);
        context.label("query_id", id.to_string());
        context.label("runtime_query", (request.protocol == Protocol::Internal).to_string());
        Self {
            protocol,
            rows: metrics::counter!("query_returned_rows", "protocol" => protocol),
            bytes: metrics::counter!("query_returned_bytes", "protocol" => protocol),
            is_captured: !context.captures(),
        }
    }

    pub fn answered(&self, context: &Context, place: Option<Place>, cached: Option<&Cached>) {
        if let Some(place) = place {
            context.label("place", place.word());
            context.label("accelerated", (place == Place::Local).to_string());
        }
        if let Some(cached) = cached {
            let is_hit = matches!(cached.status, CacheStatus::Hit | CacheStatus::Stale);
            context.label("results_cache_hit", is_hit.to_string());
        }
    }

    /// Rows are on their way to the client.
    pub fn gives(&mut self, part: &Part, schema: &SchemaRef, context: &Context) {
        self.rows.increment(part.rows() as u64);
        self.bytes.increment(part.bytes() as u64);
        if !self.is_captured && part.rows() > 0 {
            self.is_captured = true;
            // What cannot be decoded is told to the client by its own decoder.
            if let Ok(batch) = part.batch(schema) {
                context.output(first_rows(&batch));
            }
        }
    }

    /// `code` says what has failed.
    pub fn ended(&self, record: &QueryRecord, code: Option<&'static str>, span: &Span) {
        let (protocol, context) = (self.protocol, span.context());
        metrics::histogram!("query_duration_ms", "protocol" => protocol).record(ms(span.elapsed()));
        if let Some(since) = context.executing_since() {
            let took = ms(since.elapsed());
            metrics::histogram!("query_execution_duration_ms", "protocol" => protocol).record(took);
            context.label("query_execution_duration_ms", format!("{took:.3}"));
        }
        if let Some(code) = code {
            metrics::counter!("query_failures", "protocol" => protocol, "err_code" => code).increment(1);
            context.label("error_code", code);
        }
        if let Some(outcome) = &record.outcome {
            context.label("outcome", outcome.word());
        }
        context.label("rows_produced", record.rows.to_string());
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// As JSON, a line each; nothing of what JSON cannot hold.
fn first_rows(batch: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    let first = batch.slice(0, batch.num_rows().min(OUTPUT_ROWS_MAX));
    match writer.write(&first).and_then(|()| writer.finish()) {
        Ok(()) => String::from_utf8(writer.into_inner()).unwrap_or_default().trim_end().to_owned(),
        Err(error) => format!("not shown: {error}"),
    }
}
