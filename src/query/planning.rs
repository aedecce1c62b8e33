//! Physical plans, and what DataFusion needs help with.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::prelude::SessionConfig;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Rows of a batch where memory is short: a merge holds one batch of each file that was spilled.
const SORTED_BATCH_ROWS: usize = 512;

/// How equal keys are brought together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joins {
    /// One side is held in memory as a hash table: fast, and unable to spill.
    InMemory,
    /// Both sides are sorted, and sorts spill. Only NOT IN over nulls has no such join and stays in memory.
    Sorting,
}

impl Joins {
    /// The settings that such a plan is made and run with.
    pub(super) fn configured(self, config: SessionConfig) -> SessionConfig {
        match self {
            Self::InMemory => config,
            Self::Sorting => {
                // DataFusion joins by sorting only where it spreads work.
                let partitions = config.target_partitions().max(2);
                let mut config = config.with_target_partitions(partitions).with_batch_size(SORTED_BATCH_ROWS);
                config.options_mut().optimizer.prefer_hash_join = false;
                config
            }
        }
    }
}

/// Statements of this length, in bytes, may be planned for so long that others must not wait for it.
const HEAVY_BYTES: usize = 2 << 10;

/// How much work the planning of a statement may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Light,
    Heavy,
}

impl Weight {
    pub(super) fn of(sql: &str) -> Self {
        if sql.len() < HEAVY_BYTES { Self::Light } else { Self::Heavy }
    }

    /// Runs planning, which never waits but may compute for seconds. While a heavy statement is planned, the other tasks
    /// of its thread go on elsewhere, timers and signals among them.
    pub(super) async fn aside<T>(self, planning: impl Future<Output = T>) -> T {
        let runtime = Handle::current();
        match self == Self::Light || runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            true => planning.await,
            false => block_in_place(|| runtime.block_on(planning)),
        }
    }
}

/// The physical plan. DataFusion 55.2 loses an order now and then while it spreads work over partitions, and
/// then refuses its own plan: what cannot be planned for many is planned for one.
pub(super) async fn physical_plan(
    plan: &LogicalPlan,
    state: &SessionState,
    joins: Joins,
) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = state.config().target_partitions();
    let refused = match state.query_planner().create_physical_plan(plan, state).await {
        Err(error) if partitions > 1 && joins == Joins::InMemory => error,
        other => return other,
    };
    let state = with_partitions(state, 1);
    state.query_planner().create_physical_plan(plan, &state).await.map_err(|_| refused)
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
