//! What the smaller side of a join has for keys, known to the scan of the larger one before it reads the rest of a row.
//!
//! DataFusion does this too: it asks each row's key of the join's own hash table, which costs as much as the join. Here
//! keys are whole numbers that lie between what the chunks' statistics say, so that a bit for each of them is enough; and
//! each key of several is looked at alone, which reaches scans below other joins.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, replace_children_if_necessary};

use super::key_tap::{KeyTap, Keys};
use super::origin::origin;
use super::scan::ChunkScan;

type Plan = Arc<dyn ExecutionPlan>;

/// The rule; it comes after all that look for scans below joins.
#[derive(Debug)]
pub(crate) struct JoinKeys;

impl PhysicalOptimizerRule for JoinKeys {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        if !config.optimizer.enable_join_dynamic_filter_pushdown {
            return Ok(plan);
        }
        plan.transform_up(|plan| {
            let tapped = plan.downcast_ref::<HashJoinExec>().map(|join| tapped(join, &plan)).transpose()?;
            Ok(tapped.flatten().map_or_else(|| Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "JoinKeys"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same join with its keys shown to scans of its probe side. None where there is none to show them to.
fn tapped(join: &HashJoinExec, plan: &Plan) -> Result<Option<Plan>> {
    if !drops_the_unmatched(join) || *join.partition_mode() != PartitionMode::CollectLeft {
        return Ok(None);
    }
    let filters = join.dynamic_expressions_produced();
    // What DataFusion says of a single key is the same.
    let same = filters.first().filter(|_| join.on().len() == 1).and_then(|filter| filter.expression_id());
    let mut right = Arc::clone(join.right());
    let mut taps = Vec::new();
    for (key, probe) in join.on() {
        let columns = key.downcast_ref::<Column>().zip(probe.downcast_ref::<Column>());
        let Some((key, probe)) = columns else { continue };
        if let Some((sifted, keys)) = sifted(&right, probe.index(), key.name(), same)? {
            right = sifted;
            taps.push((key.index(), keys));
        }
    }
    if taps.is_empty() {
        return Ok(None);
    }
    let left = Arc::new(KeyTap::new(Arc::clone(join.left()), taps));
    replace_children_if_necessary(Arc::clone(plan), vec![left, right]).map(Some)
}

/// Whether a row of the right side that equals none of the left leaves no trace.
fn drops_the_unmatched(join: &HashJoinExec) -> bool {
    let (_, drops) = join.join_type().on_lr_is_preserved();
    drops && join.null_equality() == NullEquality::NullEqualsNothing && !join.null_aware
}

/// `plan` with a scan that asks keys called `name` of its column that the column at `at` is, and those keys.
fn sifted(plan: &Plan, at: usize, name: &str, same: Option<u64>) -> Result<Option<(Plan, Arc<Keys>)>> {
    if plan.fetch().is_some() {
        return Ok(None);
    }
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let sifted = scan.among_keys(at, name, same)?;
        return Ok(sifted.map(|(scan, keys)| (Arc::new(scan) as Plan, keys)));
    }
    let Some((nth, column)) = below(plan, at) else { return Ok(None) };
    let mut children: Vec<Plan> = plan.children().into_iter().cloned().collect();
    let Some((child, keys)) = sifted(&children[nth], column, name, same)? else { return Ok(None) };
    children[nth] = child;
    Ok(Some((replace_children_if_necessary(Arc::clone(plan), children)?, keys)))
}

/// Which column of which child the column at `at` is, where rows of the child with other values have no part in the rows
/// of `plan` with this value.
fn below(plan: &Plan, at: usize) -> Option<(usize, usize)> {
    let of_expr = |expr: &Arc<dyn PhysicalExpr>| Some(expr.downcast_ref::<Column>()?.index());
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return Some((0, of_expr(&projection.expr().get(at)?.expr)?));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return side(join, at);
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return Some((0, filter.projection().as_ref().map_or(Some(at), |outputs| outputs.get(at).copied())?));
    }
    if let Some(groups) = plan.downcast_ref::<AggregateExec>() {
        let keys = groups.group_expr();
        let whole = keys.is_single() && groups.limit_options().is_none();
        return Some((0, of_expr(&keys.expr().get(at).filter(|_| whole)?.0)?));
    }
    let passes = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<KeyTap>();
    passes.then_some((0, at))
}

/// The side that a column of a join comes from, where no row of that side can be missed for another key's sake.
fn side(join: &HashJoinExec, at: usize) -> Option<(usize, usize)> {
    let (side, column) = origin(join, at)?;
    let is_missed = match join.join_type() {
        JoinType::Left => side == JoinSide::Right,
        JoinType::Right => side == JoinSide::Left,
        JoinType::Full => true,
        // With a side that has no row at all, NOT IN answers other rows.
        _ => join.null_aware,
    };
    (!is_missed).then_some((usize::from(side == JoinSide::Right), column))
}
