//! The proof that a SELECT means what a plan means: it is parsed, planned and optimised again over the same
//! schemas, and must come to the same form.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::Statement;

use super::super::route::parse_query;
use super::form::Form;
use super::home;
use super::{Unsent, unsent};

/// Proves that `sql` answers what `plan` answers.
///
/// # Errors
/// The difference, or what could not be planned.
pub(super) fn prove(plan: &LogicalPlan, sql: &str, planner: &SessionState) -> Result<(), Unsent> {
    let again = planned(plan, sql, planner).map_err(|error| {
        tracing::trace!(%sql, %error, "a generated statement cannot be planned");
        unsent(format!("its SQL cannot be planned: {}", first_line(&error)))
    })?;
    if types(plan) != types(&again) {
        tracing::trace!(%sql, wanted = ?types(plan), found = ?types(&again), "a generated statement has other types");
        return Err(unsent("its SQL gives other types"));
    }
    let found = Form::of(&again)?;
    if Form::of(plan)? == found {
        return Ok(());
    }
    // What stood around the plan may have kept the optimizer from an end that it reaches alone.
    let alone = planner.optimize(plan).map_err(|error| unsent(first_line(&error)))?;
    let wanted = Form::of(&alone)?;
    if wanted == found {
        return Ok(());
    }
    tracing::trace!(%sql, wanted = %format!("{wanted:#?}"), found = %format!("{found:#?}"), "a generated statement means something else");
    Err(unsent("its SQL means something else"))
}

/// What is at the bottom of `error`, in one line.
fn first_line(error: &DataFusionError) -> String {
    error.find_root().strip_backtrace().lines().next().unwrap_or_default().to_owned()
}

fn planned(plan: &LogicalPlan, sql: &str, planner: &SessionState) -> Result<LogicalPlan> {
    let query = parse_query(sql).map_err(DataFusionError::Plan)?;
    let upstream = Tables::of(plan, planner)?;
    let again =
        SqlToRel::new_with_options(&upstream, ParserOptions::from(&planner.config_options().sql_parser))
            .sql_statement_to_plan(Statement::Query(Box::new(query)))?;
    planner.optimize(&again)
}

fn types(plan: &LogicalPlan) -> Vec<&DataType> {
    plan.schema().fields().iter().map(|field| field.data_type()).collect()
}

/// What a planner on the upstream sees: its tables by its names, and the functions of the family.
struct Tables<'a> {
    sources: HashMap<Vec<String>, Arc<dyn TableSource>>,
    planner: &'a SessionState,
}

impl<'a> Tables<'a> {
    /// # Errors
    /// Two datasets of one remote table that know different schemas of it.
    fn of(plan: &LogicalPlan, planner: &'a SessionState) -> Result<Self> {
        let mut sources: HashMap<Vec<String>, Arc<dyn TableSource>> = HashMap::new();
        plan.apply_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
            let Some(table) = home::remote_table(scan) else { return Ok(TreeNodeRecursion::Continue) };
            let known = sources.insert(table.remote.parts.clone(), Arc::clone(&scan.source));
            match known.is_some_and(|known| known.schema() != scan.source.schema()) {
                true => Err(DataFusionError::Plan("one table has two schemas".to_owned())),
                false => Ok(TreeNodeRecursion::Continue),
            }
        })?;
        Ok(Self { sources, planner })
    }
}

impl ContextProvider for Tables<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let source = self.sources.get(&name.to_vec()).cloned();
        source.ok_or_else(|| DataFusionError::Plan(format!("no table `{name}`")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.planner.expr_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        None
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.planner.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.planner.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.planner.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.planner.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.planner.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
