//! The run of one scan: the SELECT is sent, batches of the promised schema leave.
//!
//! What the filters above say at the first poll goes with it. An upstream that refuses to plan the SELECT is
//! asked once more without keys, then the fallback answers, where there is one.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, MetricBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{PhysicalExpr, execute_stream};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::name::DatasetName;
use crate::telemetry::Context;
use crate::upstream::{ErrorKind, Fit, RemoteStream, Step, Upstream, UpstreamError};

use super::keys::Condition;
use super::{Fallback, Keys, RemoteScan, RowCount, ScanError, Sent, Shape, joined};

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// One execution of a scan.
pub(super) struct Reader {
    datasets: Vec<DatasetName>,
    upstream: Arc<Upstream>,
    sql: String,
    shape: Shape,
    schema: SchemaRef,
    fallback: Option<Fallback>,
    keys: Option<Keys>,
    filters: Vec<Arc<dyn PhysicalExpr>>,
    counted: Option<Arc<RowCount>>,
    sent: Sent,
    context: Arc<TaskContext>,
    baseline: BaselineMetrics,
    bytes: Count,
}

impl Reader {
    pub fn new(scan: &RemoteScan, partition: usize, context: Arc<TaskContext>) -> Self {
        Self {
            datasets: scan.datasets.clone(),
            upstream: Arc::clone(&scan.upstream),
            sql: scan.sql.clone(),
            shape: scan.shape,
            schema: Arc::clone(&scan.schema),
            fallback: scan.fallback.clone(),
            keys: scan.keys.clone(),
            filters: scan.filters.clone(),
            counted: scan.counted.clone(),
            sent: scan.sent.clone(),
            context,
            baseline: BaselineMetrics::new(&scan.metrics, partition),
            bytes: MetricBuilder::new(&scan.metrics).counter("bytes_received", partition),
        }
    }

