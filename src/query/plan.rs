//! From a statement to its plans: what it means, where it is answered, and how it runs here.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement;

use crate::acceleration::Pins;
use crate::federation::{self, Note, Reading, Route};
use crate::telemetry::Context;

use super::cache::repeatable;
use super::error::from_datafusion;
use super::parts::Form;
use super::planning::{Joins, Weight, physical_plan};
use super::plans::Learned;
use super::statement::{Explain, parse};
use super::{Engine, QueryError, Request, direct};

/// A statement, planned here and given its tier.
pub(super) struct Planned {
    /// Set for `EXPLAIN` of a query: the rest is of the query itself.
    pub explain: Option<Explain>,
    pub weight: Weight,
    pub plan: Logical,
    pub route: Route,
    /// Whether the plan reads rows of an upstream.
    pub has_remote: bool,
    /// What its client takes.
    pub form: Form,
}

/// What a statement means.
#[derive(Clone)]
pub(super) struct Logical {
    pub plan: LogicalPlan,
    /// Whether DataFusion's rules have been applied, and nothing in it is for an upstream.
    pub is_optimized: bool,
}

/// A plan that runs here, and what of it goes upstream in whole parts.
pub(super) struct Physical {
    pub plan: Arc<dyn ExecutionPlan>,
    /// The session that it was planned in.
    pub task: Arc<TaskContext>,
    pub notes: Vec<Note>,
    /// The generations that it reads.
    pub pins: Arc<Pins>,
    /// Whether it is computed before another thread would have begun.
    pub is_small: bool,
}

impl Logical {
    /// As it was read.
    pub fn read(plan: LogicalPlan) -> Self {
        Self { plan, is_optimized: false }
    }
}

impl Engine {
    /// Plans locally, for errors in our words and to refuse anything but reading, and finds the tier.
    pub(super) async fn plan(&self, request: &Request) -> Result<Planned, QueryError> {
        let version = self.federation.catalog_version();
        let (weight, form) = (Weight::of(&request.sql), Form::of(request.protocol));
        let known = self.texts.of(request).and_then(|text| self.plans.recall(&text, version));
        if let Some(Learned { plan, reading, reason }) = known {
            tracing::debug!("planned as a statement of this shape was");
            tell_reading(&reading);
            let plan = Logical { plan, is_optimized: true };
            let route = Route::Scan { reason: reason.to_string() };
            return Ok(Planned { explain: None, weight, plan, route, has_remote: false, form });
        }
        let planning = async {
            let parsed = parse(&request.sql, &request.parameters)?;
            self.federation.check(&parsed.statement)?;
            let plan = self.logical(parsed.statement.clone()).await?;
            let reading = Arc::new(self.federation.reading(&plan));
            let has_remote = reading.has_remote;
            tell_reading(&reading);
            let route = self.federation.route(&parsed.statement);
            if parsed.explain.is_none() {
                self.texts.learn(request, &parsed.statement);
            }
            match (&route, &parsed.explain, self.texts.of(request)) {
                (Route::Forward(forward), None, Some(text)) => {
                    self.shapes.learn(&self.federation, &text, version, forward);
                }
                (Route::Scan { reason }, None, Some(text))
                    if !has_remote && repeatable(&plan, &|scan| self.is_dataset(scan)) =>
                {
                    let (plan, reason) = (plan.clone(), reason.as_str().into());
                    self.learn(&text, version, Learned { plan, reading, reason }).await;
                }
                _ => {}
            }
            let plan = Logical::read(plan);
            Ok(Planned { explain: parsed.explain, weight, plan, route, has_remote, form })
        };
        weight.aside(planning).await
    }

    /// Whether a step reads a dataset or a view.
    pub(super) fn is_dataset(&self, scan: &TableScan) -> bool {
        self.federation.find(&scan.table_name.to_vec()).is_some()
    }

    pub(super) async fn logical(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        let plan = self.federation.reader().statement_to_plan(statement).await.map_err(from_datafusion)?;
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading
            .verify_plan(&plan)
            .map_err(|_| QueryError::ReadOnly { statement: "this statement".to_owned() })?;
        Ok(plan)
    }

    pub(super) async fn physical(
        &self,
        logical: Logical,
        joins: Joins,
        weight: Weight,
    ) -> Result<Physical, QueryError> {
        let Logical { plan, is_optimized } = logical;
        // However often the statement reads an accelerated table, it reads one generation of it.
        let (config, pins) = Pins::into_config(self.federation.reader().config().clone());
        let config = federation::traced(joins.configured(config));
        if is_optimized && let Some(plan) = direct::plan(&plan, &config).map_err(from_datafusion)? {
            let task = direct::task(config, self.federation.context().runtime_env());
            let is_small = direct::is_small(&plan);
            return Ok(Physical { plan, task, notes: Vec::new(), pins, is_small });
        }
        let mut state = self.federation.context().state();
        *state.config_mut() = config;
        let divided = async {
            match is_optimized {
                true => Ok((plan, Vec::new())),
                false => self.federation.push_down(state.optimize(&plan)?),
            }
        };
        let (plan, notes) = weight.aside(divided).await.map_err(from_datafusion)?;
        // Explaining asks nothing upstream; what is known of the rows decides.
        if !is_optimized && !matches!(plan, LogicalPlan::Explain(_)) {
            self.federation.estimate_rows(&plan).await;
        }
        let plan = weight.aside(physical_plan(&plan, &state, joins)).await.map_err(from_datafusion)?;
        let task = Arc::new(TaskContext::from(&state));
        Ok(Physical { plan, task, notes, pins, is_small: false })
    }
}

/// Says in the history what the statement reads; one that reads the history is not in it.
fn tell_reading(reading: &Reading) {
    let Some(context) = Context::current() else { return };
    if reading.has_own {
        context.hush();
    }
    tell_datasets(&context, reading.datasets.iter().map(String::as_str));
}

pub(super) fn tell_datasets<'a>(context: &Context, datasets: impl Iterator<Item = &'a str>) {
    context.label("datasets", datasets.collect::<Vec<_>>().join(","));
}
