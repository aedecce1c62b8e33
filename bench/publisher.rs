//! The upstream of the stream bench: one table, `log`, that grows when it is told to; sidewing's own Flight server serves
//! it to queries and to subscribers.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use sidewing::acceleration::{MemoryLog, Publication, Retention};
use sidewing::query::{Answer, DatasetStatus, QueryError, Request, SubscribeError};
use sidewing::serve::Door;
use sidewing::serve::flight::{self, FlightOptions};
use sidewing::task::Scope;
use tokio::net::TcpListener;

use crate::Result;

/// What the table is called.
pub const NAME: &str = "log";
/// Rows of one batch.
const BATCH_ROWS: i64 = 8192;
/// A key and a value of eight bytes, two strings of 20 bytes and their offsets.
pub const ROW_BYTES: usize = 2 * 8 + 2 * (20 + 4);

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("value", DataType::Float64),
        field("name", DataType::Utf8),
        field("kind", DataType::Utf8),
    ]))
});

/// A running upstream; it ends when it is dropped.
pub struct Publisher {
    /// `host:port`.
    pub address: String,
    table: Arc<MemTable>,
    log: Arc<MemoryLog>,
    scope: Scope,
}

impl Publisher {
    /// An empty table on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let schema = Arc::clone(&SCHEMA);
        let table = Arc::new(MemTable::try_new(Arc::clone(&schema), vec![Vec::new()])?);
        let log = Arc::new(MemoryLog::new(NAME.parse()?, schema, Retention::default()));
        let context = SessionContext::new();
        context.register_table(NAME, Arc::clone(&table) as Arc<dyn TableProvider>)?;
        let door = LogDoor { context, publication: Arc::clone(log.publication()) };
        let scope = Scope::new();
        let serving = scope.clone();
        let options = FlightOptions::default();
        scope.spawn("publisher", async move { flight::serve(listener, door, options, &serving).await });
        Ok(Self { address, table, log, scope })
    }

    /// Adds rows: queries find them, and then subscribers are told.
    pub async fn emit(&self, batches: Vec<RecordBatch>) -> Result<()> {
        self.table.batches[0].write().await.extend(batches.iter().cloned());
        for batch in batches {
            self.log.append(batch)?;
        }
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

/// The rows of these numbers.
pub fn rows(ids: Range<i64>) -> Result<Vec<RecordBatch>> {
    let starts = ids.clone().step_by(BATCH_ROWS as usize);
    starts.map(|first| batch(first..ids.end.min(first + BATCH_ROWS))).collect()
}

fn batch(ids: Range<i64>) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(Float64Array::from_iter_values(ids.clone().map(|id| (id % 1000) as f64 / 8.0))),
        Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("name-{id:015}")))),
        Arc::new(StringArray::from_iter_values(ids.map(|id| format!("kind-{:015}", id % 50)))),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
}

#[derive(Clone)]
struct LogDoor {
    context: SessionContext,
    publication: Arc<Publication>,
}

fn refused(error: DataFusionError) -> QueryError {
    QueryError::Invalid { message: error.strip_backtrace() }
}

impl LogDoor {
    async fn frame(&self, sql: &str) -> Result<DataFrame, QueryError> {
        self.context.sql(sql).await.map_err(refused)
    }
}

impl Door for LogDoor {
    async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        let stream = self.frame(&request.sql).await?.execute_stream().await.map_err(refused)?;
        let schema = stream.schema();
        Ok(Answer::new(schema, stream.map_err(refused).boxed()))
    }

    async fn schema(&self, request: Request) -> Result<SchemaRef, QueryError> {
        let plan = self.frame(&request.sql).await?.create_physical_plan().await.map_err(refused)?;
        Ok(plan.schema())
    }

    async fn table_schema(&self, _path: &[String]) -> Result<SchemaRef, QueryError> {
        Ok(Arc::clone(&SCHEMA))
    }

    fn publication(&self, _path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        Ok(Arc::clone(&self.publication))
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        Vec::new()
    }
}
