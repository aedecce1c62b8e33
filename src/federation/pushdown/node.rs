//! A part of a plan that an upstream answers: the node that stands in the logical plan, and the planner that
//! makes a scan of it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::FutureExt;

use super::super::scan::{Fallback, Keys, RemoteScan, Shape};
use super::super::table::speaks_datafusion;
use super::estimate;
use super::home::Tables;
use super::select::Select;

/// A subtree that one upstream answers with one SELECT.
#[derive(Clone)]
pub(in crate::federation) struct RemoteQuery {
    pub tables: Tables,
    pub select: Select,
    /// The subtree itself: it answers by scans where the upstream refuses the SELECT.
    pub instead: Arc<LogicalPlan>,
    /// Plans `instead` when it is needed.
    pub planner: Arc<SessionState>,
}

impl RemoteQuery {
    fn fallback(&self) -> Fallback {
        let (planner, plan) = (Arc::clone(&self.planner), Arc::clone(&self.instead));
        Arc::new(move || {
            let (planner, plan) = (Arc::clone(&planner), Arc::clone(&plan));
            async move { planner.query_planner().create_physical_plan(&plan, planner.as_ref()).await }.boxed()
        })
    }

    fn scan(&self) -> Result<RemoteScan> {
        let schema = Arc::clone(self.instead.schema().inner());
        let Tables { upstream, datasets } = self.tables.clone();
        let selectivity = self.planner.config_options().optimizer.default_filter_selectivity;
        let rows = estimate::rows(&self.instead, usize::from(selectivity));
        let family = speaks_datafusion(upstream.flavor()).then(|| Arc::clone(&self.planner));
        let keys = Keys::try_around(&self.named(&schema), family)?;
        let sql = self.select.sql.clone();
        Ok(RemoteScan::new(datasets, upstream, sql, Shape::Rows, schema)
            .with_rows(rows)
            .with_keys(keys)
            .with_fallback(self.fallback()))
    }

    /// `schema` under the names that the SELECT gives its columns.
    fn named(&self, schema: &Schema) -> SchemaRef {
        let fields = schema.fields().iter().zip(&self.select.names);
        Arc::new(Schema::new(
            fields.map(|(field, name)| field.as_ref().clone().with_name(name)).collect::<Vec<_>>(),
        ))
    }
}

impl fmt::Debug for RemoteQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteQuery({}: {})", self.tables.upstream.endpoint(), self.select.sql)
    }
}

impl PartialEq for RemoteQuery {
    fn eq(&self, other: &Self) -> bool {
        self.select.sql == other.select.sql && self.tables.upstream.id() == other.tables.upstream.id()
    }
}

impl Eq for RemoteQuery {}

impl Hash for RemoteQuery {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.select.sql.hash(state);
    }
}

impl PartialOrd for RemoteQuery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.select.sql.partial_cmp(&other.select.sql)
    }
}

impl UserDefinedLogicalNodeCore for RemoteQuery {
    fn name(&self) -> &'static str {
        "RemoteQuery"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        self.instead.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteQuery: upstream={}, sql={}", self.tables.upstream.endpoint(), self.select.sql)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match exprs.is_empty() && inputs.is_empty() {
            true => Ok(self.clone()),
            false => Err(DataFusionError::Internal("RemoteQuery has no inputs".to_owned())),
        }
    }
}

/// DataFusion's planner, and scans for the parts that upstreams answer.
#[derive(Debug)]
pub(in crate::federation) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(RemoteQueries)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct RemoteQueries;

#[async_trait]
impl ExtensionPlanner for RemoteQueries {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let query = node.as_any().downcast_ref::<RemoteQuery>();
        let scan = query.map(RemoteQuery::scan).transpose()?;
        Ok(scan.map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>))
    }
}
