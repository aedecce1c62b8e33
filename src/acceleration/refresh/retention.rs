//! Which rows a table need not hold any more: `retention_period` and `retention_sql`.
//!
//! A generation enters, one without those rows leaves; a query never sees the table between the two.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Delete, Statement as SqlStatement};

use crate::acceleration::store::Layout;

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

/// The condition of a `retention_sql`.
///
/// # Errors
/// Words that say what is wrong: no DELETE, no WHERE.
pub(super) fn condition(sql: &str) -> std::result::Result<String, String> {
    let shape = || "retention_sql is `DELETE FROM <dataset> WHERE <condition>`".to_owned();
    let statements = DFParser::parse_sql(sql).map_err(|error| format!("retention_sql: {error}"))?;
    let statements: Vec<Statement> = statements.into();
    let [Statement::Statement(statement)] = statements.as_slice() else { return Err(shape()) };
    match statement.as_ref() {
        SqlStatement::Delete(Delete { selection: Some(condition), .. }) => Ok(condition.to_string()),
        _ => Err(shape()),
    }
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
        conditions.into_iter().map(|condition| state.create_physical_expr(condition, &schema)).collect()
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
        assert_eq!(condition("DELETE FROM t WHERE a < 3 AND b").as_deref(), Ok("a < 3 AND b"));
        for wrong in ["DELETE FROM t", "SELECT 1", "DELETE FROM t WHERE a; DELETE FROM t", "nonsense"] {
            assert!(condition(wrong).unwrap_err().contains("retention_sql"), "{wrong}");
        }
    }
}
