//! Brings together, in a plan over several upstreams, what one upstream can answer alone.
//!
//! An optimised logical plan enters, one that gives the same rows leaves: inner joins regrouped by where
//! their inputs live, and the first rows of a UNION ALL asked of each branch. It only arranges: what is
//! sent, and whether it may be, is decided elsewhere.

mod joins;
#[cfg(test)]
mod tests;
mod top;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

/// The upstream that a scan's table lives on, by any id; `None` for a table that is only here.
pub(super) type Homes<'a, H> = dyn Fn(&TableScan) -> Option<H> + 'a;

/// Arranges `plan`, subqueries included. Its schema stays; among rows that ORDER BY calls equal, LIMIT may
/// choose others. To arrange twice is to arrange once.
///
/// # Errors
/// An expression whose columns its input does not have: a plan that was wrong before.
pub(super) fn arrange<H: PartialEq>(
    plan: LogicalPlan,
    homes: &Homes<'_, H>,
) -> Result<Transformed<LogicalPlan>> {
    let mut is_regrouped = false;
    let arranged = plan.transform_up_with_subqueries(|node| {
        let arranged = match &node {
            LogicalPlan::Join(join) => {
                let regrouped = joins::regrouped(join, homes)?;
                is_regrouped |= regrouped.is_some();
                regrouped
            }
            LogicalPlan::Sort(sort) => top::shared(sort, homes)?,
            _ => None,
        };
        Ok(arranged.map_or_else(|| Transformed::no(node), Transformed::yes))
    })?;
    // Joins moved, and with them the places where columns may be dropped: what a join of one upstream
    // gives is what it sends.
    arranged.transform_data(|plan| match is_regrouped {
        true => OptimizeProjections::new().rewrite(plan, &OptimizerContext::new()),
        false => Ok(Transformed::no(plan)),
    })
}

/// The upstream on which all of `plan` lives, if there is one.
fn home_of<H: PartialEq>(plan: &LogicalPlan, homes: &Homes<'_, H>) -> Result<Option<H>> {
    let (mut home, mut is_whole) = (None, true);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => match (homes(scan), &home) {
                (Some(found), None) => home = Some(found),
                (Some(found), Some(known)) if found == *known => {}
                _ => is_whole = false,
            },
            // Rows that are made here: VALUES, an empty relation, a node of somebody else.
            other => is_whole &= !other.inputs().is_empty(),
        }
        Ok(if is_whole { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(home.filter(|_| is_whole))
}
