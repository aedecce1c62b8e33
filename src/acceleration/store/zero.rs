//! `on_zero_results: use_source`: where no row is here, the source is asked the same.
//!
//! Both sides are filtered before they are looked at. The local rows are read in all partitions at once and joined in
//! one stream, because only together they can be none; the source is not asked before they have ended.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::{conjunction, expr_to_columns};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

/// A table that is kept here, and who answers a scan for which it has no row.
#[derive(Debug)]
pub(crate) struct OrSource {
    local: Arc<dyn TableProvider>,
    source: Arc<dyn Source>,
}

/// Where a table's rows come from.
#[async_trait]
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// The table as it is known now; nothing is asked of it before it is scanned.
    ///
    /// # Errors
    /// It was never reached.
    async fn table(&self) -> Result<Arc<dyn TableProvider>>;
}

/// What a scan asks of both sides.
struct Ask {
    schema: SchemaRef,
    /// Positions in the table of what is selected, and of what is only filtered by.
    columns: Vec<usize>,
    /// How many of them are selected.
    selected: usize,
    filter: Option<Expr>,
}

/// Yields the local rows or, when there are none, the source's.
#[derive(Debug)]
struct ZeroResults {
    local: Arc<dyn ExecutionPlan>,
    source: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

/// Stands for a source that cannot answer, and says why when it is asked.
#[derive(Debug)]
struct Silent {
    reason: String,
    properties: Arc<PlanProperties>,
}

impl OrSource {
    #[must_use]
    pub(crate) fn new(local: Arc<dyn TableProvider>, source: Arc<dyn Source>) -> Self {
        Self { local, source }
    }
}

#[async_trait]
impl TableProvider for OrSource {
    fn schema(&self) -> SchemaRef {
        self.local.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Whether there are rows is decided after the filters, so they are applied here.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ask = Ask::of(&self.schema(), projection, filters)?;
        let local = self.local.scan(state, Some(&ask.columns), filters, None).await?;
        let source = match self.source.table().await {
            Ok(table) => ask.of_source(table.as_ref(), state, filters).await,
            Err(error) => Err(error),
        };
        ask.either(state, local, source)
    }
}

impl Ask {
    /// # Errors
    /// When a filter names a column that the table does not have.
    fn of(schema: &SchemaRef, projection: Option<&Vec<usize>>, filters: &[Expr]) -> Result<Self> {
        let mut columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let selected = columns.len();
        let mut named = std::collections::HashSet::new();
        filters.iter().try_for_each(|filter| expr_to_columns(filter, &mut named))?;
        for column in named {
            let at = schema.index_of(&column.name)?;
            if !columns.contains(&at) {
                columns.push(at);
            }
        }
        // `named` is in no order; plans are.
        columns[selected..].sort_unstable();
        let filter = conjunction(filters.iter().cloned());
        let schema = Arc::new(schema.project(&columns)?);
        Ok(Self { schema, columns, selected, filter })
    }

    /// The same columns of `source`, by their names: `refresh_sql` may have chosen and ordered them anew.
    ///
    /// # Errors
    /// When it does not have one of them, or has it in another type; when it cannot be scanned.
    async fn of_source(
        &self,
        source: &dyn TableProvider,
        state: &dyn Session,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = source.schema();
        let mut columns = Vec::with_capacity(self.columns.len());
        for wanted in self.schema.fields() {
            match schema.column_with_name(wanted.name()) {
                Some((at, given)) if given.data_type() == wanted.data_type() => columns.push(at),
                Some((_, given)) => {
                    let (name, held) = (wanted.name(), wanted.data_type());
                    return plan_err!(
                        "its column `{name}` is of type {}, here of type {held}",
                        given.data_type()
                    );
                }
                None => return plan_err!("it has no column `{}`", wanted.name()),
            }
        }
        source.scan(state, Some(&columns), filters, None).await
    }

    /// A source that cannot answer fails the query only where it is asked.
    ///
    /// # Errors
    /// When the filter does not fit.
    fn either(
        &self,
        state: &dyn Session,
        local: Arc<dyn ExecutionPlan>,
        source: Result<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let local = self.narrowed(state, local)?;
        let source = match source {
            Ok(source) => self.narrowed(state, source)?,
            Err(error) => Arc::new(Silent::new(local.schema(), &error)),
        };
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(local.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Arc::new(ZeroResults { local, source, properties }))
    }

    /// Filtered, without the columns that only the filter needed, in one partition.
    fn narrowed(&self, state: &dyn Session, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plan = input;
        if let Some(filter) = &self.filter {
            let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            let filter = state.create_physical_expr(filter.clone(), &schema)?;
            plan = Arc::new(FilterExecBuilder::new(filter, plan).build()?);
        }
        if self.selected < self.columns.len() {
            let column = |at: usize| {
                let name = self.schema.field(at).name();
                (Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>, name.clone())
            };
            plan = Arc::new(ProjectionExec::try_new((0..self.selected).map(column), plan)?);
        }
        Ok(Arc::new(CoalescePartitionsExec::new(plan)))
    }
}

impl Silent {
    fn new(schema: SchemaRef, error: &DataFusionError) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { reason: error.strip_backtrace(), properties }
    }
}

impl DisplayAs for Silent {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Silent: the source cannot answer: {}", self.reason)
    }
}

impl ExecutionPlan for Silent {
    fn name(&self) -> &'static str {
        "Silent"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        exec_err!("no row is held, and the source cannot be asked: {}", self.reason)
    }
}

impl DisplayAs for ZeroResults {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZeroResults: the first input, or the second where it has no row")
    }
}

impl ExecutionPlan for ZeroResults {
    fn name(&self) -> &'static str {
        "ZeroResults"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.local, &self.source]
    }

    /// More partitions below one that joins them would only be joined again.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [local, source] = <[_; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("ZeroResults has two inputs".to_owned()))?;
        Ok(Arc::new(Self { local, source, properties: Arc::clone(&self.properties) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let mut local = joined(&self.local, partition, &context)?;
        let source = Arc::clone(&self.source);
        let rows = async move {
            while let Some(batch) = local.try_next().await? {
                if batch.num_rows() > 0 {
                    return Ok(futures::stream::iter([Ok(batch)]).chain(local).boxed());
                }
            }
            tracing::debug!("no row is held, the source is asked");
            Ok::<_, DataFusionError>(joined(&source, partition, &context)?.boxed())
        };
        let rows = futures::stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// All partitions of a side: the optimiser may have taken away what joined them.
fn joined(
    side: &Arc<dyn ExecutionPlan>,
    partition: usize,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    match side.properties().output_partitioning().partition_count() {
        1 => side.execute(partition, Arc::clone(context)),
        _ => CoalescePartitionsExec::new(Arc::clone(side)).execute(partition, Arc::clone(context)),
    }
}
