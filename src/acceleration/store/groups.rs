//! Rows are grouped by numbers where they were to be grouped by texts that are kept as codes.
//!
//! A text is hashed and compared row by row, although a chunk has few different ones. Where an aggregation groups by
//! columns of kept tables that nothing else on the way looks at, the scans read them as numbers ([`Numbered`]), and the
//! groups, which are few, get their texts back.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    ExecutionPlan, InputOrderMode, Partitioning, PhysicalExpr, replace_children_if_necessary,
};

use super::numbered::Numbered;
use super::origin::origin;
use super::scan::ChunkScan;
use super::text_of::TextOf;

type Plan = Arc<dyn ExecutionPlan>;

/// The rule; it comes after all that look at what a column is.
#[derive(Debug)]
pub(crate) struct GroupByNumbers;

impl PhysicalOptimizerRule for GroupByNumbers {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        plan.transform_up(|plan| {
            let numbered = match plan.downcast_ref::<AggregateExec>() {
                Some(groups) if is_plain(groups) => by_numbers(groups)?,
                _ => None,
            };
            Ok(numbered.map_or_else(|| Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "GroupByNumbers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether `groups` reads rows, and neither in an order nor with an eye on how its keys compare.
fn is_plain(groups: &AggregateExec) -> bool {
    matches!(groups.mode(), AggregateMode::Partial | AggregateMode::Single)
        && groups.group_expr().is_single()
        && *groups.input_order_mode() == InputOrderMode::Linear
        && groups.limit_options().is_none()
        && groups.dynamic_expressions_produced().is_empty()
}

/// A column that rows are grouped by, and where it comes from.
struct Key<'a> {
    /// Its position among the keys.
    nth: usize,
    scan: &'a ChunkScan,
    /// Its position in the scan.
    output: usize,
}

/// Keys of one scan that one number stands for.
struct Set<'a> {
    scan: &'a ChunkScan,
    /// Their positions, in the order of the parts.
    keys: Vec<usize>,
    numbered: Numbered,
}

/// None where no key can be a number.
fn by_numbers(groups: &AggregateExec) -> Result<Option<Plan>> {
    let sets = sets(&keys(groups));
    if sets.is_empty() {
        return Ok(None);
    }
    let input = read_by_numbers(Arc::clone(groups.input()), &sets)?;
    let numbers = PhysicalGroupBy::new_single(numbers(groups, &sets));
    let grouped = AggregateExec::try_new(
        *groups.mode(),
        numbers,
        groups.aggr_expr().to_vec(),
        groups.filter_expr().to_vec(),
        Arc::clone(&input),
        input.schema(),
    )?;
    let texts = ProjectionExec::try_new(texts(groups, &sets, &grouped.schema()), Arc::new(grouped))?;
    // What is above was made for the very same columns.
    Ok((texts.schema() == groups.schema()).then(|| Arc::new(texts) as Plan))
}

/// The keys that are texts of a scan, and nothing else.
fn keys(groups: &AggregateExec) -> Vec<Key<'_>> {
    let own = groups.group_expr().expr();
    let mut uses: Vec<usize> = own.iter().flat_map(|(expr, _)| positions(expr)).collect();
    for function in groups.aggr_expr() {
        let read = function.all_expressions();
        uses.extend(read.args.iter().chain(&read.order_by_exprs).flat_map(positions));
    }
    uses.extend(groups.filter_expr().iter().flatten().flat_map(positions));
    let key = |(nth, (expr, _)): (usize, &(Arc<dyn PhysicalExpr>, String))| {
        let at = expr.downcast_ref::<Column>()?.index();
        if uses.iter().filter(|used| **used == at).count() > 1 {
            return None;
        }
        let (scan, output) = source(groups.input(), at)?;
        Some(Key { nth, scan, output })
    };
    let keys = own.iter().enumerate().filter_map(key);
    // A scan that stands at two places of the plan is read the same way at both.
    keys.filter(|key| times(groups.input(), key.scan) == 1).collect()
}

fn positions(expr: &Arc<dyn PhysicalExpr>) -> impl Iterator<Item = usize> + use<> {
    collect_columns(expr).into_iter().map(|column| column.index())
}

fn times(plan: &Plan, scan: &ChunkScan) -> usize {
    match plan.downcast_ref::<ChunkScan>() {
        Some(other) => usize::from(std::ptr::eq(other, scan)),
        None => plan.children().into_iter().map(|child| times(child, scan)).sum(),
    }
}

/// The scan that a column of `plan` is read by, and the column's position in it, where nothing between looks at it.
fn source(plan: &Plan, at: usize) -> Option<(&ChunkScan, usize)> {
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        return (!scan.is_numbered()).then_some((scan, at));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let column = projection.expr().get(at)?.expr.downcast_ref::<Column>()?.index();
        let uses = projection.expr().iter().flat_map(|expr| positions(&expr.expr));
        return match uses.filter(|used| *used == column).count() {
            1 => source(projection.input(), column),
            _ => None,
        };
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let (side, column) = side(join, at)?;
        return source(if side == JoinSide::Left { join.left() } else { join.right() }, column);
    }
    if let Some(spread) = plan.downcast_ref::<RepartitionExec>() {
        return match spread.partitioning() {
            Partitioning::RoundRobinBatch(_) => source(spread.input(), at),
            Partitioning::Hash(by, _) if by.iter().all(|expr| positions(expr).all(|used| used != at)) => {
                source(spread.input(), at)
            }
            _ => None,
        };
    }
    let input = plan.downcast_ref::<CoalescePartitionsExec>().map(CoalescePartitionsExec::input);
    source(input.or_else(|| plan.downcast_ref::<CooperativeExec>().map(CooperativeExec::input))?, at)
}

/// Which side of a join a column of its output comes from, where the join does not look at it and adds no NULLs to it.
fn side(join: &HashJoinExec, at: usize) -> Option<(JoinSide, usize)> {
    let is_once = join.projection.as_ref().is_none_or(|outputs| {
        outputs.get(at).is_some_and(|joined| outputs.iter().filter(|output| *output == joined).count() == 1)
    });
    let adds_nulls = matches!(join.join_type(), JoinType::Left | JoinType::Right | JoinType::Full);
    if !is_once || adds_nulls {
        return None;
    }
    let (side, column) = origin(join, at)?;
    let own = |(left, right)| if side == JoinSide::Left { left } else { right };
    let mut keys = join.on().iter().map(|(left, right)| own((left, right))).flat_map(positions);
    let mut filtered = join.filter().into_iter().flat_map(|filter| filter.column_indices());
    let looks =
        keys.any(|used| used == column) || filtered.any(|used| used.side == side && used.index == column);
    (!looks).then_some((side, column))
}

fn sets<'a>(keys: &[Key<'a>]) -> Vec<Set<'a>> {
    let mut sets: Vec<Set<'a>> = Vec::new();
    for key in keys {
        let Some((column, numbering)) = key.scan.numbering(key.output) else { continue };
        let mut of_scan = sets.iter_mut().filter(|set| std::ptr::eq(set.scan, key.scan));
        if let Some(set) =
            of_scan.find_map(|set| set.numbered.add(key.output, column, &numbering).then_some(set))
        {
            set.keys.push(key.nth);
            continue;
        }
        let mut numbered = Numbered::default();
        if numbered.add(key.output, column, &numbering) {
            sets.push(Set { scan: key.scan, keys: vec![key.nth], numbered });
        }
    }
    sets
}

