//! What a statement reads, and whether two runs of it may differ when nothing that it reads did.
//!
//! A plan enters as it was made from the statement, before anything was evaluated in it: views are inlined there, and
//! `now()` is still a function.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};

use crate::acceleration::{AcceleratedTable, Table};

/// The tables under a plan.
pub(in crate::query) struct Reading {
    /// All of them, in the order of the plan.
    pub providers: Vec<Arc<dyn TableProvider>>,
    /// Those whose rows come from here and from nowhere else.
    pub tables: Vec<Arc<Table>>,
    /// Whether there are others: what they answer may change unseen.
    pub is_upstream: bool,
}

impl Reading {
    /// None where a second run may differ by itself, or where nothing would be saved: volatile functions, tables of
    /// this process (`information_schema`), no table at all, anything but a query. `is_dataset` knows the names of
    /// datasets and views.
    pub fn of(plan: &LogicalPlan, is_dataset: &dyn Fn(&TableScan) -> bool) -> Option<Self> {
        Self::of_any(plan, is_dataset).filter(|reading| !reading.providers.is_empty())
    }

    /// The same, of no table perhaps.
    fn of_any(plan: &LogicalPlan, is_dataset: &dyn Fn(&TableScan) -> bool) -> Option<Self> {
        let mut reading = Self { providers: Vec::new(), tables: Vec::new(), is_upstream: false };
        let mut is_stable = true;
        // The visitor cannot fail.
        let _ = plan.apply_with_subqueries(|node| {
            is_stable &= is_query(node) && has_stable_expressions(node);
            if let LogicalPlan::TableScan(scan) = node {
                is_stable &= reading.add(scan, is_dataset);
            }
            Ok(if is_stable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        is_stable.then_some(reading)
    }

    /// Whether it is a table whose changes are known, or told by an upstream.
    fn add(&mut self, scan: &TableScan, is_dataset: &dyn Fn(&TableScan) -> bool) -> bool {
        let Ok(provider) = source_as_provider(&scan.source) else { return false };
        match provider.downcast_ref::<AcceleratedTable>().map(AcceleratedTable::table) {
            Some(table) => self.tables.push(Arc::clone(table)),
            None if is_dataset(scan) => self.is_upstream = true,
            None => return false,
        }
        self.providers.push(provider);
        true
    }
}

/// Whether two runs of a plan, as it was made from its statement, differ in nothing but what the tables of datasets hold:
/// no volatile functions, no tables of this process.
pub(in crate::query) fn repeatable(plan: &LogicalPlan, is_dataset: &dyn Fn(&TableScan) -> bool) -> bool {
    Reading::of_any(plan, is_dataset).is_some()
}

/// Whether the step computes rows; others describe, explain or change something.
fn is_query(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => true,
        LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_) => false,
    }
}

fn has_stable_expressions(node: &LogicalPlan) -> bool {
    let mut is_stable = true;
    // As above.
    let _ = node.apply_expressions(|expr| {
        is_stable &= !expr.exists(|part| Ok(!is_stable_here(part))).unwrap_or(true);
        Ok(if is_stable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    is_stable
}

/// Subqueries in an expression are steps of the plan, and looked at there.
fn is_stable_here(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility,
        Expr::HigherOrderFunction(call) => call.func.signature().volatility,
        Expr::AggregateFunction(call) => call.func.signature().volatility,
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => function.signature().volatility,
            WindowFunctionDefinition::WindowUDF(function) => function.signature().volatility,
        },
        Expr::ScalarVariable(..) | Expr::Placeholder(_) => return false,
        _ => return true,
    };
    // `now()` is stable, the same within one statement: the next statement has another.
    volatility == Volatility::Immutable
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// What a statement over the dataset `t` and the unknown table `other` is taken for.
    async fn read(sql: &str) -> Option<bool> {
        let context = SessionContext::new();
        let schema =
            Schema::new(vec![arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true)]);
        for name in ["t", "other"] {
            context.register_table(name, Arc::new(EmptyTable::new(Arc::new(schema.clone())))).unwrap();
        }
        context.sql("CREATE VIEW v AS SELECT a, random() AS r FROM t").await.unwrap();
        context.sql("CREATE VIEW w AS SELECT a FROM t").await.unwrap();
        let plan = context.state().create_logical_plan(sql).await.unwrap();
        Reading::of(&plan, &|scan| scan.table_name.table() == "t").map(|reading| reading.is_upstream)
    }

    #[tokio::test]
    async fn only_what_a_second_run_would_repeat_is_taken() {
        for sql in [
            "SELECT a + 1 FROM t WHERE a > 3 ORDER BY a LIMIT 2",
            "SELECT count(*), row_number() OVER (ORDER BY a) FROM t GROUP BY a",
            "SELECT * FROM w WHERE a IN (SELECT max(a) FROM t)",
            "WITH c AS (SELECT a FROM t UNION ALL VALUES (1)) SELECT a FROM c",
        ] {
            assert_eq!(read(sql).await, Some(true), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "SELECT a, now() FROM t",
            "SELECT a FROM t WHERE a > random()",
            "SELECT a FROM t WHERE current_date > '2020-01-01'",
            "SELECT uuid() FROM t",
            "SELECT a FROM t WHERE a IN (SELECT CAST(10 * random() AS BIGINT) FROM t)",
            "SELECT sum(a) OVER (ORDER BY random()) FROM t",
            "SELECT a FROM t ORDER BY random()",
            "SELECT * FROM v",
            "SELECT * FROM other",
            "SELECT t.a FROM t JOIN other ON t.a = other.a",
            "SELECT * FROM generate_series(1, 3)",
            "EXPLAIN SELECT a FROM t",
        ] {
            assert_eq!(read(sql).await, None, "{sql}");
        }
    }
}
