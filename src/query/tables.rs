//! A plan and the tables that it reads, apart: who keeps a plan must not keep rows.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{LogicalPlan, TableScan, TableSource};

/// The plan over tables that have nothing but their columns, and its tables in the order in which it is walked.
///
/// # Errors
/// A table that is none of the catalog's.
pub(super) fn taken_out(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Arc<dyn TableProvider>>)> {
    let mut tables = Vec::new();
    let plan = over(plan, |source| {
        tables.push(source_as_provider(source)?);
        Ok(Arc::new(LogicalTableSource::new(source.schema())))
    })?;
    Ok((plan, tables))
}

/// The plan over `tables`, in that order.
///
/// # Errors
/// Fewer tables than the plan reads.
pub(super) fn put_back(
    plan: LogicalPlan,
    tables: impl IntoIterator<Item = Arc<dyn TableProvider>>,
) -> Result<LogicalPlan> {
    let mut tables = tables.into_iter();
    over(plan, |_| {
        let table = tables.next().ok_or_else(|| internal_datafusion_err!("a plan with more tables"))?;
        Ok(provider_as_source(table))
    })
}

/// The plan with another source for each of its tables.
fn over(
    plan: LogicalPlan,
    mut other: impl FnMut(&Arc<dyn TableSource>) -> Result<Arc<dyn TableSource>>,
) -> Result<LogicalPlan> {
    let plan = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let source = other(&scan.source)?;
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    });
    plan.data()
}
