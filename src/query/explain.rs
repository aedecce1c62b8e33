//! What `EXPLAIN` says of a statement's tier: rows of `plan_type` and `plan`, like DataFusion's own.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;

use crate::federation::{Forward, Note};

use super::{Batches, QueryError};

/// What an `EXPLAIN ANALYZE` of a forwarded statement received.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    pub rows: usize,
    pub batches: usize,
    pub bytes: usize,
}

/// The two columns of every EXPLAIN.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("plan_type", DataType::Utf8, false),
        Field::new("plan", DataType::Utf8, false),
    ]))
}

/// The rows of a statement that is sent whole.
pub(super) fn forwarded(forward: &Forward, received: Option<Received>) -> Result<RecordBatch, QueryError> {
    let mut rows = vec![
        ("tier", "forwarded: the whole statement goes to one upstream".to_owned()),
        ("upstream", forward.upstream.endpoint().to_owned()),
        ("upstream_sql", forward.sql.clone()),
    ];
    if let Some(Received { rows: count, batches, bytes }) = received {
        rows.push(("received", format!("rows={count}, batches={batches}, bytes={bytes}")));
    }
    batch(rows)
}

/// The rows that go before DataFusion's own plan.
pub(super) fn scanned(reason: &str, notes: &[Note]) -> Result<RecordBatch, QueryError> {
    let tier =
        format!("scans: tables, or whole parts over them, are read and the rest runs here, because {reason}");
    let mut rows = vec![("tier", tier)];
    if !notes.is_empty() {
        let lines: Vec<String> = notes.iter().map(ToString::to_string).collect();
        rows.push(("push_down", lines.join("\n")));
    }
    batch(rows)
}

/// Reads an answer to its end and keeps only its measures.
pub(super) async fn drain(mut batches: Batches) -> Result<Received, QueryError> {
    let mut received = Received::default();
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        received.rows += batch.num_rows();
        received.batches += 1;
        received.bytes += batch.get_array_memory_size();
    }
    Ok(received)
}

fn batch(rows: Vec<(&str, String)>) -> Result<RecordBatch, QueryError> {
    let (kinds, plans): (Vec<&str>, Vec<String>) = rows.into_iter().unzip();
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(kinds)), Arc::new(StringArray::from(plans))];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| QueryError::Internal { message: error.to_string() })
}
