//! The tables of this process itself: `runtime.metrics` and `runtime.task_history`, read from the telemetry at the moment
//! when they are scanned.
//!
//! They are planned as any table and never leave: their schema is one of [`LOCAL_SCHEMAS`](super::registry), so that a
//! statement over them is neither forwarded nor cached, and is not recorded itself.

mod history;
mod metrics;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use serde::Serialize;

use crate::telemetry::{Context, Registry, Tracer};

/// Its schema.
pub(super) const RUNTIME: &str = "runtime";
/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// What the tables show.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub registry: Registry,
    pub tracer: Tracer,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

/// Writes the rows of now that the one who asks may see.
type Rows = Arc<dyn Fn(Option<Context>, &SchemaRef) -> Result<RecordBatch> + Send + Sync>;

/// One table.
struct Snapshot {
    name: &'static str,
    schema: SchemaRef,
    rows: Rows,
}

/// The schema `runtime` with its tables.
///
/// # Errors
/// A table that cannot be registered.
pub(super) fn schema(telemetry: &Telemetry) -> Result<Arc<dyn SchemaProvider>> {
    let schema = MemorySchemaProvider::new();
    for table in [metrics::table(&telemetry.registry), history::table(&telemetry.tracer)] {
        let (name, columns) = (table.name, Arc::clone(&table.schema));
        let table = StreamingTable::try_new(columns, vec![Arc::new(table)])?;
        schema.register_table(name.to_owned(), Arc::new(table))?;
    }
    Ok(Arc::new(schema))
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartitionStream for Snapshot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (rows, schema) = (Arc::clone(&self.rows), Arc::clone(&self.schema));
        let asker = context.session_config().get_extension::<Context>().map(|asker| asker.as_ref().clone());
        let batches = futures::stream::once(async move { rows(asker, &schema) });
        let batches = futures::StreamExt::flat_map(batches, |batch| {
            let slices: Vec<Result<RecordBatch>> = match batch {
                Ok(batch) => (0..batch.num_rows())
                    .step_by(BATCH_ROWS)
                    .map(|at| Ok(batch.slice(at, BATCH_ROWS.min(batch.num_rows() - at))))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(slices)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Rows as Arrow has them.
fn written<S: Serialize>(rows: &[S], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut decoder =
        ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(rows)?;
    let batch = decoder.flush().map_err(DataFusionError::from)?;
    Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema))))
}

/// Nanoseconds since the epoch.
fn nanoseconds(moment: std::time::SystemTime) -> i64 {
    let since = moment.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
