//! Rows as an Arrow IPC stream: the same schema and the same plain types as over Flight.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use crate::wire;

/// Writes one answer.
pub struct ArrowStream {
    writer: StreamWriter<Vec<u8>>,
    promised: SchemaRef,
}

impl ArrowStream {
    pub(super) fn try_new(schema: &Schema) -> Result<Self, ArrowError> {
        let promised = Arc::new(wire::schema(schema));
        Ok(Self { writer: StreamWriter::try_new(Vec::new(), &promised)?, promised })
    }

    pub(super) fn encode(&mut self, chunk: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        self.writer.write(&wire::batch(chunk, &self.promised)?)?;
        Ok(std::mem::take(self.writer.get_mut()))
    }

    pub(super) fn finish(&mut self) -> Result<Vec<u8>, ArrowError> {
        self.writer.finish()?;
        Ok(std::mem::take(self.writer.get_mut()))
    }
}
