//! The first half of an aggregation whose one key is a whole number: its group is found at the place that it names.
//!
//! What it puts out is what DataFusion's own first half does: keys and states, to be merged by the second. Where memory
//! ends, the groups so far are put out and others begun; where hardly two rows share a group, rows are handed on one by
//! one.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::execution_plan::apply_expression_roots;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use futures::TryStreamExt;

use super::direct_places::Places;

/// With more places than this for each row, the memory that they take costs more than they save.
const PLACES_PER_ROW: usize = 2;

/// The first half of an aggregation by one column of whole numbers.
#[derive(Debug, Clone)]
pub(super) struct DirectGroups {
    input: Arc<dyn ExecutionPlan>,
    /// The column of the input that rows are grouped by, and what it is expected to lie between.
    key: usize,
    between: (i64, i64),
    functions: Vec<Function>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// An aggregate function with what it reads.
#[derive(Debug, Clone)]
struct Function {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl DirectGroups {
    /// Whether so many rows are worth a place for each number.
    pub(super) fn pays(least: i64, greatest: i64, rows: usize) -> bool {
        Places::count(least, greatest).is_some_and(|places| places <= rows.saturating_mul(PLACES_PER_ROW))
    }

    /// What `groups`, a first half, does with its input. Its key is the column at `key`.
    ///
    /// # Errors
    /// None that is known: its functions were planned before.
    pub(super) fn try_new(groups: &AggregateExec, key: usize, between: (i64, i64)) -> Result<Self> {
        let arguments = aggregate_expressions(groups.aggr_expr(), &AggregateMode::Partial, 0)?;
        let functions = groups.aggr_expr().iter().zip(arguments).zip(groups.filter_expr());
        let functions = functions.map(|((function, arguments), filter)| Function {
            function: Arc::clone(function),
            arguments,
            filter: filter.clone(),
        });
        Ok(Self {
            input: Arc::clone(groups.input()),
            key,
            between,
            functions: functions.collect(),
            properties: Arc::clone(groups.properties()),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for DirectGroups {
    fn fmt_as(&self, _kind: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.properties.eq_properties.schema().field(0).name();
        let functions: Vec<&str> = self.functions.iter().map(|function| function.function.name()).collect();
        write!(out, "DirectGroups: gby=[{key}], aggr=[{}]", functions.join(", "))
    }
}

impl ExecutionPlan for DirectGroups {
    fn name(&self) -> &'static str {
        "DirectGroups"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let read =
            self.functions.iter().flat_map(|function| function.arguments.iter().chain(&function.filter));
        apply_expression_roots(read, visit)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("DirectGroups has one input".to_owned()))?;
        Ok(Arc::new(Self { input, ..Arc::unwrap_or_clone(self) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let grouping = Grouping::try_new(self, partition, &context)?;
        let input = self.input.execute(partition, context)?;
        let rows = futures::stream::try_unfold((input, grouping), |(mut input, mut grouping)| async move {
            Ok(grouping.next(&mut input).await?.map(|batch| (batch, (input, grouping))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Groups of one partition.
struct Grouping {
    schema: SchemaRef,
    key: usize,
    functions: Vec<(Function, Box<dyn GroupsAccumulator>)>,
    places: Places,
    /// The group of each row of a batch; kept for its room.
    groups: Vec<usize>,
    seen: Seen,
    output: Output,
    room: MemoryReservation,
    metrics: BaselineMetrics,
}

/// What tells whether groups are worth it.
struct Seen {
    rows: usize,
    /// So many rows tell enough, ...
    enough: usize,
    /// ... where more than this share of them are groups.
    share: f64,
    /// Whether rows are handed on one by one from now on.
    hands_on: bool,
}

/// What is done and not yet put out.
struct Output {
    batch: Option<RecordBatch>,
    rows: usize,
    ended: bool,
}

impl Grouping {
    fn try_new(plan: &DirectGroups, partition: usize, context: &TaskContext) -> Result<Self> {
        let accumulator =
            |function: &Function| Ok((function.clone(), function.function.create_groups_accumulator()?));
        let execution = &context.session_config().options().execution;
        let consumer = MemoryConsumer::new(format!("DirectGroups[{partition}]"));
        let (least, greatest) = plan.between;
        Ok(Self {
            schema: plan.schema(),
            key: plan.key,
            functions: plan.functions.iter().map(accumulator).collect::<Result<_>>()?,
            places: Places::new(least, greatest),
            groups: Vec::new(),
            seen: Seen {
                rows: 0,
                enough: execution.skip_partial_aggregation_probe_rows_threshold,
                share: execution.skip_partial_aggregation_probe_ratio_threshold,
                hands_on: false,
            },
            output: Output { batch: None, rows: execution.batch_size.get(), ended: false },
            room: consumer.register(context.memory_pool()),
            metrics: BaselineMetrics::new(&plan.metrics, partition),
        })
    }

    async fn next(&mut self, input: &mut SendableRecordBatchStream) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.output.next() {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.output.ended {
                return Ok(None);
            }
            let next = input.try_next().await?;
            let timer = self.metrics.elapsed_compute().clone();
            let _timer = timer.timer();
            match next {
                Some(batch) => self.take(&batch)?,
                None => {
                    self.output.ended = true;
                    self.emit()?;
                }
            }
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.seen.hands_on {
            return self.hand_on(batch);
        }
        self.groups.clear();
        self.places.groups_of(batch.column(self.key), &mut self.groups)?;
        let all = self.places.groups();
        for (function, accumulator) in &mut self.functions {
            let (values, filter) = function.read(batch)?;
            accumulator.update_batch(&values, &self.groups, filter.as_ref(), all)?;
        }
        self.seen.rows += batch.num_rows();
        if self.room.try_resize(self.size()).is_err() {
            self.emit()?;
            self.room.try_resize(self.size())?;
        }
        if self.seen.is_enough(all) {
            self.seen.hands_on = true;
            self.emit()?;
            self.places = Places::new(0, -1);
            self.room.try_resize(self.size())?;
        }
        Ok(())
    }

    /// Each row as a group of its own.
    fn hand_on(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut columns = vec![Arc::clone(batch.column(self.key))];
        for (function, accumulator) in &self.functions {
            let (values, filter) = function.read(batch)?;
            columns.extend(accumulator.convert_to_state(&values, filter.as_ref())?);
        }
        self.output.batch = Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }

    /// All groups so far, and none is left.
    fn emit(&mut self) -> Result<()> {
        if self.places.groups() == 0 {
            return Ok(());
        }
        let mut columns = vec![self.places.take(self.schema.field(0).data_type())?];
        for (_, accumulator) in &mut self.functions {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        self.output.batch = Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }

    fn size(&self) -> usize {
        let states: usize = self.functions.iter().map(|(_, accumulator)| accumulator.size()).sum();
        self.places.size() + self.groups.capacity() * size_of::<usize>() + states
    }
}

impl Function {
    /// Its arguments for the rows of `batch`, and which of them it takes.
    fn read(&self, batch: &RecordBatch) -> Result<(Vec<ArrayRef>, Option<BooleanArray>)> {
        let array = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let values = self.arguments.iter().map(array).collect::<Result<_>>()?;
        let filter = self.filter.as_ref().map(array).transpose()?;
        Ok((values, filter.map(|filter| filter.as_boolean().clone())))
    }
}

impl Seen {
    fn is_enough(&self, groups: usize) -> bool {
        self.rows >= self.enough && groups as f64 > self.rows as f64 * self.share
    }
}

impl Output {
    /// At most so many rows at once.
    fn next(&mut self) -> Option<RecordBatch> {
        let batch = self.batch.take()?;
        if batch.num_rows() <= self.rows {
            return Some(batch);
        }
        self.batch = Some(batch.slice(self.rows, batch.num_rows() - self.rows));
        Some(batch.slice(0, self.rows))
    }
}
