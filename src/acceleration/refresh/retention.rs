//! Which rows a table need not hold any more: `retention_period` and `retention_sql`.
//!
//! A generation enters, one without those rows leaves; a query never sees the table between the two.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    FromTable, Ident, Statement as SqlStatement, TableFactor, TableWithJoins,
};

use crate::acceleration::store::Layout;
use crate::federation::{DEFAULT_CATALOG, DEFAULT_SCHEMA};
use crate::name::DatasetName;

use super::fetch::reference;
use super::since::at_or_after;

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retention {
    /// Rows older than this, by the time column.
    pub period: Option<Duration>,
    /// The condition of `DELETE FROM <dataset> WHERE <condition>`.
    pub condition: Option<String>,
    pub check_interval: Duration,
}

/// The condition of a `retention_sql` of `dataset`.
///
/// # Errors
/// Words that say what is wrong: no DELETE, no WHERE, another table, a clause that would do nothing.
pub(super) fn condition(sql: &str, dataset: &DatasetName) -> std::result::Result<String, String> {
    let shape = || format!("retention_sql is `DELETE FROM {dataset} WHERE <condition>`");
    let statements = DFParser::parse_sql(sql).map_err(|error| format!("retention_sql: {error}"))?;
    let statements: Vec<Statement> = statements.into();
    let [Statement::Statement(statement)] = statements.as_slice() else { return Err(shape()) };
    let SqlStatement::Delete(delete) = statement.as_ref() else { return Err(shape()) };
    let further = delete.using.is_some()
        || delete.returning.is_some()
        || delete.output.is_some()
        || delete.limit.is_some()
        || !delete.order_by.is_empty()
        || !delete.tables.is_empty();
    match &delete.selection {
        Some(condition) if !further && names(&delete.from, dataset) => Ok(condition.to_string()),
        _ => Err(shape()),
    }
}

/// Whether `from` is `dataset` alone, as any query may name it.
fn names(from: &FromTable, dataset: &DatasetName) -> bool {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    let [TableWithJoins { relation: TableFactor::Table { name, alias: None, .. }, joins }] =
        tables.as_slice()
    else {
        return false;
    };
    let normal = |ident: &Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    let written: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(normal)).collect();
    let schema = dataset.schema().unwrap_or(DEFAULT_SCHEMA);
    let whole = [DEFAULT_CATALOG, schema, dataset.table()].map(str::to_owned);
    joins.is_empty() && written.is_some_and(|written| !written.is_empty() && whole.ends_with(&written))
}

impl Retention {
    /// True for the rows that go, at `now` (ns since the epoch); each a predicate of its own.
    ///
    /// # Errors
    /// A condition that does not fit the table.
    pub(super) fn predicates(
        &self,
        layout: &Layout,
        state: &SessionState,
        now: i64,
    ) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        let schema = DFSchema::try_from_qualified_schema(reference(layout.name()), layout.schema())?;
        let mut conditions: Vec<Expr> = Vec::new();
        if let Some(condition) = &self.condition {
            conditions.push(state.create_logical_expr(condition, &schema)?);
        }
        if let Some(period) = self.period {
            let Some(time) = layout.time() else {
                return Err(DataFusionError::Plan("retention_period needs a time_column".to_owned()));
            };
            let from = now.saturating_sub(nanoseconds(period));
            let stays = at_or_after(layout.schema().field(time.column), time.format, from)?;
            conditions.push(!stays);
        }
        // `now()` is one moment, and has to be in place before anything is evaluated.
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(Some(DateTime::from_timestamp_nanos(now)))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let each = conditions.into_iter().map(|condition| {
            let plain = simplifier.simplify(simplifier.coerce(condition, &schema)?)?;
            state.create_physical_expr(plain, &schema)
        });
        each.collect()
    }
}

/// Saturating: three hundred years are for ever.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_delete_with_a_condition_is_retention() {
        let of = |dataset: &str, sql: &str| condition(sql, &dataset.parse().unwrap());
        for right in ["t", "public.t", "spice.public.T", "\"t\""] {
            let sql = format!("DELETE FROM {right} WHERE a < 3 AND b");
            assert_eq!(of("t", &sql).as_deref(), Ok("a < 3 AND b"), "{right}");
        }
        assert_eq!(of("s.t", "DELETE FROM s.t WHERE a").as_deref(), Ok("a"));
        for wrong in [
            "DELETE FROM t",
            "SELECT 1",
            "DELETE FROM t WHERE a; DELETE FROM t",
            "nonsense",
            "DELETE FROM other WHERE a",
            "DELETE FROM s.t WHERE a",
            "DELETE FROM \"T\" WHERE a",
            "DELETE FROM t USING u WHERE a",
            "DELETE FROM t WHERE a LIMIT 3",
            "DELETE FROM t, u WHERE a",
            "DELETE FROM t JOIN u ON t.a = u.a WHERE a",
        ] {
            assert!(of("t", wrong).unwrap_err().contains("retention_sql"), "{wrong}");
        }
    }
}