/// `plan` with scans that read numbers. Nodes are made anew where they remember what their columns are.
fn read_by_numbers(plan: Plan, sets: &[Set<'_>]) -> Result<Plan> {
    if let Some(scan) = plan.downcast_ref::<ChunkScan>() {
        let own: Vec<Numbered> =
            sets.iter().filter(|set| std::ptr::eq(set.scan, scan)).map(|set| set.numbered.clone()).collect();
        return Ok(if own.is_empty() { plan } else { Arc::new(scan.clone().numbered(own)) });
    }
    let children = plan.children().into_iter().map(|child| read_by_numbers(Arc::clone(child), sets));
    let children = children.collect::<Result<Vec<_>>>()?;
    match (plan.downcast_ref::<ProjectionExec>(), children.as_slice()) {
        (Some(projection), [input]) if !Arc::ptr_eq(projection.input(), input) => {
            Ok(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), Arc::clone(input))?))
        }
        _ => replace_children_if_necessary(plan, children),
    }
}

/// The number of each set, where its first key stands; then the keys of none, in their order.
fn numbers(groups: &AggregateExec, sets: &[Set<'_>]) -> Vec<(Arc<dyn PhysicalExpr>, String)> {
    let keys = groups.group_expr().expr();
    let number = |set: &Set<'_>| {
        let names: Vec<&str> = set.keys.iter().map(|key| keys[*key].1.as_str()).collect();
        (Arc::clone(&keys[set.keys[0]].0), names.join(", "))
    };
    let rest = keys.iter().enumerate().filter(|(nth, _)| sets.iter().all(|set| !set.keys.contains(nth)));
    sets.iter().map(number).chain(rest.map(|(_, key)| key.clone())).collect()
}

/// The columns of `groups`, of what [`numbers`] groups, which has the schema `grouped`.
fn texts(groups: &AggregateExec, sets: &[Set<'_>], grouped: &Schema) -> Vec<ProjectionExpr> {
    let schema = groups.schema();
    let keys = groups.group_expr().expr().len();
    let column = |at: usize| Arc::new(Column::new(grouped.field(at).name(), at)) as Arc<dyn PhysicalExpr>;
    let part_of = |nth: usize| {
        sets.iter().enumerate().find_map(|(at, set)| {
            let part = set.keys.iter().position(|key| *key == nth)?;
            Some((at, set.numbered.parts()[part].clone()))
        })
    };
    // After the numbers everything is in its order.
    let mut rest = (sets.len()..grouped.fields().len()).map(column);
    let fields = schema.fields().iter().enumerate().map(|(nth, field)| {
        let part = if nth < keys { part_of(nth) } else { None };
        let expr = match part {
            Some((at, part)) => Some(Arc::new(TextOf::new(column(at), part, Arc::clone(field))) as _),
            None => rest.next(),
        };
        expr.map(|expr| ProjectionExpr { expr, alias: field.name().clone() })
    });
    fields.flatten().collect()
}
