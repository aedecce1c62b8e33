//! Where a plan is cut: its maximal subtrees that live on one upstream and are worth one SELECT.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Extension, JoinType, LogicalPlan, Sort};

use super::super::table::speaks_datafusion;
use super::home::{Home, Tables};
use super::node::RemoteQuery;
use super::plain;
use super::prove::prove;
use super::select::select;
use super::words::Spelling;
use super::{Note, Unsent, unsent};

/// So many SELECTs are tried for one statement; what is left then is scanned. Each costs a planning.
const TRIES_MAX: usize = 32;

/// `plan`, already optimised, with what upstreams can answer taken out, and what became of every subtree
/// that was looked at.
///
/// # Errors
/// What DataFusion's own rewriting meets.
pub(in crate::federation) fn cut(
    plan: LogicalPlan,
    planner: &Arc<SessionState>,
) -> Result<(LogicalPlan, Vec<Note>)> {
    let mut cutter = Cutter { planner, notes: Vec::new(), tries: 0 };
    let plan = plan.transform_down_with_subqueries(|node| cutter.visit(node))?.data;
    Ok((plan, cutter.notes))
}

struct Cutter<'a> {
    planner: &'a Arc<SessionState>,
    notes: Vec<Note>,
    tries: usize,
}

impl Cutter<'_> {
    fn visit(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !is_worth_asking(&node) {
            return Ok(Transformed::no(node));
        }
        let Home::One(tables) = Home::of(&node) else { return Ok(Transformed::no(node)) };
        let sent = self.sql(&node, &tables);
        self.note(&node, &tables, sent.as_ref().err());
        match sent {
            Ok(sql) => Ok(Transformed::new(self.replaced(node, tables, sql)?, true, TreeNodeRecursion::Jump)),
            Err(_) => Ok(Transformed::no(node)),
        }
    }

    fn note(&mut self, node: &LogicalPlan, tables: &Tables, kept: Option<&Unsent>) {
        let names: Vec<String> = tables.datasets.iter().map(ToString::to_string).collect();
        let subtree = format!("{} of {}", step(node), names.join(", "));
        let note = Note { subtree, kept: kept.map(ToString::to_string) };
        // A choice of columns over a step that is kept says nothing new.
        if self.notes.last().is_none_or(|last| *last != note || note.kept.is_none()) {
            self.notes.push(note);
        }
    }

    fn sql(&mut self, node: &LogicalPlan, tables: &Tables) -> Result<String, Unsent> {
        if is_cross_join(node) {
            return Err(unsent("a cross join would bring more than its tables"));
        }
        if !speaks_datafusion(tables.upstream.flavor()) {
            plain::check(node)?;
            return self.proved(node, Spelling::Short);
        }
        self.proved(node, Spelling::Short).or_else(|_| self.proved(node, Spelling::Full))
    }

    fn proved(&mut self, node: &LogicalPlan, spelling: Spelling) -> Result<String, Unsent> {
        if self.tries >= TRIES_MAX {
            return Err(unsent("too many parts of this statement were tried already"));
        }
        let sql = select(node, spelling)?;
        self.tries += 1;
        prove(node, &sql, self.planner)?;
        Ok(sql)
    }

    /// Rows come back in any order: a sort stays here too, over the rows that it left.
    fn replaced(&self, node: LogicalPlan, tables: Tables, sql: String) -> Result<LogicalPlan> {
        let instead = Arc::new(node);
        let planner = Arc::clone(self.planner);
        let query = RemoteQuery { tables, sql, rows: None, instead: Arc::clone(&instead), planner };
        let remote = LogicalPlan::Extension(Extension { node: Arc::new(query) });
        match instead.as_ref() {
            LogicalPlan::Sort(sort) => sort_over(sort, remote),
            _ => Ok(remote),
        }
    }
}

fn sort_over(sort: &Sort, input: LogicalPlan) -> Result<LogicalPlan> {
    let sort = LogicalPlan::Sort(sort.clone());
    sort.with_new_exprs(sort.expressions(), vec![input])
}

/// Whether one SELECT for `node` could spare work: a table with its columns, filters and limit is asked for
/// by its scan already.
fn is_worth_asking(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Join(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Union(_) => !node.schema().fields().is_empty(),
        LogicalPlan::Sort(sort) => sort.fetch.is_some(),
        LogicalPlan::Filter(filter) if has_subquery(&filter.predicate) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Limit(_) => !node.schema().fields().is_empty() && is_worth_asking_below(node),
        _ => false,
    }
}

/// The answer of a subquery decides which rows come: better there than after all have come.
fn has_subquery(predicate: &Expr) -> bool {
    predicate.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_)))).unwrap_or(false)
}

/// The order of a sort would be lost on the way through what stands above it: it is asked for alone.
fn is_worth_asking_below(node: &LogicalPlan) -> bool {
    node.inputs().iter().all(|input| !matches!(input, LogicalPlan::Sort(_)) && is_worth_asking(input))
}

fn is_cross_join(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            node.inputs().iter().all(|input| is_cross_join(input))
        }
        LogicalPlan::Join(join) => {
            join.join_type == JoinType::Inner && join.on.is_empty() && join.filter.is_none()
        }
        _ => false,
    }
}

/// The topmost step that is more than a choice of columns.
fn step(node: &LogicalPlan) -> String {
    match node {
        LogicalPlan::Projection(projection) => step(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => step(&alias.input),
        LogicalPlan::Join(join) => format!("{} join", join.join_type).to_lowercase(),
        other => {
            let shown = other.display().to_string();
            shown.split(':').next().unwrap_or_default().to_lowercase()
        }
    }
}
