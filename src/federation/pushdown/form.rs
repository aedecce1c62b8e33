//! The form of a plan that is left when names, aliases and the places of projections and filters are taken
//! away: two plans of one form give the same rows.
//!
//! A logical plan enters, a [`Form`] leaves, or the reason why this plan has none. Columns are numbered, not
//! named: `#3` is the fourth column of the relation below. Projections are substituted into what stands
//! above them, inner joins and the filters around them become one [`Rel::Select`] whose conditions are a
//! set. Nothing here knows what an expression means: equal forms hold equal expressions.

use std::fmt;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, Placeholder, Sort as SortExpr, TryCast};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, FetchType, Filter, Join, JoinType, Limit, LogicalPlan, Operator,
    Projection, SkipType, Sort, TableScan, Union, Values, Window,
};

use super::home;
use super::{Unsent, unsent};

/// What a plan answers, without names.
#[derive(Debug, PartialEq)]
pub(super) struct Form {
    rel: Rel,
    /// One expression for each column of the plan, over the columns of `rel`.
    outputs: Vec<Expr>,
}

/// One step; its columns are numbered from 0.
#[derive(PartialEq)]
enum Rel {
    /// All columns of a table of the upstream, at most `fetch` rows.
    Scan {
        table: Vec<String>,
        width: usize,
        fetch: Option<usize>,
    },
    OneRow,
    Values(Vec<Vec<Expr>>),
    /// Columns that could not be substituted into what stands above.
    Project(Box<Form>),
    /// Every combination of rows of the inputs for which all conditions are true.
    Select {
        inputs: Vec<Rel>,
        conditions: Vec<Expr>,
    },
    Join(Box<JoinRel>),
    Aggregate {
        input: Box<Rel>,
        groups: Vec<Expr>,
        aggregates: Vec<Expr>,
        width: usize,
    },
    Window {
        input: Box<Rel>,
        functions: Vec<Expr>,
    },
    Sort {
        input: Box<Rel>,
        by: Vec<SortExpr>,
        fetch: Option<usize>,
    },
    Limit {
        input: Box<Rel>,
        skip: usize,
        fetch: Option<usize>,
    },
    Distinct(Box<Rel>),
    Union(Vec<Rel>),
}

#[derive(Debug, PartialEq)]
struct JoinRel {
    kind: JoinType,
    left: Rel,
    right: Rel,
    on: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
    null_equality: NullEquality,
    null_aware: bool,
}

impl Form {
    /// # Errors
    /// A node or an expression that has no form.
    pub fn of(plan: &LogicalPlan) -> Result<Self, Unsent> {
        match plan {
            LogicalPlan::TableScan(scan) => of_scan(scan),
            LogicalPlan::Projection(node) => of_projection(node),
            LogicalPlan::Filter(node) => of_filter(node),
            LogicalPlan::SubqueryAlias(node) => Self::of(&node.input),
            LogicalPlan::Join(node) => of_join(node),
            LogicalPlan::Aggregate(node) => of_aggregate(node),
            LogicalPlan::Window(node) => of_window(node),
            LogicalPlan::Sort(node) => of_sort(node),
            LogicalPlan::Limit(node) => of_limit(node),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                Ok(Self::whole(Rel::Distinct(Box::new(Self::of(input)?.materialised()))))
            }
            LogicalPlan::Union(node) => of_union(node),
            LogicalPlan::Values(node) => of_values(node),
            LogicalPlan::EmptyRelation(node) if node.produce_one_row => Ok(Self::whole(Rel::OneRow)),
            other => Err(unsent(format!("{} has no form", other.display()))),
        }
    }

    /// All columns of `rel` in their order.
    fn whole(rel: Rel) -> Self {
        let outputs = (0..rel.width()).map(numbered).collect();
        Self { rel, outputs }
    }

    /// A relation whose columns are the outputs.
    fn materialised(self) -> Rel {
        let is_whole = self.outputs.len() == self.rel.width()
            && self.outputs.iter().enumerate().all(|(at, output)| *output == numbered(at));
        match is_whole {
            true => self.rel,
            false => Rel::Project(Box::new(self)),
        }
    }

    /// For the side of an outer join that may be filled with nulls: an expression there is not what the
    /// same expression is above the join, a column is.
    fn with_columns_only(self) -> Self {
        match self.outputs.iter().all(|output| matches!(output, Expr::Column(_))) {
            true => self,
            false => Self::whole(self.materialised()),
        }
    }

    /// `expr` of a node whose input is this form.
    fn within(&self, expr: &Expr, schema: &DFSchema) -> Result<Expr, Unsent> {
        rebased(expr, &|column| Some(self.outputs[schema.maybe_index_of_column(column)?].clone()))
    }

    fn all_within(&self, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Expr>, Unsent> {
        exprs.iter().map(|expr| self.within(expr, schema)).collect()
    }

    /// Only the rows for which `conditions`, over the columns of `rel`, are true.
    fn selected(self, conditions: Vec<Expr>) -> Self {
        if conditions.is_empty() {
            return self;
        }
        let (inputs, mut all) = self.rel.into_select();
        all.extend(conditions);
        Self { rel: Rel::Select { inputs, conditions: as_set(all) }, outputs: self.outputs }
    }
}

