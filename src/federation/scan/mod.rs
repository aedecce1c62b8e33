//! One SELECT on an upstream as a DataFusion plan node: what it asks and what it will yield.
//!
//! It stands for a table with its projection, filters and limit, or for a whole part of a plan over
//! several datasets of one upstream. Nothing is sent before its stream is polled.

mod read;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::future::BoxFuture;

use crate::name::DatasetName;
use crate::upstream::{Upstream, UpstreamError};

use read::Reader;

/// An upstream error on its way through DataFusion, with the datasets that the SELECT read.
#[derive(Debug, Clone)]
pub(crate) struct ScanError {
    pub datasets: Vec<DatasetName>,
    pub source: UpstreamError,
}

impl ScanError {
    /// The upstream's failure behind `error`, however deep DataFusion wrapped it.
    pub fn find(error: &DataFusionError) -> Option<&Self> {
        let first: &(dyn std::error::Error + 'static) = error;
        std::iter::successors(Some(first), |error| error.source()).find_map(|error| error.downcast_ref())
    }

    /// The datasets in one line.
    pub fn names(&self) -> String {
        joined(&self.datasets)
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dataset `{}`: {}", self.names(), self.source)
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn joined(datasets: &[DatasetName]) -> String {
    datasets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How the rows of the SELECT are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Rows of the projected columns.
    Rows,
    /// `SELECT count(*)`: as many rows without columns, at most `limit`.
    Count { limit: Option<usize> },
}

/// Plans, on need, what answers in place of a SELECT that the upstream refuses to plan: the same columns.
pub(super) type Fallback = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn ExecutionPlan>>> + Send + Sync>;

/// Sends one SELECT and yields its rows.
#[derive(Clone)]
pub(super) struct RemoteScan {
    pub datasets: Vec<DatasetName>,
    pub upstream: Arc<Upstream>,
    pub sql: String,
    pub shape: Shape,
    schema: SchemaRef,
    rows: Option<usize>,
    fallback: Option<Fallback>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RemoteScan {
    /// `schema` is that of the columns that `sql` selects, by position: the upstream may name them
    /// otherwise. No I/O happens before the stream is polled.
    pub fn new(
        datasets: Vec<DatasetName>,
        upstream: Arc<Upstream>,
        sql: String,
        shape: Shape,
        schema: SchemaRef,
    ) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let metrics = ExecutionPlanMetricsSet::new();
        Self { datasets, upstream, sql, shape, schema, rows: None, fallback: None, properties, metrics }
    }

    /// About how many rows it yields, where that is known.
    #[must_use]
    pub fn with_rows(mut self, rows: Option<usize>) -> Self {
        self.rows = rows;
        self
    }

    /// What answers when the upstream refuses to plan the SELECT.
    #[must_use]
    pub fn with_fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = Some(fallback);
        self
    }
}

impl fmt::Debug for RemoteScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteScan({}: {})", joined(&self.datasets), self.sql)
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Reader::new(self, partition, context).stream())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.rows {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }
}
