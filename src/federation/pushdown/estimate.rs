//! About how many rows a subtree gives, from the row counts of its tables: what decides which side of a join
//! is built. A wrong guess makes a join slower, never wrong.

use datafusion::logical_expr::{Aggregate, Join, JoinType, LogicalPlan, TableScan};

use super::form::limits;
use super::home;

/// Of a hundred rows so many groups are guessed, where nothing is known of the columns.
const GROUPS_PERCENT: usize = 10;

/// `None` where a table was never counted. `selectivity`: of a hundred rows a filter keeps so many.
pub(super) fn rows(plan: &LogicalPlan, selectivity: usize) -> Option<usize> {
    let below = |plan: &LogicalPlan| rows(plan, selectivity);
    match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan, selectivity),
        LogicalPlan::Filter(node) => Some(percent(below(&node.input)?, selectivity)),
        LogicalPlan::Join(node) => of_join(node, selectivity),
        LogicalPlan::Aggregate(node) => of_aggregate(node, below(&node.input)?),
        LogicalPlan::Distinct(_) => Some(percent(below(plan.inputs().first()?)?, GROUPS_PERCENT)),
        LogicalPlan::Sort(node) => Some(at_most(below(&node.input)?, node.fetch)),
        LogicalPlan::Limit(node) => Some(at_most(below(&node.input)?, limits(node).ok()?.1)),
        LogicalPlan::Union(node) => node.inputs.iter().map(|input| below(input)).sum(),
        LogicalPlan::Values(node) => Some(node.values.len()),
        LogicalPlan::EmptyRelation(node) => Some(usize::from(node.produce_one_row)),
        other => match other.inputs().as_slice() {
            [input] => below(input),
            _ => None,
        },
    }
}

fn of_scan(scan: &TableScan, selectivity: usize) -> Option<usize> {
    let all = usize::try_from(home::remote_table(scan)?.rows()?).ok()?;
    let kept = if scan.filters.is_empty() { all } else { percent(all, selectivity) };
    Some(at_most(kept, scan.fetch))
}

/// Keys are mostly one row's on one side: the bigger side says how many rows match.
fn of_join(node: &Join, selectivity: usize) -> Option<usize> {
    let (left, right) = (rows(&node.left, selectivity), rows(&node.right, selectivity));
    match node.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => Some(left?.max(right?)),
        JoinType::LeftSemi | JoinType::LeftAnti => Some(percent(left?, selectivity)),
        JoinType::RightSemi | JoinType::RightAnti => Some(percent(right?, selectivity)),
        JoinType::LeftMark => left,
        JoinType::RightMark => right,
    }
}

fn of_aggregate(node: &Aggregate, input: usize) -> Option<usize> {
    Some(if node.group_expr.is_empty() { 1 } else { percent(input, GROUPS_PERCENT) })
}

fn percent(rows: usize, percent: usize) -> usize {
    rows.saturating_mul(percent).div_ceil(100)
}

fn at_most(rows: usize, limit: Option<usize>) -> usize {
    limit.map_or(rows, |limit| rows.min(limit))
}