impl Rel {
    fn width(&self) -> usize {
        match self {
            Self::Scan { width, .. } | Self::Aggregate { width, .. } => *width,
            Self::OneRow => 0,
            Self::Values(rows) => rows.first().map_or(0, Vec::len),
            Self::Project(form) => form.outputs.len(),
            Self::Select { inputs, .. } => inputs.iter().map(Self::width).sum(),
            Self::Join(join) => join.width(),
            Self::Window { input, functions } => input.width() + functions.len(),
            Self::Sort { input, .. } | Self::Limit { input, .. } | Self::Distinct(input) => input.width(),
            Self::Union(inputs) => inputs.first().map_or(0, Self::width),
        }
    }

    fn into_select(self) -> (Vec<Rel>, Vec<Expr>) {
        match self {
            Self::Select { inputs, conditions } => (inputs, conditions),
            other => (vec![other], Vec::new()),
        }
    }
}

impl JoinRel {
    fn width(&self) -> usize {
        let (left, right) = (self.left.width(), self.right.width());
        match self.kind {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => left + right,
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::LeftMark => left + 1,
            JoinType::RightMark => right + 1,
        }
    }
}

fn of_scan(scan: &TableScan) -> Result<Form, Unsent> {
    let table = home::remote_table(scan).ok_or_else(|| unsent("a table that is known only here"))?;
    let width = scan.source.schema().fields().len();
    let rel = Rel::Scan { table: table.remote.parts.clone(), width, fetch: scan.fetch };
    let whole = Form::whole(rel);
    let full = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())
        .map_err(|error| unsent(error.to_string()))?;
    let filters = whole.all_within(&scan.filters, &full)?;
    let conditions = filters.into_iter().flat_map(split_conjunction_owned).collect();
    let mut form = whole.selected(conditions);
    if let Some(projection) = &scan.projection {
        form.outputs = projection.iter().map(|at| numbered(*at)).collect();
    }
    Ok(form)
}

fn of_projection(node: &Projection) -> Result<Form, Unsent> {
    let input = Form::of(&node.input)?;
    let outputs = input.all_within(&node.expr, node.input.schema())?;
    Ok(Form { rel: input.rel, outputs })
}

fn of_filter(node: &Filter) -> Result<Form, Unsent> {
    let input = Form::of(&node.input)?;
    let conditions = split_conjunction_owned(input.within(&node.predicate, node.input.schema())?);
    Ok(input.selected(conditions))
}

fn of_join(node: &Join) -> Result<Form, Unsent> {
    let (mut left, mut right) = (Form::of(&node.left)?, Form::of(&node.right)?);
    if matches!(node.join_type, JoinType::Right | JoinType::Full) {
        left = left.with_columns_only();
    }
    if matches!(node.join_type, JoinType::Left | JoinType::Full) {
        right = right.with_columns_only();
    }
    let left_width = left.rel.width();
    let shifted: Vec<Expr> = right.outputs.iter().map(|output| shift(output, left_width)).collect();
    let both = |expr: &Expr| {
        rebased(expr, &|column| match node.left.schema().maybe_index_of_column(column) {
            Some(at) => Some(left.outputs[at].clone()),
            None => Some(shifted[node.right.schema().maybe_index_of_column(column)?].clone()),
        })
    };
    let on = node.on.iter().map(|(l, r)| Ok((both(l)?, both(r)?))).collect::<Result<Vec<_>, Unsent>>()?;
    let conditions = match &node.filter {
        Some(filter) => split_conjunction_owned(both(filter)?),
        None => Vec::new(),
    };
    let left_outputs = std::mem::take(&mut left.outputs);
    if node.join_type == JoinType::Inner && !node.null_aware {
        let outputs = left_outputs.into_iter().chain(shifted).collect();
        let rel = inner(left.rel, right.rel, on, conditions, node.null_equality);
        return Ok(Form { rel, outputs });
    }
    let outputs = match node.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            left_outputs.into_iter().chain(shifted).collect()
        }
        JoinType::LeftSemi | JoinType::LeftAnti => left_outputs,
        JoinType::LeftMark => left_outputs.into_iter().chain([numbered(left_width)]).collect(),
        JoinType::RightSemi | JoinType::RightAnti => right.outputs,
        JoinType::RightMark => return Err(unsent("a right mark join")),
    };
    let mut on: Vec<(Expr, Expr)> = on.into_iter().collect();
    on.sort_by_cached_key(|pair| format!("{pair:?}"));
    let rel = Rel::Join(Box::new(JoinRel {
        kind: node.join_type,
        left: left.rel,
        right: right.rel,
        on,
        conditions: as_set(conditions),
        null_equality: node.null_equality,
        null_aware: node.null_aware,
    }));
    Ok(Form { rel, outputs })
}

