//! Shares the first rows of a UNION ALL: each branch that lives on one upstream sends only its own first.
//!
//! The rows that lead the union lead their branch. The sort above stays; it chooses among fewer.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Sort, SortExpr, SubqueryAlias, Union};

use super::{Homes, home_of};

/// `sort` over a union whose branches are cut as it is; `None` where nothing is to be cut.
///
/// # Errors
/// A sort by a column that the union does not have.
pub(super) fn shared<H: PartialEq>(sort: &Sort, homes: &Homes<'_, H>) -> Result<Option<LogicalPlan>> {
    if sort.fetch.is_none() || sort.expr.iter().any(|key| !may_move(&key.expr)) {
        return Ok(None);
    }
    let input = cut_below(&sort.input, sort, homes)?;
    Ok(input.map(|input| LogicalPlan::Sort(Sort { input: Arc::new(input), ..sort.clone() })))
}

/// Whether a sort key has the same value wherever it is evaluated.
fn may_move(key: &Expr) -> bool {
    let reads_elsewhere = key.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
        ))
    });
    !key.is_volatile() && !reads_elsewhere.unwrap_or(true)
}

/// `plan`, a union or the alias of one, with the first rows of `sort` taken of each branch.
fn cut_below<H: PartialEq>(
    plan: &LogicalPlan,
    sort: &Sort,
    homes: &Homes<'_, H>,
) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => cut_union(union, sort, homes),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(expr) = translated(&sort.expr, &alias.schema, alias.input.schema())? else {
                return Ok(None);
            };
            let below = Sort { expr, ..sort.clone() };
            let input = cut_below(&alias.input, &below, homes)?;
            let renamed = |input| SubqueryAlias::try_new(Arc::new(input), alias.alias.clone());
            input.map(|input| renamed(input).map(LogicalPlan::SubqueryAlias)).transpose()
        }
        _ => Ok(None),
    }
}

fn cut_union<H: PartialEq>(union: &Union, sort: &Sort, homes: &Homes<'_, H>) -> Result<Option<LogicalPlan>> {
    let (mut inputs, mut is_cut) = (Vec::with_capacity(union.inputs.len()), false);
    for branch in &union.inputs {
        let cut = cut_branch(branch, union, sort, homes)?;
        is_cut |= cut.is_some();
        inputs.push(cut.map_or_else(|| Arc::clone(branch), Arc::new));
    }
    let union = || Union { inputs, schema: Arc::clone(&union.schema) };
    Ok(is_cut.then(|| LogicalPlan::Union(union())))
}

fn cut_branch<H: PartialEq>(
    branch: &Arc<LogicalPlan>,
    union: &Union,
    sort: &Sort,
    homes: &Homes<'_, H>,
) -> Result<Option<LogicalPlan>> {
    let Some(expr) = translated(&sort.expr, &union.schema, branch.schema())? else { return Ok(None) };
    let is_cut_already = match branch.as_ref() {
        LogicalPlan::Sort(own) => own.expr == expr && own.fetch.is_some() && own.fetch <= sort.fetch,
        _ => false,
    };
    if is_cut_already || home_of(branch, homes)?.is_none() {
        return Ok(None);
    }
    Ok(Some(LogicalPlan::Sort(Sort { expr, input: Arc::clone(branch), fetch: sort.fetch })))
}

/// Sort keys over the columns of `from` as keys over those at the same positions of `to`; `None` where a
/// column there has another type, or a name that could mean another.
fn translated(keys: &[SortExpr], from: &DFSchema, to: &DFSchema) -> Result<Option<Vec<SortExpr>>> {
    let mut is_sure = from.fields().len() == to.fields().len();
    let mut column_at = |column: Column| -> Result<Column> {
        let at = from.index_of_column(&column)?;
        if at >= to.fields().len() {
            return Ok(column);
        }
        let there = Column::from(to.qualified_field(at));
        is_sure &= to.index_of_column(&there)? == at;
        is_sure &= from.field(at).data_type() == to.field(at).data_type();
        Ok(there)
    };
    let mut moved = Vec::with_capacity(keys.len());
    for key in keys {
        let expr = key.expr.clone().transform(|part| match part {
            Expr::Column(column) => column_at(column).map(|there| Transformed::yes(Expr::Column(there))),
            other => Ok(Transformed::no(other)),
        });
        moved.push(SortExpr { expr: expr.data()?, ..key.clone() });
    }
    Ok(is_sure.then_some(moved))
}
