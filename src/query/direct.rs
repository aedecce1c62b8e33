//! Plans of one table that is kept here, or of none, with nothing but filters and columns: made without DataFusion's
//! planner, whose rules would leave them as they are.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{EmptyRelation, LogicalPlan, Projection, TableScan};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::SessionConfig;

use crate::acceleration::AcceleratedTable;

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

fn read(scan: &TableScan, config: &SessionConfig) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<AcceleratedTable>() else { return Ok(None) };
    let props = ExecutionProps::new();
    let filters = unnormalize_cols(scan.filters.iter().cloned());
    let rows = table.read(config, &props, scan.projection.as_ref(), &filters, scan.fetch)?;
    Ok(Some(Arc::new(CooperativeExec::new(rows))))
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
