//! Plans of one table that is kept here, or of none, with nothing but filters and columns, or with nothing but what is
//! known of all its rows: made without DataFusion's planner, whose rules would come to the same.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::{DFSchema, ScalarValue, Statistics};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, LogicalPlan, Projection, StatisticsArgs, TableScan,
};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::{StatisticsArgs as PlanStatisticsArgs, StatisticsContext};
use datafusion::prelude::SessionConfig;

use crate::acceleration::{AcceleratedTable, rows_read};

/// A thread that is woken for fewer rows has not begun when they would be read: a chunk of a large table or two.
const SMALL_ROWS: usize = 1 << 16;

/// The plan that runs such a statement; none for any other. `plan` is optimised; `config` has the pins of the query.
///
/// # Errors
/// A table that has no rows yet, an expression that cannot be computed.
pub(super) fn plan(plan: &LogicalPlan, config: &SessionConfig) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match plan {
        LogicalPlan::Projection(projection) => match rows(&projection.input, config)? {
            Some(input) => projected(projection, input).map(Some),
            None => Ok(None),
        },
        other => rows(other, config),
    }
}

fn rows(plan: &LogicalPlan, config: &SessionConfig) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match plan {
        LogicalPlan::TableScan(scan) => read(scan, config),
        LogicalPlan::Aggregate(aggregate) => known(aggregate, config),
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema }) => {
            Ok(Some(Arc::new(PlaceholderRowExec::new(Arc::clone(schema.inner())))))
        }
        _ => Ok(None),
    }
}

/// What such a plan runs in: its expressions have their functions already.
pub(super) fn task(config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let session = String::new();
    let (scalar, higher) = (HashMap::new(), HashMap::new());
    let (aggregate, window) = (HashMap::new(), HashMap::new());
    Arc::new(TaskContext::new(None, session, config, scalar, higher, aggregate, window, runtime))
}

/// Whether such a plan reads few rows, or none.
pub(super) fn is_small(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.children().as_slice() {
        [] => rows_read(plan.as_ref()) <= SMALL_ROWS,
        children => children.iter().all(|child| is_small(child)),
    }
}

fn read(scan: &TableScan, config: &SessionConfig) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<AcceleratedTable>() else { return Ok(None) };
    let props = ExecutionProps::new();
    let filters = unnormalize_cols(scan.filters.iter().cloned());
    let rows = table.read(config, &props, scan.projection.as_ref(), &filters, scan.fetch)?;
    Ok(Some(Arc::new(CooperativeExec::new(rows))))
}

/// The one row of aggregates over all rows of a table, where its statistics say them.
fn known(aggregate: &Aggregate, config: &SessionConfig) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let LogicalPlan::TableScan(scan) = aggregate.input.as_ref() else { return Ok(None) };
    if !aggregate.group_expr.is_empty() || !scan.filters.is_empty() || scan.fetch.is_some() {
        return Ok(None);
    }
    let Some(rows) = read(scan, config)? else { return Ok(None) };
    let statistics = StatisticsContext::new().compute(rows.as_ref(), &PlanStatisticsArgs::new())?;
    let values = aggregate.aggr_expr.iter().zip(aggregate.schema.fields()).map(|(expr, field)| {
        let value = value(expr, field.data_type(), aggregate.input.schema(), &statistics)?;
        Ok(value.map(|value| ProjectionExpr { expr: lit(value), alias: field.name().clone() }))
    });
    let Some(values) = values.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
    let row = Arc::new(PlaceholderRowExec::new(Arc::clone(aggregate.schema.inner())));
    Ok(Some(Arc::new(ProjectionExec::try_new(values, row)?)))
}

/// What a plain call of an aggregate function comes to, where `statistics` of its input tell.
fn value(
    expr: &Expr,
    kind: &DataType,
    columns: &DFSchema,
    statistics: &Statistics,
) -> Result<Option<ScalarValue>> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return Ok(None) };
    if params.distinct || params.filter.is_some() || !params.order_by.is_empty() {
        return Ok(None);
    }
    let (props, queries) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let arguments = params.args.iter().map(|expr| create_physical_expr(expr, columns, &props, &queries));
    let arguments = arguments.collect::<Result<Vec<_>>>()?;
    let asked = StatisticsArgs { statistics, return_type: kind, is_distinct: false, exprs: &arguments };
    Ok(func.value_from_stats(&asked))
}

fn projected(projection: &Projection, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let (columns, props) = (projection.input.schema(), ExecutionProps::new());
    let queries = PhysicalPlanningContext::default();
    let names = projection.schema.fields().iter().map(|field| field.name().clone());
    let exprs = projection.expr.iter().zip(names).map(|(expr, alias)| {
        Ok(ProjectionExpr { expr: create_physical_expr(expr, columns, &props, &queries)?, alias })
    });
    Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Result<Vec<_>>>()?, input)?))
}
