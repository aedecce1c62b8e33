//! What every SQL database understands alike: the only steps that go to an upstream outside the DataFusion
//! family.
//!
//! Whole numbers are compared, joined, grouped, counted and ordered; strings are not (collations differ),
//! nor decimals and floats (types of results differ), nor anything that calls a function by name beyond
//! `count`, `min` and `max`.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, NullEquality};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator, TableScan,
};

use super::{Unsent, unsent};

/// Whether every step of `plan` means the same in every SQL database.
///
/// # Errors
/// The first that may not.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), Unsent> {
    match plan {
        LogicalPlan::TableScan(scan) => check_scan(scan)?,
        LogicalPlan::Projection(node) => all(&node.expr, is_column, "a computed column")?,
        LogicalPlan::Filter(node) => {
            let schema = node.input.schema();
            all(std::slice::from_ref(&node.predicate), |expr| is_condition(expr, schema), "this filter")?;
        }
        LogicalPlan::Join(node) => check_join(node)?,
        LogicalPlan::Aggregate(node) => check_aggregate(node)?,
        LogicalPlan::Sort(node) => {
            let schema = node.input.schema();
            let by: Vec<Expr> = node.expr.iter().map(|sort| sort.expr.clone()).collect();
            all(&by, |expr| is_number_column(expr, schema), "an order of other columns than whole numbers")?;
        }
        LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_) => {}
        other => return Err(differs(&other.display().to_string())),
    }
    plan.inputs().into_iter().try_for_each(check)
}

fn differs(what: &str) -> Unsent {
    unsent(format!("databases outside the DataFusion family may answer {what} otherwise"))
}

fn all(exprs: &[Expr], is_plain: impl Fn(&Expr) -> bool, what: &str) -> Result<(), Unsent> {
    match exprs.iter().all(is_plain) {
        true => Ok(()),
        false => Err(differs(what)),
    }
}

fn check_scan(scan: &TableScan) -> Result<(), Unsent> {
    let schema = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema());
    let schema = schema.map_err(|error| unsent(error.to_string()))?;
    all(&scan.filters, |filter| is_condition(filter, &schema), "this filter")
}

fn check_join(node: &Join) -> Result<(), Unsent> {
    let is_known = matches!(node.join_type, JoinType::Inner | JoinType::Left)
        && node.null_equality == NullEquality::NullEqualsNothing
        && !node.null_aware;
    let is_key = |(left, right): &(Expr, Expr)| {
        is_number_column(left, node.left.schema()) && is_number_column(right, node.right.schema())
    };
    match is_known && node.filter.is_none() && node.on.iter().all(is_key) {
        true => Ok(()),
        false => Err(differs("this join")),
    }
}

fn check_aggregate(node: &Aggregate) -> Result<(), Unsent> {
    let schema = node.input.schema();
    all(
        &node.group_expr,
        |expr| is_number_column(expr, schema),
        "groups of other columns than whole numbers",
    )?;
    all(&node.aggr_expr, |expr| is_plain_aggregate(expr, schema), "this aggregate")
}

/// `count` of anything, `min` and `max` of whole numbers: their results have the same type everywhere.
fn is_plain_aggregate(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else { return false };
    let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
    let is_bare = filter.is_none() && order_by.is_empty() && null_treatment.is_none();
    let [argument] = args.as_slice() else { return false };
    is_bare
        && match func.name() {
            "count" if *distinct => is_number_column(argument, schema),
            "count" => is_column(argument) || is_number(argument),
            "min" | "max" => is_number_column(argument, schema),
            _ => false,
        }
}

fn is_condition(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_condition(left, schema) && is_condition(right, schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            is_comparison(*op) && is_number_column(left, schema) && is_operand(right, schema)
        }
        Expr::InList(InList { expr, list, .. }) => {
            is_number_column(expr, schema) && list.iter().all(is_number)
        }
        Expr::IsNull(expr) | Expr::IsNotNull(expr) => is_column(expr),
        _ => false,
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    )
}

fn is_operand(expr: &Expr, schema: &DFSchema) -> bool {
    is_number(expr) || is_number_column(expr, schema)
}

fn is_column(expr: &Expr) -> bool {
    matches!(unaliased(expr), Expr::Column(_))
}

fn is_number_column(expr: &Expr, schema: &DFSchema) -> bool {
    is_column(expr) && expr.get_type(schema).is_ok_and(|kind| is_whole(&kind))
}

/// A whole number that every database has: larger ones are something else in many.
fn is_number(expr: &Expr) -> bool {
    let Expr::Literal(value, _) = expr else { return false };
    is_whole(&value.data_type()) && !value.is_null() && value.to_string().parse::<i64>().is_ok()
}

fn is_whole(kind: &DataType) -> bool {
    kind.is_integer()
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}
