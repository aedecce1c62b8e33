//! A statement before its parameters are known: SQL enters, the schema of its answer and its parameters leave.
//!
//! Both are told by a plan with open placeholders. What depends on the parameters is the best guess; nothing is asked
//! upstream for a statement that cannot be run yet.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Value, Visit, VisitMut, Visitor, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::telemetry::Context;

use super::deadline::within;
use super::planning::Weight;
use super::statement::{invalid, parse_one, refuse_writes};
use super::{Engine, QueryError, Request, explain, limits};

/// A prepared statement has at most so many parameters.
const PARAMETERS_MAX: usize = 10_000;

/// What is known of a statement before it is run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Of its answer.
    pub schema: SchemaRef,
    /// What it asks for, in the order of numbers or of the text: `$1`, or `$name`. Where the statement says nothing
    /// of a parameter's type, it is a string.
    pub parameters: Vec<Field>,
}

/// A statement whose `?` have got numbers.
struct Open {
    statement: Statement,
    is_explained: bool,
    /// Each name once, in order.
    placeholders: Vec<String>,
}

impl Engine {
    /// What is known of the statement of `request`, whose parameters are not looked at.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn prepare(&self, request: Request) -> Result<Prepared, QueryError> {
        let deadline = self.deadline();
        let _turn = self.planning.enter(deadline, request.protocol).await?;
        let context = Context::root(self.federation.tracer(), request.caller.as_ref());
        context.scope(within(deadline, self.find_prepared(&request))).await
    }

    async fn find_prepared(&self, request: &Request) -> Result<Prepared, QueryError> {
        let weight = Weight::of(&request.sql);
        let open = weight.aside(async { open(&request.sql) }).await?;
        if open.placeholders.is_empty() {
            return Ok(Prepared { schema: self.find_schema(request).await?, parameters: Vec::new() });
        }
        self.federation.check(&open.statement)?;
        let plan = weight.aside(self.plan_open(&open.statement)).await?;
        let schema = match open.is_explained {
            true => explain::schema(),
            false => Arc::clone(plan.schema().inner()),
        };
        Ok(Prepared { schema, parameters: parameters(open.placeholders, &plan) })
    }

    /// Planning may hang on a type that nothing says: then with NULL in its place, or a text.
    async fn plan_open(&self, statement: &Statement) -> Result<LogicalPlan, QueryError> {
        let error = match self.logical(statement.clone()).await {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        for stand_in in stand_ins() {
            if let Ok(plan) = self.logical(with(statement.clone(), &stand_in)).await {
                return Ok(plan);
            }
        }
        Err(error)
    }
}

/// Parses `sql`, gives numbers to its `?`, and finds its placeholders.
fn open(sql: &str) -> Result<Open, QueryError> {
    if let Some(message) = limits::excess(sql) {
        return Err(invalid(message));
    }
    let (mut statement, is_explained) = match parse_one(sql)? {
        Statement::Explain(explain) => (*explain.statement, true),
        statement => (statement, false),
    };
    refuse_writes(&statement)?;
    let Statement::Statement(inner) = &mut statement else {
        return Ok(Open { statement, is_explained, placeholders: Vec::new() });
    };
    let mut found = Found::default();
    // Neither visit breaks.
    let _ = Visit::visit(inner, &mut found);
    found.0.sort();
    let marks = found.0.iter().filter(|(_, name)| name == "?").map(|(place, _)| *place).collect();
    let _ = inner.visit(&mut Numbering { marks });
    let mut placeholders = names(found.0);
    if placeholders.len() > PARAMETERS_MAX {
        return Err(invalid(format!("the statement has more than {PARAMETERS_MAX} parameters")));
    }
    let number = |name: &String| name.get(1..).and_then(|digits| digits.parse::<usize>().ok());
    // Names keep their places behind the numbers.
    placeholders.sort_by_key(|name| number(name).unwrap_or(usize::MAX));
    Ok(Open { statement, is_explained, placeholders })
}

/// Each name once, in the order of the text; the n-th `?` is called `$n`.
fn names(found: Vec<(Location, String)>) -> Vec<String> {
    let (mut marks, mut seen) = (0, HashSet::new());
    let numbered = found.into_iter().map(|(_, name)| {
        marks += usize::from(name == "?");
        if name == "?" { format!("${marks}") } else { name }
    });
    numbered.filter(|name| seen.insert(name.clone())).collect()
}

