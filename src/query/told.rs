//! What is told of a query while it runs and when it ends: its metrics, and the labels of its task.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use metrics::{Counter, Histogram};

use super::{CacheStatus, Cached, Place, Protocol, QueryRecord, Request, Rights};
use crate::name::QueryId;
use crate::query::Principal;
use crate::telemetry::{Context, Owner, Span};
use crate::wire::Part;

/// Of an answer that is captured.
const OUTPUT_ROWS_MAX: usize = 3;

/// The handles of the metrics of all queries, by their protocols: each is looked up once.
#[derive(Default)]
pub(super) struct Counters([OnceLock<Arc<Counted>>; Protocol::COUNT]);

/// Those of one protocol.
struct Counted {
    protocol: &'static str,
    executions: Counter,
    rows: Counter,
    bytes: Counter,
    duration: Histogram,
    /// Of those that had their turn.
    executing: OnceLock<Histogram>,
}

impl Counters {
    fn of(&self, protocol: Protocol) -> &Arc<Counted> {
        self.0[protocol as usize].get_or_init(|| {
            let protocol = protocol.word();
            Arc::new(Counted {
                protocol,
                executions: metrics::counter!("query_executions", "protocol" => protocol),
                rows: metrics::counter!("query_returned_rows", "protocol" => protocol),
                bytes: metrics::counter!("query_returned_bytes", "protocol" => protocol),
                duration: metrics::histogram!("query_duration_ms", "protocol" => protocol),
                executing: OnceLock::new(),
            })
        })
    }
}

/// What is told of one query.
pub(super) struct Told {
    counted: Arc<Counted>,
    /// The first rows were seen, or are not to be kept.
    is_captured: bool,
}

impl Told {
    pub fn begin(counters: &Counters, request: &Request, id: QueryId, context: &Context) -> Self {
        let counted = Arc::clone(counters.of(request.protocol));
        counted.executions.increment(1);
        context.owned_by(Owner {
            name: request.principal.to_string().into(),
            sees_all: request.principal == Principal::Anonymous || request.rights == Rights::ReadWrite,
        });
        context.label("protocol", counted.protocol);
        context.label("query_id", id.to_string());
        context.label("runtime_query", word(request.protocol == Protocol::Internal));
        Self { counted, is_captured: !context.captures() }
    }

    pub fn answered(&self, context: &Context, place: Option<Place>, cached: Option<&Cached>) {
        if let Some(place) = place {
            context.label("place", place.word());
            context.label("accelerated", word(place == Place::Local));
        }
        if let Some(cached) = cached {
            let is_hit = matches!(cached.status, CacheStatus::Hit | CacheStatus::Stale);
            context.label("results_cache_hit", word(is_hit));
        }
    }

    /// Rows are on their way to the client.
    pub fn gives(&mut self, part: &Part, schema: &SchemaRef, context: &Context) {
        self.counted.rows.increment(part.rows() as u64);
        self.counted.bytes.increment(part.bytes() as u64);
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
        let (counted, protocol, context) = (&self.counted, self.counted.protocol, span.context());
        counted.duration.record(ms(span.elapsed()));
        if let Some(since) = context.executing_since() {
            let took = since.elapsed();
            let executing = || metrics::histogram!("query_execution_duration_ms", "protocol" => protocol);
            counted.executing.get_or_init(executing).record(ms(took));
            context.label("query_execution_duration_ms", thousandths(took.as_micros()));
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

fn word(is_so: bool) -> &'static str {
    if is_so { "true" } else { "false" }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A number of thousandths as a decimal.
fn thousandths(all: u128) -> String {
    format!("{}.{:03}", all / 1_000, all % 1_000)
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
