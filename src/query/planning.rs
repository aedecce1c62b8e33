//! Physical plans, and what DataFusion needs help with.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;

/// How equal keys are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joins {
    /// One side is held in memory as a hash table: fast, and unable to spill.
    InMemory,
    /// Both sides are sorted, and sorts spill. Only NOT IN over nulls has no such join and stays in memory.
    Sorting,
}

/// The physical plan. DataFusion 55.2 loses an order now and then while it spreads work over partitions, and
/// then refuses its own plan: what cannot be planned for many is planned for one.
pub(super) async fn physical_plan(
    plan: &LogicalPlan,
    state: &SessionState,
    joins: Joins,
) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = state.config().target_partitions();
    match joins {
        Joins::InMemory => {
            let refused = match state.query_planner().create_physical_plan(plan, state).await {
                Err(error) if partitions > 1 => error,
                other => return other,
            };
            let state = with_partitions(state, 1);
            state.query_planner().create_physical_plan(plan, &state).await.map_err(|_| refused)
        }
        Joins::Sorting => {
            // DataFusion joins by sorting only where it spreads work.
            let mut state = with_partitions(state, partitions.max(2));
            state.config_mut().options_mut().optimizer.prefer_hash_join = false;
            state.query_planner().create_physical_plan(plan, &state).await
        }
    }
}

/// Whether a join of the plan holds a side in memory.
pub(super) fn is_joining_in_memory(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut found = false;
    // The visitor cannot fail.
    let _ = plan.apply(|node| {
        found |= node.downcast_ref::<HashJoinExec>().is_some();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

fn with_partitions(state: &SessionState, partitions: usize) -> SessionState {
    let config = state.config().clone().with_target_partitions(partitions);
    SessionStateBuilder::new_from_existing(state.clone()).with_config(config).build()
}
