//! Rows are grouped by whole numbers without a hash of each, where they lie close to each other.
//!
//! Statistics say what a column lies between. Where an aggregation reads at least half as many rows as there are numbers
//! between, the place of a number's group is looked up by the number itself ([`DirectGroups`]).

use std::sync::Arc;

use datafusion::common::ColumnStatistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};
use datafusion::scalar::ScalarValue;

use super::direct_groups::DirectGroups;

/// The rule; it comes after all that look for aggregations.
#[derive(Debug)]
pub(crate) struct GroupDirectly;

impl PhysicalOptimizerRule for GroupDirectly {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let direct = plan.downcast_ref::<AggregateExec>().filter(|groups| is_plain(groups));
            let direct = direct.map(directly).transpose()?.flatten();
            Ok(direct.map_or_else(|| Transformed::no(plan), |direct| Transformed::yes(Arc::new(direct) as _)))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "GroupDirectly"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether `groups` hands on what it has of its groups so far, in no order, of functions that do many groups at once.
fn is_plain(groups: &AggregateExec) -> bool {
    *groups.mode() == AggregateMode::Partial
        && groups.group_expr().is_single()
        && *groups.input_order_mode() == InputOrderMode::Linear
        && groups.limit_options().is_none()
        && groups.dynamic_expressions_produced().is_empty()
        && groups.aggr_expr().iter().all(|function| function.groups_accumulator_supported())
}

/// None where the key is no whole number, or rows are few beside what it may be.
fn directly(groups: &AggregateExec) -> Result<Option<DirectGroups>> {
    let [(key, _)] = groups.group_expr().expr() else { return Ok(None) };
    let Some(key) = key.downcast_ref::<Column>() else { return Ok(None) };
    let known = StatisticsContext::new().compute(groups.input().as_ref(), &StatisticsArgs::new())?;
    let rows = known.num_rows.get_value().copied().unwrap_or_default();
    match known.column_statistics.get(key.index()).and_then(between) {
        Some((least, greatest)) if DirectGroups::pays(least, greatest, rows) => {
            DirectGroups::try_new(groups, key.index(), (least, greatest)).map(Some)
        }
        _ => Ok(None),
    }
}

/// What a column of whole numbers is expected to lie between.
pub(super) fn between(known: &ColumnStatistics) -> Option<(i64, i64)> {
    let number = |value: &Precision<ScalarValue>| match value.get_value()? {
        ScalarValue::Int32(number) => number.map(i64::from),
        ScalarValue::Int64(number) => *number,
        ScalarValue::UInt32(number) => number.map(i64::from),
        _ => None,
    };
    Some((number(&known.min_value)?, number(&known.max_value)?))
}