    /// Asks at the first poll.
    pub fn stream(self) -> SendableRecordBatchStream {
        let (schema, baseline) = (Arc::clone(&self.schema), self.baseline.clone());
        let batches = futures::stream::once(self.open()).try_flatten().inspect_ok(move |batch| {
            baseline.record_output(batch.num_rows());
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    /// In the trace of the query, which may be another task's.
    async fn open(self) -> Result<Batches> {
        let asked_by = self.context.session_config().get_extension::<Context>();
        Context::scope_in(asked_by.map(|context| context.as_ref().clone()), self.ask()).await
    }

    async fn ask(mut self) -> Result<Batches> {
        match self.condition()? {
            Condition::None => {}
            Condition::Never => {
                self.sent.say(format!("{}, not sent: no row can match", self.sql));
                return Ok(futures::stream::empty().boxed());
            }
            Condition::Sql { sent, shown } => match self.ask_with_keys(&sent, &shown).await? {
                Some(stream) => {
                    // Some rows of the table: not their count.
                    self.counted = None;
                    return self.read(stream);
                }
                None => self.keys = None,
            },
        }
        match self.upstream.query(&self.sql).await {
            Ok(stream) => {
                self.sent.say(self.sql.clone());
                self.read(stream)
            }
            Err(refused) if refused.is_refusal() => match self.fallback.clone() {
                Some(fallback) => self.fall_back(&fallback, &refused).await,
                None => Err(self.failed(refused)),
            },
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What the filters say now.
    fn condition(&self) -> Result<Condition> {
        match &self.keys {
            Some(keys) if !self.filters.is_empty() => keys.condition(&self.filters, &self.schema),
            _ => Ok(Condition::None),
        }
    }

    /// None where the upstream refuses to plan the SELECT with keys.
    async fn ask_with_keys(&self, sent: &str, shown: &str) -> Result<Option<RemoteStream>> {
        let Some(keys) = &self.keys else { return Ok(None) };
        match self.upstream.query(&keys.placed(&self.sql, sent)).await {
            Ok(stream) => {
                self.sent.say(keys.placed(&self.sql, shown));
                Ok(Some(stream))
            }
            Err(refused) if refused.is_refusal() => {
                tracing::debug!(datasets = joined(&self.datasets), %refused, "keys refused, asking without");
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn fall_back(self, fallback: &Fallback, refused: &UpstreamError) -> Result<Batches> {
        tracing::debug!(datasets = joined(&self.datasets), %refused, "SELECT refused, answering by scans");
        self.sent.say(format!("{}, refused upstream, answered by scans", self.sql));
        let plan = fallback().await?;
        let fit = self.fit(&plan.schema())?;
        // All partitions are read at once: those of a join wait for each other.
        let batches = execute_stream(plan, Arc::clone(&self.context))?;
        Ok(batches.map(move |batch| Ok(fit.apply(batch?)?)).boxed())
    }

    fn failed(&self, source: UpstreamError) -> DataFusionError {
        DataFusionError::External(Box::new(ScanError { datasets: self.datasets.clone(), source }))
    }

    fn broken_promise(&self, message: String) -> DataFusionError {
        self.failed(UpstreamError {
            kind: ErrorKind::Protocol,
            step: Step::Query,
            endpoint: self.upstream.endpoint().to_owned(),
            message,
            help: Some("the dataset's schema may have changed upstream".to_owned()),
        })
    }

    fn fit(&self, found: &SchemaRef) -> Result<Fit> {
        Fit::by_position(&self.schema, found).map_err(|message| self.broken_promise(message))
    }

    fn read(self, stream: RemoteStream) -> Result<Batches> {
        match self.shape {
            Shape::Rows => self.rows(stream),
            Shape::Count { limit } => Ok(self.count(stream, limit)),
        }
    }

    fn rows(self, stream: RemoteStream) -> Result<Batches> {
        let fit = self.fit(&stream.schema)?;
        if let (Some(counted), Some(total)) = (&self.counted, stream.total_records) {
            counted.learn(total);
        }
        let rows = Rows { reader: self, stream, fit, rows: 0, bytes: 0 };
        let batches = futures::stream::try_unfold(rows, |mut rows| async move {
            Ok(rows.next().await?.map(|batch| (batch, rows)))
        });
        Ok(batches.boxed())
    }

    fn count(self, stream: RemoteStream, limit: Option<usize>) -> Batches {
        futures::stream::once(async move {
            let batches: Vec<RecordBatch> =
                stream.batches.try_collect().await.map_err(|source| self.failed(source))?;
            self.bytes.add(stream.received.bytes());
            let total = total_of(&batches)
                .ok_or_else(|| self.broken_promise("count(*) did not answer one number".to_owned()))?;
            if let Some(counted) = &self.counted {
                counted.learn(total as u64);
            }
            let rows = limit.map_or(total, |limit| total.min(limit));
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), Vec::new(), &options)?)
        })
        .boxed()
    }
}

/// The rows of one answer on their way, counted.
struct Rows {
    reader: Reader,
    stream: RemoteStream,
    fit: Fit,
    rows: u64,
    /// Of the bytes received, those that the metric knows already.
    bytes: usize,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.stream.batches.next().await.transpose();
        let bytes = self.stream.received.bytes();
        self.reader.bytes.add(bytes - std::mem::replace(&mut self.bytes, bytes));
        let Some(batch) = batch.map_err(|source| self.reader.failed(source))? else {
            if let Some(counted) = &self.reader.counted {
                counted.learn(self.rows);
            }
            return Ok(None);
        };
        self.rows += batch.num_rows() as u64;
        self.fit.apply(batch).map(Some).map_err(|error| self.reader.broken_promise(error.to_string()))
    }
}

/// The one number of a `count(*)`, whatever integer type it came as.
pub(in crate::federation) fn total_of(batches: &[RecordBatch]) -> Option<usize> {
    let mut filled = batches.iter().filter(|batch| batch.num_rows() > 0);
    let (batch, None) = (filled.next()?, filled.next()) else { return None };
    if batch.num_rows() != 1 || batch.num_columns() != 1 {
        return None;
    }
    let number = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64).ok()?;
    let number =
        number.as_any().is::<arrow::array::Int64Array>().then(|| number.as_primitive::<Int64Type>())?;
    number.is_valid(0).then(|| usize::try_from(number.value(0)).ok()).flatten()
}
