//! Remote tables as DataFusion tables: a statement enters, the way to answer it leaves.
//!
//! Three tiers. *Forwarding*: where every table of a statement lives on one upstream of the DataFusion
//! family, the user's own statement is sent with the upstream's table names. *Verified sub-plans*: of any
//! other plan, the largest parts that live on one upstream are sent as one SELECT each, where that was
//! proven equal. *Scans*: what is left reads each table with the columns, filters and limit that are surely
//! equal, and the rest runs in DataFusion here.

mod arrange;
mod decimals;
mod filter;
mod here;
mod pushdown;
mod registry;
mod resources;
mod rewrite;
mod route;
mod rows;
mod scan;
mod stream;
mod supervise;
mod system;
mod table;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::config::{self, Diagnostic};
use crate::name::DatasetName;
use crate::task::Scope;
use crate::telemetry::{Context, Tracer};
use crate::upstream::{RemoteTableName, Upstream, UpstreamError, UpstreamHealth};

use registry::{Changes, Entry, Names};

pub(crate) use pushdown::Note;
pub(crate) use registry::{DEFAULT_CATALOG, DEFAULT_SCHEMA};
pub use registry::{Reason, State};
pub use resources::Resources;
pub use route::{Forward, Refusal, Route, view_problems};
pub(crate) use scan::ScanError;
pub use system::Telemetry;

/// A dataset and the connection that reaches it.
#[derive(Clone)]
pub struct RemoteDataset {
    pub name: DatasetName,
    /// `from:` as written.
    pub from: String,
    pub upstream: Arc<Upstream>,
    pub remote: RemoteTableName,
}

impl RemoteDataset {
    /// Asks the upstream for the table's schema.
    ///
    /// # Errors
    /// What the call met.
    pub async fn schema(&self) -> Result<SchemaRef, UpstreamError> {
        table::remote_schema(&self.upstream, &self.remote).await
    }
}

/// What is known of one dataset or view.
#[derive(Debug, Clone)]
pub struct Status {
    pub name: DatasetName,
    pub from: String,
    /// `https://host:port`; none for a view.
    pub endpoint: Option<String>,
    pub state: State,
    pub is_view: bool,
}

/// What a plan reads.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Once each.
    pub datasets: BTreeSet<String>,
    /// Rows of an upstream.
    pub has_remote: bool,
    /// Tables of this process.
    pub has_own: bool,
}

/// How statements are planned.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether more than columns, filters and limits of single tables is sent upstream.
    pub push_down: bool,
    /// How many partitions a local plan runs in; as many as there are cores when absent.
    pub target_partitions: Option<usize>,
    /// Memory and temporary files; without limits when absent.
    pub resources: Option<Resources>,
    /// What is done to a physical plan last, for the tables that others put into the catalog.
    pub rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    /// What the tables of the process show, and who records tasks.
    pub telemetry: Telemetry,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            push_down: true,
            target_partitions: None,
            resources: None,
            rules: Vec::new(),
            telemetry: Telemetry::default(),
        }
    }
}

/// The datasets and views of one spicepod, planned over by one session. Cheap to clone.
#[derive(Clone)]
pub struct Federation {
    inner: Arc<Inner>,
}

struct Inner {
    context: SessionContext,
    /// Of the tables that `context` plans over.
    catalog: Changes,
    /// The remote tables alone.
    sources: SessionContext,
    /// Reads SQL, and plans filters again, to prove them.
    planner: Arc<SessionState>,
    /// Datasets in the order of the spicepod, then views.
    entries: Vec<Entry>,
    names: Names,
    /// See [`Options::push_down`].
    push_down: bool,
    tracer: Tracer,
    groups: Vec<supervise::Group>,
    /// Whose turn it is to plan the views.
    views: tokio::sync::Mutex<()>,
    /// Rung when the schema of a remote table was learned.
    changed: tokio::sync::Notify,
    /// Owns what is asked beside the statements; empty until the start.
    background: OnceLock<Scope>,
}

impl Federation {
    /// Checks the views and lays out the catalog; nothing is reached yet.
    ///
    /// # Errors
    /// Views that do not parse, name unknown tables or depend on each other in a circle.
    pub fn try_new(
        datasets: Vec<RemoteDataset>,
        views: &[config::View],
        options: Options,
    ) -> Result<Self, Vec<Diagnostic>> {
        let (entries, names) = route::entries(datasets, views)?;
        let catalog = Changes::default();
        let context = registry::session(entries.iter().map(|entry| &entry.name), &options, &catalog)
            .map_err(|error| vec![Diagnostic::new("InvalidDataset", error.to_string())])?;
        let sources =
            registry::session(entries.iter().map(|entry| &entry.name), &options, &Changes::default())
                .map_err(|error| vec![Diagnostic::new("InvalidDataset", error.to_string())])?;
        system::schema(&options.telemetry)
            .and_then(|schema| registry::add_schema(&context, system::RUNTIME, schema))
            .map_err(|error| vec![Diagnostic::new("Internal", error.to_string())])?;
        let tracer = options.telemetry.tracer;
        let groups = supervise::group(&entries);
        let planner = Arc::new(context.state());
        let views = tokio::sync::Mutex::default();
        let push_down = options.push_down;
        let background = OnceLock::new();
        let changed = tokio::sync::Notify::new();
        let inner = Inner {
            context,
            catalog,
            sources,
            planner,
            entries,
            names,
            push_down,
            tracer,
            groups,
            views,
            changed,
            background,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts reaching the upstreams; each heals by itself for as long as `scope` lives. At most
    /// `parallel` datasets of one upstream are loaded at a time. What is asked beside running statements lives in
    /// `background`: they may outlive `scope`.
    pub fn start(&self, scope: &Scope, background: &Scope, parallel: usize) {
        // Started once; a second start would only share the first one's scope.
        let _ = self.inner.background.set(background.clone());
        supervise::start(self, scope, parallel);
    }

    /// Plans the views over what is known.
    pub async fn look_at_views(&self) {
        self.plan_views().await;
    }

    /// The session that plans and runs what is not forwarded.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.inner.context
    }

    /// The session as SQL is read with it. It is not copied for each statement, and therefore has no time of its own:
    /// optimising wants [`Federation::context`].
    #[must_use]
    pub fn reader(&self) -> &SessionState {
        &self.inner.planner
    }

    /// Who records what is done for whom.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.inner.tracer
    }

