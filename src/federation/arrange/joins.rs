//! Regroups a chain of inner joins: inputs of one upstream that equi-keys connect are joined first.
//!
//! `A1 ⋈ B ⋈ A2` with keys between `A1` and `A2` becomes `(A1 ⋈ A2) ⋈ B`, so that the pair is one
//! statement of its upstream. Inner joins may be taken in any order; every condition moves to the lowest
//! join that has its columns; no column is dropped here, not even those that nothing above reads. A chain
//! is left alone where nothing is gained, where a column could be mistaken for another, and where a cross
//! join would appear that was not there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchemaRef, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, find_valid_equijoin_key_pair, split_conjunction};
use datafusion::logical_expr::{
    Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator, Projection, binary_expr,
};

use super::{Homes, home_of};

/// Longer chains are left alone. One bit of [`Inputs`] each.
const INPUTS_MAX: usize = 64;

/// A set of a chain's inputs, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Inputs(u64);

impl Inputs {
    fn one(at: usize) -> Self {
        Self(1 << at)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn len(self) -> u32 {
        self.0.count_ones()
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..INPUTS_MAX).filter(move |at| Self::one(*at).is_within(self))
    }
}

impl FromIterator<usize> for Inputs {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        positions.into_iter().fold(Self::default(), |all, at| all.and(Self::one(at)))
    }
}

/// The joins below and including `root`, regrouped; `None` where they stay as they are.
///
/// # Errors
/// A condition whose columns no input has.
pub(super) fn regrouped<H: PartialEq>(root: &Join, homes: &Homes<'_, H>) -> Result<Option<LogicalPlan>> {
    let null_equality = root.null_equality;
    if !is_link(root, null_equality) {
        return Ok(None);
    }
    let mut flat = Flat::default();
    flat.take_join(root);
    if !(3..=INPUTS_MAX).contains(&flat.inputs.len()) {
        return Ok(None);
    }
    let Some(conditions) = flat.conditions(null_equality) else { return Ok(None) };
    let groups = flat.groups(&conditions, homes)?;
    if groups.is_empty() {
        return Ok(None);
    }
    let mut builder = Builder { conditions, null_equality, cross_joins: 0 };
    let arranged = builder.build(&flat.inputs, &groups)?;
    Ok((builder.cross_joins <= flat.cross_joins).then(|| under(arranged, &root.schema)))
}

/// Whether a join may be taken in another order among others of its kind.
fn is_link(join: &Join, null_equality: NullEquality) -> bool {
    join.join_type == JoinType::Inner && !join.null_aware && join.null_equality == null_equality
}

/// `plan` with exactly the columns of `schema`.
fn under(plan: LogicalPlan, schema: &DFSchemaRef) -> LogicalPlan {
    match plan.schema() == schema {
        true => plan,
        false => LogicalPlan::Projection(Projection::new_from_schema(Arc::new(plan), Arc::clone(schema))),
    }
}

/// A chain, taken apart from left to right: what is below one join stands together.
#[derive(Default)]
struct Flat<'a> {
    inputs: Vec<&'a Arc<LogicalPlan>>,
    keys: Vec<&'a (Expr, Expr)>,
    filters: Vec<&'a Expr>,
    /// The inputs below each join.
    joined: Vec<Range<usize>>,
    /// Joins without keys.
    cross_joins: usize,
}

impl<'a> Flat<'a> {
    fn take_join(&mut self, join: &'a Join) {
        let first = self.inputs.len();
        self.take(&join.left, join.null_equality);
        self.take(&join.right, join.null_equality);
        self.joined.push(first..self.inputs.len());
        self.cross_joins += usize::from(join.on.is_empty());
        self.keys.extend(&join.on);
        self.filters.extend(join.filter.iter().flat_map(split_conjunction));
    }

    fn take(&mut self, plan: &'a Arc<LogicalPlan>, null_equality: NullEquality) {
        let Some((join, filters)) = link_below(plan, null_equality) else {
            return self.inputs.push(plan);
        };
        self.filters.extend(filters.into_iter().flat_map(split_conjunction));
        self.take_join(join);
    }

    /// Every condition with the inputs that it reads; `None` where that is not sure, or where the time
    /// at which it is evaluated matters.
    fn conditions(&self, null_equality: NullEquality) -> Option<Vec<Condition>> {
        let owners = owners(&self.inputs)?;
        let all: Inputs = (0..self.inputs.len()).collect();
        let keys = self.keys.iter().map(|keys| Condition::of_keys(keys, &owners, all, null_equality));
        let filters = self.filters.iter().map(|filter| Condition::of_filter(filter, &owners, all));
        keys.chain(filters).collect()
    }

