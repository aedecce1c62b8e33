//! The run of one scan: the SELECT is sent, batches of the promised schema leave.
//!
//! An upstream that refuses to plan the SELECT is not asked again: the fallback answers, where there is one.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, MetricBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::name::DatasetName;
use crate::upstream::{ErrorKind, Fit, RemoteStream, Step, Upstream, UpstreamError};

use super::{Fallback, RemoteScan, ScanError, Shape, joined};

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// One execution of a scan.
pub(super) struct Reader {
    datasets: Vec<DatasetName>,
    upstream: Arc<Upstream>,
    sql: String,
    shape: Shape,
    schema: SchemaRef,
    fallback: Option<Fallback>,
    context: Arc<TaskContext>,
    baseline: BaselineMetrics,
    bytes: Count,
    refusals: Count,
}

impl Reader {
    pub fn new(scan: &RemoteScan, partition: usize, context: Arc<TaskContext>) -> Self {
        let counter = |name| MetricBuilder::new(&scan.metrics).counter(name, partition);
        Self {
            datasets: scan.datasets.clone(),
            upstream: Arc::clone(&scan.upstream),
            sql: scan.sql.clone(),
            shape: scan.shape,
            schema: Arc::clone(&scan.schema),
            fallback: scan.fallback.clone(),
            context,
            baseline: BaselineMetrics::new(&scan.metrics, partition),
            bytes: counter("bytes_received"),
            refusals: counter("refused_upstream_answered_by_scans"),
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

    async fn open(self) -> Result<Batches> {
        match self.upstream.query(&self.sql).await {
            Ok(stream) => self.read(stream),
            Err(refused) if refused.is_refusal() => match self.fallback.clone() {
                Some(fallback) => self.fall_back(&fallback, &refused).await,
                None => Err(self.failed(refused)),
            },
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn fall_back(self, fallback: &Fallback, refused: &UpstreamError) -> Result<Batches> {
        tracing::debug!(datasets = joined(&self.datasets), %refused, "part of a plan refused, answering by scans");
        self.refusals.add(1);
        let plan = fallback().await?;
        let fit = self.fit(&plan.schema())?;
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
            endpoint: self.upstream.endpoint(),
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
        let batches = stream.batches.map(move |batch| {
            let batch = batch.map_err(|source| self.failed(source))?;
            self.bytes.add(batch.get_array_memory_size());
            fit.apply(batch).map_err(|error| self.broken_promise(error.to_string()))
        });
        Ok(batches.boxed())
    }

    fn count(self, stream: RemoteStream, limit: Option<usize>) -> Batches {
        futures::stream::once(async move {
            let batches: Vec<RecordBatch> =
                stream.batches.try_collect().await.map_err(|source| self.failed(source))?;
            let total = total_of(&batches)
                .ok_or_else(|| self.broken_promise("count(*) did not answer one number".to_owned()))?;
            let rows = limit.map_or(total, |limit| total.min(limit));
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), Vec::new(), &options)?)
        })
        .boxed()
    }
}

/// The one number of a `count(*)`, whatever integer type it came as.
fn total_of(batches: &[RecordBatch]) -> Option<usize> {
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
