//! One SELECT on an upstream as a DataFusion plan node: projection, filters and limit go with it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use crate::name::DatasetName;
use crate::upstream::{ErrorKind, Fit, RemoteStream, Step, Upstream, UpstreamError};

/// An upstream error on its way through DataFusion, with the dataset that met it.
#[derive(Debug, Clone)]
pub(crate) struct ScanError {
    pub dataset: DatasetName,
    pub source: UpstreamError,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dataset `{}`: {}", self.dataset, self.source)
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// How the rows of the SELECT are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows of the projected columns.
    Rows,
    /// `SELECT count(*)`: as many rows without columns, at most `limit`.
    Count { limit: Option<usize> },
}

/// Sends one SELECT and yields its rows.
pub(super) struct RemoteScan {
    pub dataset: DatasetName,
    pub upstream: Arc<Upstream>,
    pub sql: String,
    pub shape: Shape,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteScan {
    /// `schema` is that of the projected columns; no I/O happens before `execute`.
    pub fn new(
        dataset: DatasetName,
        upstream: Arc<Upstream>,
        sql: String,
        shape: Shape,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { dataset, upstream, sql, shape, schema, properties: Arc::new(properties), metrics }
    }
}

impl fmt::Debug for RemoteScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteScan({}: {})", self.dataset, self.sql)
    }
}

impl DisplayAs for RemoteScan {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::TreeRender => {
                writeln!(f, "upstream={}", self.upstream.endpoint())?;
                write!(f, "sql={}", self.sql)
            }
            _ => write!(f, "RemoteScan: upstream={}, sql={}", self.upstream.endpoint(), self.sql),
        }
    }
}

impl ExecutionPlan for RemoteScan {
    fn name(&self) -> &'static str {
        "RemoteScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let bytes = MetricBuilder::new(&self.metrics).counter("bytes_received", partition);
        let reader = Reader {
            dataset: self.dataset.clone(),
            endpoint: self.upstream.endpoint(),
            schema: Arc::clone(&self.schema),
            shape: self.shape,
            bytes,
        };
        let upstream = Arc::clone(&self.upstream);
        let sql = self.sql.clone();
        let batches = futures::stream::once(async move {
            let stream = upstream.query(&sql).await.map_err(|source| reader.failed(source))?;
            reader.read(stream)
        })
        .try_flatten()
        .inspect_ok(move |batch| {
            baseline.record_output(batch.num_rows());
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Turns what the upstream sends into the batches that the plan promised.
struct Reader {
    dataset: DatasetName,
    endpoint: String,
    schema: SchemaRef,
    shape: Shape,
    bytes: Count,
}

type Batches = futures::stream::BoxStream<'static, Result<RecordBatch>>;

impl Reader {
    fn failed(&self, source: UpstreamError) -> DataFusionError {
        DataFusionError::External(Box::new(ScanError { dataset: self.dataset.clone(), source }))
    }

    fn broken_promise(&self, message: String) -> DataFusionError {
        self.failed(UpstreamError {
            kind: ErrorKind::Protocol,
            step: Step::Query,
            endpoint: self.endpoint.clone(),
            message,
            help: Some("the dataset's schema may have changed upstream".to_owned()),
        })
    }

    fn read(self, stream: RemoteStream) -> Result<Batches> {
        match self.shape {
            Shape::Rows => self.rows(stream),
            Shape::Count { limit } => Ok(self.count(stream, limit)),
        }
    }

    fn rows(self, stream: RemoteStream) -> Result<Batches> {
        let fit =
            Fit::try_new(&self.schema, &stream.schema).map_err(|message| self.broken_promise(message))?;
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