/// Inner joins in a row are one selection of all their inputs.
fn inner(
    left: Rel,
    right: Rel,
    on: Vec<(Expr, Expr)>,
    mut conditions: Vec<Expr>,
    null_equality: NullEquality,
) -> Rel {
    let left_width = left.width();
    let equals = match null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let keys = on
        .into_iter()
        .map(|(left, right)| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), equals, Box::new(right))));
    conditions.extend(keys);
    let (mut inputs, left_conditions) = left.into_select();
    let (right_inputs, right_conditions) = right.into_select();
    inputs.extend(right_inputs);
    conditions.extend(left_conditions);
    conditions.extend(right_conditions.iter().map(|condition| shift(condition, left_width)));
    Rel::Select { inputs, conditions: as_set(conditions) }
}

fn of_aggregate(node: &Aggregate) -> Result<Form, Unsent> {
    let input = Form::of(&node.input)?;
    let groups = input.all_within(&node.group_expr, node.input.schema())?;
    let aggregates = input.all_within(&node.aggr_expr, node.input.schema())?;
    let width = node.schema.fields().len();
    Ok(Form::whole(Rel::Aggregate { input: Box::new(input.rel), groups, aggregates, width }))
}

fn of_window(node: &Window) -> Result<Form, Unsent> {
    let input = Form::of(&node.input)?;
    let functions = input.all_within(&node.window_expr, node.input.schema())?;
    let below = input.rel.width();
    let outputs = input.outputs.into_iter().chain((below..below + functions.len()).map(numbered)).collect();
    Ok(Form { rel: Rel::Window { input: Box::new(input.rel), functions }, outputs })
}

fn of_sort(node: &Sort) -> Result<Form, Unsent> {
    let input = Form::of(&node.input)?;
    let by = node.expr.iter().map(|sort| {
        let expr = input.within(&sort.expr, node.input.schema())?;
        Ok(SortExpr { expr, ..sort.clone() })
    });
    let by = by.collect::<Result<Vec<_>, Unsent>>()?;
    Ok(Form { rel: Rel::Sort { input: Box::new(input.rel), by, fetch: node.fetch }, outputs: input.outputs })
}

fn of_limit(node: &Limit) -> Result<Form, Unsent> {
    let (skip, fetch) = limits(node)?;
    let input = Form::of(&node.input)?;
    // The optimizer writes a limit into the sort or the scan below too: said once is enough.
    let rel = match (skip, input.rel) {
        (0, Rel::Sort { input, by, fetch: Some(below) }) if fetch.is_none_or(|fetch| fetch >= below) => {
            Rel::Sort { input, by, fetch: Some(below) }
        }
        (_, rel) => Rel::Limit { input: Box::new(rel), skip, fetch },
    };
    Ok(Form { rel, outputs: input.outputs })
}

/// Skip and fetch of a limit.
///
/// # Errors
/// A limit that is not a plain number.
pub(super) fn limits(node: &Limit) -> Result<(usize, Option<usize>), Unsent> {
    match (node.get_skip_type(), node.get_fetch_type()) {
        (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) => Ok((skip, fetch)),
        _ => Err(unsent("a limit that is not a plain number")),
    }
}

fn of_union(node: &Union) -> Result<Form, Unsent> {
    let inputs = node.inputs.iter().map(|input| Ok(Form::of(input)?.materialised()));
    Ok(Form::whole(Rel::Union(inputs.collect::<Result<Vec<_>, Unsent>>()?)))
}

fn of_values(node: &Values) -> Result<Form, Unsent> {
    let rows = node.values.iter().map(|row| row.iter().map(|value| rebased(value, &|_| None)).collect());
    Ok(Form::whole(Rel::Values(rows.collect::<Result<Vec<Vec<Expr>>, Unsent>>()?)))
}

fn numbered(at: usize) -> Expr {
    Expr::Column(Column::new_unqualified(format!("#{at}")))
}

fn number_of(column: &Column) -> Option<usize> {
    column.name.strip_prefix('#')?.parse().ok()
}

