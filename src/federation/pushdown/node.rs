//! A part of a plan that an upstream answers: the node that stands in the logical plan, and the planner that
//! makes a scan of it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

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

use super::super::scan::{Fallback, RemoteScan, Shape};
use super::home::Tables;

/// A subtree that one upstream answers with one SELECT.
#[derive(Clone)]
pub(super) struct RemoteQuery {
    pub tables: Tables,
    pub sql: String,
    /// About how many rows come back, where that is known.
    pub rows: Option<usize>,
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

    fn scan(&self) -> RemoteScan {
        let schema = Arc::clone(self.instead.schema().inner());
        let Tables { upstream, datasets } = self.tables.clone();
        RemoteScan::new(datasets, upstream, self.sql.clone(), Shape::Rows, schema)
            .with_rows(self.rows)
            .with_fallback(self.fallback())
    }
}

impl fmt::Debug for RemoteQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteQuery({}: {})", self.tables.upstream.endpoint(), self.sql)
    }
}

impl PartialEq for RemoteQuery {
    fn eq(&self, other: &Self) -> bool {
        self.sql == other.sql && self.tables.upstream.id() == other.tables.upstream.id()
    }
}

impl Eq for RemoteQuery {}

impl Hash for RemoteQuery {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sql.hash(state);
    }
}

impl PartialOrd for RemoteQuery {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.sql.partial_cmp(&other.sql)
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
        write!(f, "RemoteQuery: upstream={}, sql={}", self.tables.upstream.endpoint(), self.sql)
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
        Ok(query.map(|query| Arc::new(query.scan()) as Arc<dyn ExecutionPlan>))
    }
}
