//! One SELECT on an upstream as a DataFusion plan node: what it asks and what it will yield.
//!
//! It stands for a table with its projection, filters and limit, or for a whole part of a plan over
//! several datasets of one upstream. Nothing is sent before its stream is polled: by then the small side of
//! a join above is built, and its keys go with the SELECT.

mod domain;
mod keys;
mod patience;
mod read;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::future::BoxFuture;

use crate::name::DatasetName;
use crate::upstream::{Upstream, UpstreamError};

use super::rows::RowCount;
pub(super) use keys::{Keys, Place};
pub(super) use patience::WaitForNobody;
use read::Reader;
pub(super) use read::total_of;

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
    keys: Option<Keys>,
    /// Filled while the plan runs, by joins and sorts above.
    filters: Vec<Arc<dyn PhysicalExpr>>,
    counted: Option<Arc<RowCount>>,
    sent: Sent,
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
        Self {
            datasets,
            upstream,
            sql,
            shape,
            schema,
            rows: None,
            fallback: None,
            keys: None,
            filters: Vec::new(),
            counted: None,
            sent: Sent::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
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

    /// Lets the keys of joins above go with the SELECT.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The SELECT reads a whole table: what it yields is the table's row count.
    #[must_use]
    pub fn counted_by(mut self, rows: Arc<RowCount>) -> Self {
        self.counted = Some(rows);
        self
    }

    /// Forgets the filter called `id`.
    fn without_filter(mut self, id: u64) -> Self {
        self.filters.retain(|filter| filter.expression_id() != Some(id));
        self
    }

    /// The SQL as it was sent, else as it is without keys; with what there is to know about it.
    fn shown(&self) -> String {
        match self.sent.0.load_full() {
            Some(sent) => sent.as_ref().clone(),
            None if self.filters.is_empty() => self.sql.clone(),
            None => format!("{}, takes keys when it runs", self.sql),
        }
    }
}

/// What a scan has sent, for `EXPLAIN ANALYZE`.
#[derive(Clone, Default)]
struct Sent(Arc<ArcSwapOption<String>>);

impl Sent {
    fn say(&self, what: String) {
        self.0.store(Some(Arc::new(what)));
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
                write!(f, "sql={}", self.shown())
            }
            _ => write!(f, "RemoteScan: upstream={}, sql={}", self.upstream.endpoint(), self.shown()),
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
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        // A join looks here for its filter: it is filled only where somebody reads it.
        for filter in &self.filters {
            if f(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// Before another run: the joins above get new filters, these ones speak of the run before.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { filters: Vec::new(), ..Self::clone(&self) }))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        offered: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let takes = self.keys.is_some()
            && phase == FilterPushdownPhase::Post
            && config.optimizer.enable_dynamic_filter_pushdown;
        let filters = offered.parent_filters.iter().map(|offer| &offer.filter);
        let filters: Vec<_> =
            filters.filter(|filter| takes && filter.is::<DynamicFilterPhysicalExpr>()).cloned().collect();
        // Taken as advice: whoever offers a filter must not rely on it.
        let answer = FilterPushdownPropagation::all_unsupported(offered);
        if filters.is_empty() {
            return Ok(answer);
        }
        Ok(answer.with_updated_node(Arc::new(Self {
            filters: self.filters.iter().cloned().chain(filters).collect(),
            ..self.clone()
        })))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.sent.say(format!("{}, not sent", self.sql));
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
