//! Joins that would wait for a partition that nobody reads give up their filter.
//!
//! A hash join with a dynamic filter reads no probe side before each of its partitions has been polled once.
//! A partitioned join above it, one of whose partitions has an empty build side, ends that partition without
//! polling what is below: then the other partitions wait forever (DataFusion 55 has no report for that). Such a
//! join runs as it does without filters: it reads its probe side whole.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};

use super::RemoteScan;

type Plan = Arc<dyn ExecutionPlan>;

/// The rule; it comes after those that hand out filters.
#[derive(Debug)]
pub(in crate::federation) struct WaitForNobody;

impl PhysicalOptimizerRule for WaitForNobody {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        relieved(plan, Reading::Every)
    }

    fn name(&self) -> &'static str {
        "WaitForNobody"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Which partitions of a node are polled, as long as the answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Every,
    /// One may be left out while others are waited for.
    Some,
}

fn relieved(plan: Plan, reading: Reading) -> Result<Plan> {
    let plan = match plan.downcast_ref::<HashJoinExec>() {
        Some(join) if reading == Reading::Some => without_filter(join, &plan)?,
        _ => plan,
    };
    let mut children = Vec::new();
    for (at, child) in plan.children().into_iter().enumerate() {
        children.push(relieved(Arc::clone(child), below(&plan, at, child, reading))?);
    }
    replace_children_if_necessary(plan, children)
}

/// How a node that is read so reads its child.
fn below(plan: &Plan, at: usize, child: &Plan, reading: Reading) -> Reading {
    let reads_all = plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>();
    // Of one partition none is left out while others wait.
    if reads_all || child.output_partitioning().partition_count() == 1 {
        return Reading::Every;
    }
    match plan.downcast_ref::<HashJoinExec>() {
        // The build side comes first; what is in it decides whether the probe side of a partition is read.
        Some(join) if *join.partition_mode() == PartitionMode::Partitioned && at == 1 => Reading::Some,
        // What was collected is the same for all partitions: all of them read the probe side, or none.
        Some(_) => reading,
        None if plan.children().len() == 1 || plan.is::<UnionExec>() => reading,
        None => Reading::Some,
    }
}

/// The join without its dynamic filter, and the scans that waited for it without it.
fn without_filter(join: &HashJoinExec, plan: &Plan) -> Result<Plan> {
    let filters = join.dynamic_expressions_produced();
    let Some(id) = filters.first().and_then(|filter| filter.expression_id()) else {
        return Ok(Arc::clone(plan));
    };
    let children = join.children().into_iter().map(|child| without_key(Arc::clone(child), id));
    let children = children.collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(Arc::clone(plan).reset_state()?, children)
}

/// No scan of `plan` takes the filter called `id` any more.
fn without_key(plan: Plan, id: u64) -> Result<Plan> {
    if let Some(scan) = plan.downcast_ref::<RemoteScan>() {
        return Ok(Arc::new(scan.clone().without_filter(id)));
    }
    let children = plan.children().into_iter().map(|child| without_key(Arc::clone(child), id));
    let children = children.collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(plan, children)
}