/// Every placeholder with its place in the text.
#[derive(Default)]
struct Found(Vec<(Location, String)>);

impl Visitor for Found {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &value.value
        {
            self.0.push((value.span.start, name.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// Makes `$n` of the n-th `?` of the text.
struct Numbering {
    marks: Vec<Location>,
}

impl VisitorMut for Numbering {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &mut value.value
            && name == "?"
            && let Ok(at) = self.marks.binary_search(&value.span.start)
        {
            *name = format!("${}", at + 1);
        }
        ControlFlow::Continue(())
    }
}

/// What is planned in the place of parameters, one after the other.
fn stand_ins() -> [Value; 2] {
    [Value::Null, Value::SingleQuotedString(String::new())]
}

/// The statement with this value for every placeholder.
fn with(mut statement: Statement, value: &Value) -> Statement {
    struct Replace<'a>(&'a Value);
    impl VisitorMut for Replace<'_> {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_))) {
                *expr = Expr::value(self.0.clone());
            }
            ControlFlow::Continue(())
        }
    }
    if let Statement::Statement(inner) = &mut statement {
        let _ = inner.visit(&mut Replace(value));
    }
    statement
}

/// The placeholders with the types that the plan gives them.
fn parameters(names: Vec<String>, plan: &LogicalPlan) -> Vec<Field> {
    // Two types for one parameter: neither is known.
    let types = plan.get_parameter_types().unwrap_or_default();
    let counts = counts(plan);
    let field = |name: String| {
        let kind = match types.get(&name).and_then(Option::as_ref) {
            None | Some(DataType::Null) if counts.contains(&name) => DataType::Int64,
            None | Some(DataType::Null) => DataType::Utf8,
            Some(DataType::Dictionary(_, value)) => value.as_ref().clone(),
            Some(kind) => kind.clone(),
        };
        Field::new(name, kind, true)
    };
    names.into_iter().map(field).collect()
}

/// The placeholders that stand for a number of rows, in LIMIT and OFFSET.
fn counts(plan: &LogicalPlan) -> HashSet<String> {
    let mut counts = HashSet::new();
    // The visitor cannot fail.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            let rows = [&limit.skip, &limit.fetch].into_iter().flatten();
            counts.extend(rows.filter_map(|rows| match rows.as_ref() {
                PlanExpr::Placeholder(placeholder) => Some(placeholder.id.clone()),
                _ => None,
            }));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    counts
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn told(sql: &str) -> String {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (a BIGINT, b VARCHAR, c DATE, d DECIMAL(10,2))").await.unwrap();
        let open = match open(sql) {
            Ok(open) => open,
            Err(error) => return error.to_string(),
        };
        let state = context.state();
        let mut plan = state.statement_to_plan(open.statement.clone()).await;
        for stand_in in stand_ins() {
            if plan.is_err() {
                plan = state.statement_to_plan(with(open.statement.clone(), &stand_in)).await;
            }
        }
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => return error.to_string(),
        };
        let told = parameters(open.placeholders, &plan);
        told.iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[tokio::test]
    async fn parameters_have_the_types_that_the_statement_says() {
        let mut told_of = Vec::new();
        for sql in [
            "SELECT 1",
            "SELECT * FROM t WHERE a = $1 AND b = $2",
            "SELECT * FROM t WHERE a BETWEEN ? AND ? AND c > ?",
            "SELECT * FROM t WHERE d IN ($2, $1) AND b LIKE $10",
            "SELECT * FROM t WHERE a = $low AND c = $day AND a < $low",
            "SELECT $1, $2 + 1, CAST($3 AS DATE) FROM t LIMIT $4",
            "SELECT TRIM(BOTH ? FROM ?) FROM t OFFSET ? LIMIT ?",
            "SELECT * FROM t WHERE a = $1 AND b = $1",
            "SELECT $1 || $2",
            "SELECT -$1 FROM t",
            "EXPLAIN SELECT * FROM t WHERE a = $1",
            "INSERT INTO t VALUES ($1)",
            "SELECT nothing FROM t WHERE a = $1",
        ] {
            told_of.push(format!("{sql}\n  -> {}", told(sql).await));
        }
        insta::assert_snapshot!(told_of.join("\n"));
    }
}