/// The same expression where the numbers begin `by` later.
fn shift(expr: &Expr, by: usize) -> Expr {
    let shifted = expr.clone().transform(|expr| {
        Ok(match &expr {
            Expr::Column(column) => match number_of(column) {
                Some(at) => Transformed::yes(numbered(at + by)),
                None => Transformed::no(expr),
            },
            _ => Transformed::no(expr),
        })
    });
    shifted.map_or_else(|_| expr.clone(), |shifted| shifted.data)
}

/// `expr` with its columns replaced, and without what does not change its value: aliases, metadata of
/// literals, the name of a cast's field.
fn rebased(expr: &Expr, column: &dyn Fn(&Column) -> Option<Expr>) -> Result<Expr, Unsent> {
    if expr.is_volatile() {
        return Err(unsent("an expression that is not the same twice"));
    }
    let mut refused = None;
    let changed = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(name) => match column(&name) {
                Some(expr) => Transformed::yes(expr),
                None => {
                    refused.get_or_insert_with(|| unsent(format!("column `{name}` is not below")));
                    Transformed::no(Expr::Column(name))
                }
            },
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            Expr::Literal(value, Some(_)) => Transformed::yes(Expr::Literal(value, None)),
            Expr::Cast(cast) => {
                let kind = cast.field.data_type().clone();
                Transformed::yes(Expr::Cast(Cast::new(cast.expr, kind)))
            }
            Expr::TryCast(cast) => {
                let kind = cast.field.data_type().clone();
                Transformed::yes(Expr::TryCast(TryCast::new(cast.expr, kind)))
            }
            Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty() => {
                match Form::of(&subquery.subquery) {
                    Ok(form) => Transformed::yes(stands_for(&form)),
                    Err(reason) => {
                        refused.get_or_insert(reason);
                        Transformed::no(Expr::ScalarSubquery(subquery))
                    }
                }
            }
            other => {
                if is_foreign(&other) {
                    refused.get_or_insert_with(|| unsent("a subquery or a column of a query around it"));
                }
                Transformed::no(other)
            }
        })
    });
    let changed = changed.map_err(|error| unsent(error.to_string()))?;
    refused.map_or(Ok(changed.data), Err)
}

/// A scalar subquery as a name that tells its whole form.
fn stands_for(form: &Form) -> Expr {
    Expr::Placeholder(Placeholder { id: format!("{form:?}"), field: None })
}

fn is_foreign(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_)
            | Expr::Placeholder(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::ScalarVariable(..)
    )
}

/// Conditions that must all be true: their order and their repetition mean nothing, nor do the sides of an
/// equality.
fn as_set(conditions: Vec<Expr>) -> Vec<Expr> {
    let mut keyed: Vec<(String, Expr)> = conditions
        .into_iter()
        .map(|condition| {
            let condition = oriented(condition);
            (format!("{condition:?}"), condition)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.dedup_by(|a, b| a.1 == b.1);
    keyed.into_iter().map(|(_, condition)| condition).collect()
}

fn oriented(condition: Expr) -> Expr {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let turned = format!("{right:?}") < format!("{left:?}");
            match (turned, op.swap()) {
                (true, Some(op)) => Expr::BinaryExpr(BinaryExpr { left: right, op, right: left }),
                _ => Expr::BinaryExpr(BinaryExpr { left, op, right }),
            }
        }
        other => other,
    }
}

/// As a tree, so that two forms that differ can be read side by side.
impl fmt::Debug for Rel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scan { table, fetch, .. } => write!(f, "scan({}, fetch={fetch:?})", table.join(".")),
            Self::OneRow => f.write_str("one_row"),
            Self::Values(rows) => write!(f, "values({rows:?})"),
            Self::Project(form) => f.debug_tuple("project").field(form).finish(),
            Self::Select { inputs, conditions } => {
                f.debug_struct("select").field("inputs", inputs).field("conditions", conditions).finish()
            }
            Self::Join(join) => join.fmt(f),
            Self::Aggregate { input, groups, aggregates, .. } => f
                .debug_struct("aggregate")
                .field("input", input)
                .field("groups", groups)
                .field("aggregates", aggregates)
                .finish(),
            Self::Window { input, functions } => {
                f.debug_struct("window").field("input", input).field("functions", functions).finish()
            }
            Self::Sort { input, by, fetch } => {
                f.debug_struct("sort").field("input", input).field("by", by).field("fetch", fetch).finish()
            }
            Self::Limit { input, skip, fetch } => f
                .debug_struct("limit")
                .field("input", input)
                .field("skip", skip)
                .field("fetch", fetch)
                .finish(),
            Self::Distinct(input) => f.debug_tuple("distinct").field(input).finish(),
            Self::Union(inputs) => f.debug_tuple("union").field(inputs).finish(),
        }
    }
}
