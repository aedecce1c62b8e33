//! Rows of a dataset from its upstream: a statement and a filter enter, a stream of batches leaves.
//!
//! The statement is planned over the remote tables alone, and what one upstream can answer is pushed there, as for
//! any query.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;

use crate::federation::{self, Federation};
use crate::name::DatasetName;

/// A statement over the remote tables.
pub(super) struct Fetch {
    federation: Federation,
    plan: LogicalPlan,
}

impl Fetch {
    /// The whole table, or what `sql` (`refresh_sql`) makes of it.
    ///
    /// # Errors
    /// A statement that cannot be planned, or does more than read.
    pub(super) async fn plan(federation: &Federation, name: &DatasetName, sql: Option<&str>) -> Result<Self> {
        let context = federation.sources();
        let plan = match sql {
            None => context.table(reference(name)).await?.into_unoptimized_plan(),
            Some(sql) => {
                let plan = context.state().create_logical_plan(sql).await?;
                let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
                reading.with_allow_statements(false).verify_plan(&plan)?;
                plan
            }
        };
        Ok(Self { federation: federation.clone(), plan })
    }

    /// The columns of the rows.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// # Errors
    /// A filter over columns that there are not.
    pub(super) fn filtered(self, filter: Expr) -> Result<Self> {
        let plan = LogicalPlanBuilder::from(self.plan).filter(filter)?.build()?;
        Ok(Self { plan, ..self })
    }

    /// Begins to fetch; nothing is asked before the stream is polled.
    ///
    /// # Errors
    /// What planning meets.
    pub(super) async fn rows(self) -> Result<SendableRecordBatchStream> {
        let context = self.federation.sources();
        let mut state = context.state();
        *state.config_mut() = federation::traced(state.config().clone());
        let plan = state.optimize(&self.plan)?;
        let (plan, _) = self.federation.push_down(plan)?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        execute_stream(plan, Arc::new(TaskContext::from(&state)))
    }
}

/// How the catalog knows a dataset.
pub(super) fn reference(name: &DatasetName) -> TableReference {
    match name.schema() {
        Some(schema) => TableReference::partial(schema, name.table()),
        None => TableReference::bare(name.table()),
    }
}