    /// Inputs of one home that keys connect, wherever joining them first makes one statement of what
    /// would have been several. All such groups, or none where each stands together already.
    fn groups<H: PartialEq>(&self, conditions: &[Condition], homes: &Homes<'_, H>) -> Result<Vec<Inputs>> {
        let homes: Vec<Option<H>> =
            self.inputs.iter().map(|input| home_of(input, homes)).collect::<Result<_>>()?;
        let mut groups: Vec<Inputs> = (0..homes.len()).map(Inputs::one).collect();
        for (left, right) in conditions.iter().filter_map(Condition::pair) {
            if homes[left].is_some() && homes[left] == homes[right] {
                merge(&mut groups, left, right);
            }
        }
        groups.retain(|group| group.len() > 1);
        let is_apart = |group: &Inputs| {
            let home = group.iter().next().and_then(|at| homes[at].as_ref());
            !self.joined.iter().any(|range| {
                let same_home = homes[range.clone()].iter().all(|other| other.as_ref() == home);
                same_home && group.is_within(range.clone().collect())
            })
        };
        if !groups.iter().any(is_apart) {
            groups.clear();
        }
        Ok(groups)
    }
}

/// The join of a chain below `plan`, and the filters on the way to it. Projections on the way only drop
/// columns.
fn link_below(plan: &LogicalPlan, null_equality: NullEquality) -> Option<(&Join, Vec<&Expr>)> {
    let (mut plan, mut filters) = (plan, Vec::new());
    loop {
        plan = match plan {
            LogicalPlan::Join(join) if is_link(join, null_equality) => return Some((join, filters)),
            LogicalPlan::Filter(filter) => {
                filters.push(&filter.predicate);
                &filter.input
            }
            LogicalPlan::Projection(projection) if only_drops(projection) => &projection.input,
            _ => return None,
        };
    }
}

fn only_drops(projection: &Projection) -> bool {
    let columns = projection.schema.columns();
    projection.expr.iter().zip(&columns).all(|(expr, column)| expr.try_as_col() == Some(column))
}

/// The input that each column comes from; `None` where a name could mean two of them.
fn owners(inputs: &[&Arc<LogicalPlan>]) -> Option<HashMap<Column, usize>> {
    let mut owners = HashMap::new();
    for (at, input) in inputs.iter().enumerate() {
        for column in input.schema().columns() {
            if owners.insert(column, at).is_some() {
                return None;
            }
        }
    }
    let mut named: HashMap<&str, usize> = HashMap::new();
    owners.keys().for_each(|column| *named.entry(&column.name).or_default() += 1);
    // Without a qualifier a name is looked for in all relations.
    let is_sure = |column: &Column| column.relation.is_some() || named[column.name.as_str()] == 1;
    owners.keys().all(is_sure).then_some(owners)
}

/// Puts the groups of both positions together, where the earlier one stands.
fn merge(groups: &mut Vec<Inputs>, left: usize, right: usize) {
    let of = |groups: &[Inputs], at| groups.iter().position(|group| Inputs::one(at).is_within(*group));
    let (Some(left), Some(right)) = (of(groups, left), of(groups, right)) else { return };
    if left != right {
        let moved = groups.remove(left.max(right));
        groups[left.min(right)] = groups[left.min(right)].and(moved);
    }
}

/// What must hold of the joined rows.
struct Condition {
    /// The inputs whose columns it reads; all of them where it reads none.
    inputs: Inputs,
    kind: Kind,
}

enum Kind {
    /// `left` equals `right` as the chain's null equality says, each with the inputs it reads.
    Keys {
        left: (Expr, Inputs),
        right: (Expr, Inputs),
    },
    Filter(Expr),
}

impl Condition {
    fn of_keys(
        (left, right): &(Expr, Expr),
        owners: &HashMap<Column, usize>,
        all: Inputs,
        null_equality: NullEquality,
    ) -> Option<Self> {
        let (left_inputs, right_inputs) = (inputs_of(left, owners)?, inputs_of(right, owners)?);
        if left_inputs.is_empty() || right_inputs.is_empty() {
            return Self::of_filter(&equal(left, right, null_equality), owners, all);
        }
        let kind = Kind::Keys { left: (left.clone(), left_inputs), right: (right.clone(), right_inputs) };
        Some(Self { inputs: left_inputs.and(right_inputs), kind })
    }

    fn of_filter(filter: &Expr, owners: &HashMap<Column, usize>, all: Inputs) -> Option<Self> {
        let inputs = inputs_of(filter, owners)?;
        let inputs = if inputs.is_empty() { all } else { inputs };
        Some(Self { inputs, kind: Kind::Filter(filter.clone()) })
    }

    /// The two inputs that it connects by keys.
    fn pair(&self) -> Option<(usize, usize)> {
        match &self.kind {
            Kind::Keys { left: (_, left), right: (_, right) } if left.len() == 1 && right.len() == 1 => {
                let pair = (left.iter().next()?, right.iter().next()?);
                (pair.0 != pair.1).then_some(pair)
            }
            _ => None,
        }
    }