    /// A number that stays for as long as names mean the same tables, and may be asked. It is to be read before
    /// planning.
    #[must_use]
    pub fn catalog_version(&self) -> u64 {
        self.inner.catalog.count()
    }

    /// What queries reserve in; accelerated data does too, so that one limit holds for both.
    #[must_use]
    pub fn memory_pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.inner.context.runtime_env().memory_pool)
    }

    /// An optimised plan with what single upstreams can answer taken out, each part as one SELECT, and
    /// what became of every part that was looked at.
    ///
    /// # Errors
    /// What DataFusion's own rewriting meets.
    pub(crate) fn push_down(&self, plan: LogicalPlan) -> datafusion::error::Result<(LogicalPlan, Vec<Note>)> {
        if !self.inner.push_down {
            return Ok((plan, Vec::new()));
        }
        let home = |scan: &TableScan| pushdown::remote_table(scan).map(|table| table.upstream.id().clone());
        let plan = arrange::arrange(plan, &home)?;
        pushdown::cut(plan.data, &self.inner.planner)
    }

    /// What a plan reads; views are what they read.
    pub(crate) fn reading(&self, plan: &LogicalPlan) -> Reading {
        let mut reading = Reading::default();
        // The visitor cannot fail.
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                self.add_scan(&mut reading, scan);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        reading
    }

    fn add_scan(&self, reading: &mut Reading, scan: &TableScan) {
        reading.has_remote |= pushdown::remote_table(scan).is_some();
        match self.inner.names.find(&registry::parts_of(&scan.table_name)) {
            Some(registry::Named::Entry(at)) => {
                reading.datasets.extend(self.inner.entries.get(at).map(|entry| entry.name.to_string()));
            }
            Some(registry::Named::Local) => {
                reading.has_own |= scan.table_name.schema() == Some(system::RUNTIME);
            }
            None => {}
        }
    }

    /// Every dataset and view, in the order of the spicepod.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        self.inner.entries.iter().map(Status::of).collect()
    }

    /// How each upstream is, in the order of its first dataset. Asks nobody.
    #[must_use]
    pub fn upstream_health(&self) -> Vec<UpstreamHealth> {
        let entries = &self.inner.entries;
        let upstreams = self.inner.groups.iter().filter_map(|group| group.upstream(entries));
        upstreams.map(|upstream| upstream.health()).collect()
    }

    /// The entry that SQL calls by these normalised parts.
    #[must_use]
    pub fn find(&self, parts: &[String]) -> Option<Status> {
        match self.inner.names.find(parts)? {
            registry::Named::Entry(at) => self.inner.entries.get(at).map(Status::of),
            registry::Named::Local => None,
        }
    }

    /// Tells the keeper of `upstream` that a query met `error`: it looks whether the upstream is away.
    pub fn report(&self, upstream: &Upstream, error: &UpstreamError) {
        supervise::report(self, upstream, error);
    }

    /// The same for the upstream that a scan read, where its failure is behind `error`.
    pub fn report_scan(&self, error: &DataFusionError) {
        let Some(ScanError { datasets, source }) = ScanError::find(error) else { return };
        let entry = self.inner.entries.iter().find(|entry| datasets.first() == Some(&entry.name));
        if let Some(registry::Kind::Dataset { upstream, .. }) = entry.map(|entry| &entry.kind) {
            self.report(upstream, source);
        }
    }
}

/// A session's config with the place in a trace where this is called: what a plan asks of upstreams hangs on it, in
/// whatever task its partitions run.
pub(crate) fn traced(config: SessionConfig) -> SessionConfig {
    match Context::current() {
        Some(context) => config.with_extension(Arc::new(context)),
        None => config,
    }
}

impl Status {
    fn of(entry: &Entry) -> Self {
        let endpoint = match &entry.kind {
            registry::Kind::Dataset { upstream, .. } => Some(upstream.endpoint().to_owned()),
            registry::Kind::View(_) => None,
        };
        Self {
            name: entry.name.clone(),
            from: entry.from.clone(),
            endpoint,
            state: entry.answering().as_ref().clone(),
            is_view: matches!(entry.kind, registry::Kind::View(_)),
        }
    }
}
