//! Rows as JSON with their schema before them and their number after them, as Spice.ai's clients ask for them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, Writer, WriterBuilder};
use serde_json::Value;
use utoipa::ToSchema;

use super::schema_json::ArrowSchema;
use crate::wire;

/// What [`Envelope`] writes, piece by piece.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and never made whole")]
pub(super) struct SqlAnswer {
    row_count: usize,
    schema: ArrowSchema,
    data: Vec<BTreeMap<String, Value>>,
}

/// Writes one answer.
pub struct Envelope {
    writer: Writer<Vec<u8>, JsonArray>,
    row_count: usize,
}

impl Envelope {
    /// The schema is what other clients are promised: views are a matter of how rows are held here.
    pub(super) fn try_new(schema: &Schema) -> Result<Self, ArrowError> {
        let schema = serde_json::to_string(&ArrowSchema::of(&wire::schema(schema)))
            .map_err(|error| ArrowError::JsonError(error.to_string()))?;
        let head = format!(r#"{{"schema":{schema},"data":"#).into_bytes();
        Ok(Self { writer: WriterBuilder::new().with_explicit_nulls(true).build(head), row_count: 0 })
    }

    pub(super) fn encode(&mut self, chunk: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        self.row_count += chunk.num_rows();
        self.writer.write(chunk)?;
        Ok(std::mem::take(self.writer.get_mut()))
    }

    pub(super) fn finish(&mut self) -> Result<Vec<u8>, ArrowError> {
        self.writer.finish()?;
        let mut text = std::mem::take(self.writer.get_mut());
        text.extend_from_slice(format!(r#","row_count":{}}}"#, self.row_count).as_bytes());
        Ok(text)
    }
}