    /// Whether it is a key of the join of `one` and `other`.
    fn is_key_of(&self, one: Inputs, other: Inputs) -> bool {
        match &self.kind {
            Kind::Keys { left: (_, left), right: (_, right) } => {
                (left.is_within(one) && right.is_within(other))
                    || (left.is_within(other) && right.is_within(one))
            }
            Kind::Filter(_) => false,
        }
    }

    fn into_filter(self, null_equality: NullEquality) -> Expr {
        match self.kind {
            Kind::Keys { left: (left, _), right: (right, _) } => equal(&left, &right, null_equality),
            Kind::Filter(filter) => filter,
        }
    }
}

fn equal(left: &Expr, right: &Expr, null_equality: NullEquality) -> Expr {
    let op = match null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    binary_expr(left.clone(), op, right.clone())
}

/// The inputs whose columns `expr` reads; `None` for an expression that must stay where it is.
fn inputs_of(expr: &Expr, owners: &HashMap<Column, usize>) -> Option<Inputs> {
    // A correlated subquery reads columns that do not show.
    let is_correlated = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty(),
            Expr::Exists(exists) => !exists.subquery.outer_ref_columns.is_empty(),
            Expr::InSubquery(within) => !within.subquery.outer_ref_columns.is_empty(),
            Expr::SetComparison(set) => !set.subquery.outer_ref_columns.is_empty(),
            _ => false,
        })
    });
    if expr.is_volatile() || is_correlated.unwrap_or(true) {
        return None;
    }
    expr.column_refs().into_iter().map(|column| owners.get(column).copied()).collect()
}

/// Some of the inputs, joined.
struct Part {
    plan: LogicalPlan,
    inputs: Inputs,
}

/// Joins inputs again, using up the conditions.
struct Builder {
    conditions: Vec<Condition>,
    null_equality: NullEquality,
    /// Joins made without keys.
    cross_joins: usize,
}

impl Builder {
    /// First the inputs of each group, then groups and single inputs in the order of their first.
    fn build(&mut self, inputs: &[&Arc<LogicalPlan>], groups: &[Inputs]) -> Result<LogicalPlan> {
        let mut parts = Vec::new();
        for at in 0..inputs.len() {
            let group = groups.iter().find(|group| Inputs::one(at).is_within(**group));
            match group {
                None => parts.push(self.part(inputs, at)?),
                Some(group) if group.iter().next() == Some(at) => {
                    let members = group.iter().map(|at| self.part(inputs, at)).collect::<Result<_>>()?;
                    parts.push(self.join_all(members)?);
                }
                // It was joined with the first of its group.
                Some(_) => {}
            }
        }
        Ok(self.join_all(parts)?.plan)
    }

    /// One input, under the conditions that read nothing else.
    fn part(&mut self, all: &[&Arc<LogicalPlan>], at: usize) -> Result<Part> {
        let inputs = Inputs::one(at);
        let own = self.conditions.extract_if(.., |condition| condition.inputs.is_within(inputs));
        let own: Vec<Expr> = own.map(|condition| condition.into_filter(self.null_equality)).collect();
        let plan = match conjunction(own) {
            Some(filter) => LogicalPlan::Filter(Filter::try_new(filter, Arc::clone(all[at]))?),
            None => all[at].as_ref().clone(),
        };
        Ok(Part { plan, inputs })
    }

    /// Joins `parts` to the first of them, in order, but each only once a key connects it: those that no
    /// key ever connects come when nothing else is left.
    fn join_all(&mut self, mut parts: Vec<Part>) -> Result<Part> {
        let mut joined = parts.remove(0);
        while !parts.is_empty() {
            let next = parts.iter().position(|part| self.have_key(joined.inputs, part.inputs));
            let next = parts.remove(next.unwrap_or(0));
            joined = self.join(joined, next)?;
        }
        Ok(joined)
    }

    fn have_key(&self, one: Inputs, other: Inputs) -> bool {
        self.conditions.iter().any(|condition| condition.is_key_of(one, other))
    }

    fn join(&mut self, left: Part, right: Part) -> Result<Part> {
        let inputs = left.inputs.and(right.inputs);
        let (mut on, mut filters) = (Vec::new(), Vec::new());
        let here: Vec<Condition> =
            self.conditions.extract_if(.., |condition| condition.inputs.is_within(inputs)).collect();
        for condition in here {
            let pair = match &condition.kind {
                Kind::Keys { left: (one, _), right: (other, _) } => {
                    find_valid_equijoin_key_pair(one, other, left.plan.schema(), right.plan.schema())?
                }
                Kind::Filter(_) => None,
            };
            match pair {
                Some(pair) => on.push(pair),
                None => filters.push(condition.into_filter(self.null_equality)),
            }
        }
        self.cross_joins += usize::from(on.is_empty());
        let join = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on,
            conjunction(filters),
            JoinType::Inner,
            JoinConstraint::On,
            self.null_equality,
            false,
        )?;
        Ok(Part { plan: LogicalPlan::Join(join), inputs })
    }
}
