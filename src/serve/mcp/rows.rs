//! The rows of a statement as one bounded page: a statement enters, JSON rows leave, and a word where there were more.
//!
//! They are written by the writer of HTTP, so that both give the same text for the same value. What is not shown is not
//! fetched: dropping the answer cancels the query, upstream included.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::query::{QueryError, Request};
use crate::serve::Door;
use crate::serve::http::{Format, RowWriter};

/// Rows of one answer.
pub(super) const ROWS_MAX: usize = 1000;
/// Bytes of the rows of one answer, as JSON: an agent reads all of it.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// One column of a table or an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Column {
    name: String,
    /// The Arrow type, for example Int64, Utf8 or Decimal128(12, 2).
    #[serde(rename = "type")]
    kind: String,
    nullable: bool,
}

/// The rows of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Rows {
    columns: Vec<Column>,
    /// Objects with a key for each column.
    rows: Vec<Map<String, Value>>,
    row_count: usize,
    /// Whether there are more rows than are shown.
    truncated: bool,
    /// Why not all rows are shown, and how to see others.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Why rows are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Rows,
    Bytes,
}

/// The rows that are shown, while they come.
struct Page {
    schema: SchemaRef,
    writer: RowWriter,
    /// Rows as they are written, without the end of the array.
    text: Vec<u8>,
    rows: usize,
    rows_max: usize,
    cut: Option<Cut>,
}

/// The first rows of a statement, `rows_max` of them at most.
///
/// # Errors
/// As the statement's own, and for values that JSON cannot hold.
pub(super) async fn first<D: Door>(door: &D, request: Request, rows_max: usize) -> Result<Rows, QueryError> {
    let answer = door.run(request).await?;
    let mut page = Page::try_new(&answer.schema, rows_max)?;
    let mut batches = answer.into_batches();
    while page.cut.is_none() {
        match batches.next().await {
            Some(batch) => page.add(&batch?)?,
            None => break,
        }
    }
    page.finish()
}

/// The columns of a schema.
pub(super) fn columns(schema: &Schema) -> Vec<Column> {
    let column = |field: &arrow::datatypes::FieldRef| Column {
        name: field.name().clone(),
        kind: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

impl Page {
    fn try_new(schema: &SchemaRef, rows_max: usize) -> Result<Self, QueryError> {
        let writer = RowWriter::try_new(Format::Json, schema).map_err(unwritable)?;
        let rows_max = rows_max.clamp(1, ROWS_MAX);
        Ok(Self { schema: SchemaRef::clone(schema), writer, text: Vec::new(), rows: 0, rows_max, cut: None })
    }

    /// Row by row, so that no more than one is written in vain.
    fn add(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        for row in 0..batch.num_rows() {
            if self.rows == self.rows_max {
                self.cut = Some(Cut::Rows);
                return Ok(());
            }
            let text = self.writer.encode(&batch.slice(row, 1)).map_err(unwritable)?;
            if self.text.len() + text.len() > BYTES_MAX {
                self.cut = Some(Cut::Bytes);
                return Ok(());
            }
            self.text.extend_from_slice(&text);
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Rows, QueryError> {
        let end = self.writer.finish().map_err(unwritable)?;
        // A first row that was too large began an array of which nothing is here.
        match self.rows {
            0 => self.text = b"[]".to_vec(),
            _ => self.text.extend_from_slice(&end),
        }
        let rows = serde_json::from_slice(&self.text)
            .map_err(|error| QueryError::Internal { message: format!("rows that are no JSON: {error}") })?;
        let note = self.cut.map(|cut| cut.note(self.rows));
        Ok(Rows {
            columns: columns(&self.schema),
            rows,
            row_count: self.rows,
            truncated: self.cut.is_some(),
            note,
        })
    }
}

impl Cut {
    fn note(self, rows: usize) -> String {
        let advice = "narrow it down with WHERE, aggregate, or page with ORDER BY … LIMIT … OFFSET";
        match self {
            Self::Rows => format!("these are the first {rows} rows, there are more: {advice}"),
            Self::Bytes if rows == 0 => {
                let limit = BYTES_MAX >> 20;
                format!(
                    "no row is shown, the first alone is larger than {limit} MiB: select fewer columns, or parts of them"
                )
            }
            Self::Bytes => {
                let limit = BYTES_MAX >> 20;
                format!(
                    "these are the first {rows} rows, more would be larger than {limit} MiB: {advice}, or select fewer columns"
                )
            }
        }
    }
}

/// What JSON cannot hold is the statement's to change; anything else is ours.
fn unwritable(error: ArrowError) -> QueryError {
    match error {
        ArrowError::NotYetImplemented(message) => QueryError::Unsupported { message },
        ArrowError::JsonError(message) => {
            QueryError::Unsupported { message: format!("{message}: cast the column to text") }
        }
        other => QueryError::Internal { message: format!("the answer cannot be written: {other}") },
    }
}
