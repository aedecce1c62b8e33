//! Lets a statement in, plans it, decides its tier, and runs it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::acceleration::{Acceleration, Ask, AskError, Pins, PutError, Writer};
use crate::federation::{Federation, Forward, Reason, Route, State, Status};
use crate::name::QueryId;
use crate::telemetry::Context;
use crate::upstream::{UpstreamError, is_same_but_layout};
use crate::wire::Part;

use super::admission::{Admission, Counted, QueueOptions, Turn};
use super::cache::ResultsCache;
use super::cached::{Reply, holding, refuse_run};
use super::computed;
use super::deadline::{Deadline, within};
use super::error::{from_datafusion, not_ready};
use super::parts::{self, Form, Items, Parts};
use super::plan::{Logical, Physical, Planned, tell_datasets};
use super::planning::{Joins, Weight, is_joining_in_memory};
use super::plans::Plans;
use super::processed;
use super::records::{Place, Records};
use super::shapes::Shapes;
use super::statement::Explain;
use super::written::Texts;
use super::{
    Answer, Batches, Cached, Caller, CancelError, DatasetState, DatasetStatus, QueryError, QueryRecord,
    QueryRef, Request, explain,
};

/// Schemas promised by upstreams are remembered for this many statements, this long.
const PROMISES_MAX: u64 = 1_000;
const PROMISE_TTL: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer where nothing else is set.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(300);
const STALL_LOOK_MIN: Duration = Duration::from_millis(100);
const STALL_LOOK_MAX: Duration = Duration::from_secs(5);

/// Process-wide settings of queries.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `runtime.query.timeout`; none means that a query may take as long as it takes.
    pub timeout: Option<Duration>,
    pub queue: QueueOptions,
    /// `runtime.params.query_client_timeout`: how long a client may take nothing of an answer.
    pub client_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: None, queue: QueueOptions::default(), client_timeout: CLIENT_TIMEOUT }
    }
}

/// Plans and runs statements over the datasets of one spicepod. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) federation: Federation,
    pub(super) acceleration: Acceleration,
    options: Options,
    pub(super) running: Admission,
    /// Statements that are only planned, for their schema. A queue of its own: a client may ask for a schema in the
    /// middle of reading an answer, and would wait for itself. It is never held longer than one call.
    pub(super) planning: Admission,
    /// The upstream's schema of a forwarded statement, by its SQL and upstream.
    promises: moka::sync::Cache<Promised, SchemaRef>,
    pub(super) texts: Texts,
    pub(super) shapes: Shapes,
    pub(super) plans: Plans,
    cache: Option<ResultsCache>,
    pub(super) records: Records,
    /// The version of the configuration that it answers for.
    config: Option<Arc<str>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Promised {
    upstream: crate::upstream::UpstreamId,
    sql: String,
}

/// A started statement.
pub(super) struct Started {
    pub schema: SchemaRef,
    pub parts: Parts,
    /// What it reads of the tables that are kept here; none where it was sent whole.
    pub pins: Option<Arc<Pins>>,
}

impl Engine {
    #[must_use]
    pub fn new(federation: Federation, options: Options) -> Self {
        let promises =
            moka::sync::Cache::builder().max_capacity(PROMISES_MAX).time_to_live(PROMISE_TTL).build();
        let running = Admission::new(options.queue, Counted::Queries);
        let planning = Admission::new(options.queue, Counted::Nothing);
        let acceleration = Acceleration::default();
        let records = Records::new(federation.tracer().clone());
        Self {
            federation,
            acceleration,
            options,
            running,
            planning,
            promises,
            texts: Texts::new(),
            shapes: Shapes::new(),
            plans: Plans::new(),
            cache: None,
            records,
            config: None,
        }
    }

    /// The same of the configuration of this version.
    #[must_use]
    pub fn of_config(self, version: Arc<str>) -> Self {
        Self { config: Some(version), ..self }
    }

    /// The same in the place of `former`: one book for the queries of both, and one queue where it is as long.
    #[must_use]
    pub fn after(self, former: &Self) -> Self {
        let records = former.records.clone();
        match self.options.queue == former.options.queue {
            true => {
                let (running, planning) = (former.running.clone(), former.planning.clone());
                Self { records, running, planning, ..self }
            }
            false => Self { records, ..self },
        }
    }

    /// The same with a results cache.
    #[must_use]
    pub fn caching(self, cache: Option<ResultsCache>) -> Self {
        Self { cache, ..self }
    }

    /// The same with the datasets that are kept here.
    #[must_use]
    pub fn accelerated(self, acceleration: Acceleration) -> Self {
        Self { acceleration, ..self }
    }

    /// Runs a statement. Returns when the first batch (or the end) is here, so that an early failure is
    /// an error of this call.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        let id = QueryId::random();
        let begun = Instant::now();
        let mut tracked = self.records.enter(id, &request);
        let replying = tracked.context().scope(self.reply(id, &request));
        let answer = tracked.until_cancelled(replying).await;
        let elapsed_ms = begun.elapsed().as_millis() as u64;
        match answer {
            Ok(Reply { schema, parts, cached, place }) => {
                tracing::debug!(query = %id, elapsed_ms, cache = ?cached.as_ref().map(|cached| cached.status), "query answers");
                tracked.is_answered(place, cached.as_ref());
                let config = self.config.clone();
                let parts = tracked.follow(parts, Arc::clone(&schema));
                Ok(Answer { id, schema, parts, cached, config })
            }
            Err(error) => {
                tracing::debug!(query = %id, elapsed_ms, %error, "query failed");
                Err(error)
            }
        }
    }

    async fn reply(&self, id: QueryId, request: &Request) -> Result<Reply, QueryError> {
        let deadline = self.deadline();
        if let Some(reply) = self.cache.as_ref().and_then(|cache| self.recall(cache, request)) {
            return Ok(reply);
        }
        let turn = self.running.enter(deadline, request.protocol).await.inspect_err(|error| {
            tracing::debug!(query = %id, %error, "query refused");
        })?;
        let turn = match self.run_known(request, deadline, turn).await? {
            Ok(reply) => return Ok(reply),
            Err(turn) => turn,
        };
        // On the heap: who is answered without a plan need not carry room for one from task to task.
        match &self.cache {
            Some(cache) => Box::pin(self.consult(cache, request, deadline, turn)).await,
            None => Box::pin(self.run_uncached(request, deadline, turn)).await,
        }
    }

    async fn run_uncached(
        &self,
        request: &Request,
        deadline: Option<Deadline>,
        turn: Turn,
    ) -> Result<Reply, QueryError> {
        refuse_run(request)?;
        let planned = within(deadline, self.plan(request)).await?;
        self.run_alone(planned, deadline, turn, None).await
    }

    /// The schema that [`Engine::run`] will answer with, without running.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn schema(&self, request: Request) -> Result<SchemaRef, QueryError> {
        let deadline = self.deadline();
        let _turn = self.planning.enter(deadline, request.protocol).await?;
        // Nothing was run: what is asked of upstreams hangs on the caller.
        let context = Context::root(self.federation.tracer(), request.caller.as_ref());
        context.scope(within(deadline, self.find_schema(&request))).await
    }

    pub(super) async fn find_schema(&self, request: &Request) -> Result<SchemaRef, QueryError> {
        if let Some(forward) = self.known_forward(request)
            && let Some(schema) = self.promises.get(&Promised::of(&forward))
        {
            return Ok(schema);
        }
        let planned = self.plan(request).await?;
        if planned.explain.is_some() {
            return Ok(explain::schema());
        }
        if let Route::Forward(forward) = &planned.route {
            match self.promise(forward, &planned.plan.plan).await {
                Err(error) if falls_back(&error) => {}
                other => return other,
            }
        }
        Ok(self.physical(planned.plan, Joins::InMemory, planned.weight).await?.plan.schema())
    }

    /// The schema of one dataset or view by its name parts (`["t"]`, `["s","t"]`, `["a.b.t"]`).
    ///
    /// # Errors
    /// [`QueryError::NotFound`] for an unknown name.
    pub async fn table_schema(&self, path: &[String]) -> Result<SchemaRef, QueryError> {
        let Some(status) = self.find(path) else {
            return Err(QueryError::NotFound { message: format!("table `{}` not found", path.join(".")) });
        };
        if let Some(schema) = status.state.schema() {
            return Ok(Arc::clone(schema));
        }
        let reason = match status.state {
            State::Error { reason, .. } => Some(reason),
            State::Initializing | State::Ready { .. } => None,
        };
        Err(not_ready(&status.name, status.endpoint, reason))
    }

    /// The dataset or view that these parts name, as they are written or in small letters.
    pub(super) fn find(&self, path: &[String]) -> Option<Status> {
        let name = path.join(".");
        let exact: Vec<String> = name.split('.').map(|part| part.trim_matches('"').to_owned()).collect();
        let lower: Vec<String> = exact.iter().map(|part| part.to_ascii_lowercase()).collect();
        self.federation.find(&exact).or_else(|| self.federation.find(&lower))
    }

    /// The columns of a dataset's primary key, by the parts of its name as for [`Engine::table_schema`]; none where
    /// none is declared.
    #[must_use]
    pub fn primary_key(&self, path: &[String]) -> Vec<String> {
        self.find(path).map(|status| self.acceleration.primary_key(&status.name)).unwrap_or_default()
    }

    /// A way for one client's rows into a dataset, by the parts of its name as for [`Engine::table_schema`].
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn writer(&self, path: &[String]) -> Result<Writer, PutError> {
        let Some(status) = self.find(path) else {
            let why = "there is no dataset of this name".to_owned();
            return Err(PutError::NotWritable { path: path.join("."), why });
        };
        let upstream = match status.state {
            State::Error { reason, .. } => Some(reason.to_string()),
            State::Initializing | State::Ready { .. } => None,
        };
        self.acceleration.writer(&status.name, upstream)
    }

    /// Every dataset and view with its state, in the order of the spicepod.
    #[must_use]
    pub fn datasets(&self) -> Vec<DatasetStatus> {
        let status = |status: Status| DatasetStatus {
            acceleration: self.acceleration.status(&status.name),
            ..dataset_status(status)
        };
        self.federation.status().into_iter().map(status).collect()
    }

    /// Asks for a refresh of an accelerated dataset; returns at once, with the number of the refresh.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn refresh(&self, dataset: &str, ask: Ask) -> Result<u64, AskError> {
        self.acceleration.refresh(dataset, ask)
    }

    /// Replaces `refresh_sql` until the restart.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn set_refresh_sql(&self, dataset: &str, sql: Option<String>) -> Result<(), AskError> {
        self.acceleration.set_refresh_sql(dataset, sql)
    }

    /// The queries that run, oldest first, of those that the caller may see.
    #[must_use]
    pub fn running_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        self.records.running(caller)
    }

    /// The queries that have ended, last first, of those that the caller may see: the last few hundred.
    #[must_use]
    pub fn ended_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        self.records.ended(caller)
    }

    /// Asks a query to end; returns at once.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        self.records.cancel(which, caller)
    }

    /// Ends the queries whose clients take nothing of their answers for [`Options::client_timeout`]: they hold turns and
    /// memory that others wait for. Looks until it is dropped.
    pub async fn end_stalled(self) {
        let limit = self.options.client_timeout;
        // Not later than a quarter of the limit after it.
        let mut looks = tokio::time::interval((limit / 4).clamp(STALL_LOOK_MIN, STALL_LOOK_MAX));
        loop {
            looks.tick().await;
            self.records.end_stalled(limit);
        }
    }

    /// Where a statement will be answered. An upstream that refuses the whole of it may still be asked for parts.
    pub(super) fn place(planned: &Planned) -> Place {
        match &planned.route {
            Route::Forward(_) => Place::Pushed,
            Route::Scan { .. } if planned.has_remote => Place::Federated,
            Route::Scan { .. } => Place::Local,
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.options.timeout.map(Deadline::after)
    }

    /// Runs what was planned, until its first batch, or the end, is here.
    pub(super) async fn start(&self, planned: Planned) -> Result<Started, QueryError> {
        if let Some(context) = Context::current() {
            context.executes();
        }
        let Planned { explain, weight, plan, route, form, .. } = planned;
        if let Some(explain) = explain {
            return Box::pin(self.start_explain(explain, plan, route, weight)).await;
        }
        match route {
            Route::Forward(forward) => self.start_forward(&forward, plan, weight, form).await,
            Route::Scan { reason } => {
                tracing::debug!(reason, "answered by scans");
                self.start_scan(plan, weight).await
            }
        }
    }

    async fn start_scan(&self, plan: Logical, weight: Weight) -> Result<Started, QueryError> {
        let physical = self.physical(plan.clone(), Joins::InMemory, weight).await?;
        let can_sort = is_joining_in_memory(&physical.plan);
        match self.start_physical(physical).await {
            // Nothing has been answered yet: the same again, with joins that can spill.
            Err(QueryError::ResourcesExhausted { message }) if can_sort => {
                tracing::debug!(message, "a join does not fit into memory, joining by sorting");
                let physical = self.physical(plan, Joins::Sorting, weight).await?;
                self.start_physical(physical).await
            }
            other => other,
        }
    }

    async fn start_physical(&self, physical: Physical) -> Result<Started, QueryError> {
        let Physical { plan, task, pins, is_small, .. } = physical;
        let schema = plan.schema();
        let stream = match is_small {
            true => execute_stream(Arc::clone(&plan), task),
            false => computed::rows(Arc::clone(&plan), task),
        };
        let stream = stream.map_err(from_datafusion)?;
        let batches = processed::of_plan(self.reported(stream), plan);
        let started = Started { schema, parts: parts::of_batches(batches), pins: Some(pins) };
        started.first().await
    }

    /// Local batches; an upstream's failure among them is told to its keeper.
    fn reported(&self, stream: SendableRecordBatchStream) -> Batches {
        let federation = self.federation.clone();
        stream
            .map_err(move |error| {
                federation.report_scan(&error);
                from_datafusion(error)
            })
            .boxed()
    }

    async fn start_forward(
        &self,
        forward: &Forward,
        plan: Logical,
        weight: Weight,
        form: Form,
    ) -> Result<Started, QueryError> {
        metrics::counter!("query_forwarded").increment(1);
        let refused = match self.forward(forward, Some(&plan.plan), form).await {
            Err(error) if falls_back(&error) => error,
            other => return other,
        };
        tracing::debug!(%refused, "the upstream refused the statement, answering by scans");
        match Box::pin(self.start_scan(plan, weight)).await {
            // Both tiers call it the user's fault: the upstream's words are about the user's statement.
            Err(error) if error.is_the_users() => Err(refused),
            other => other,
        }
    }

    async fn forward(
        &self,
        forward: &Forward,
        plan: Option<&LogicalPlan>,
        form: Form,
    ) -> Result<Started, QueryError> {
        let key = Promised::of(forward);
        let told = self.promises.get(&key);
        let is_told = told.is_some();
        let sent = forward.upstream.pass(&forward.sql, told, form == Form::Messages).await;
        let passage = sent.map_err(|source| self.upstream_error(forward, source))?;
        let promised = match plan {
            Some(plan) => promised_schema(forward, &passage.schema, plan),
            None => Arc::clone(&passage.schema),
        };
        // Of a known shape each text may be another one: most are never asked for again.
        if is_told || plan.is_some() {
            self.promises.insert(key, Arc::clone(&passage.schema));
        }
        let (engine, forward) = (self.clone(), forward.clone());
        let schema = Arc::clone(&promised);
        let parts = passage.parts.map(move |part| {
            match part.map_err(|source| engine.upstream_error(&forward, source))? {
                Part::Batch(batch) if forward.requalified => renamed(&batch, &schema).map(Part::Batch),
                part => Ok(part),
            }
        });
        let parts = processed::of_upstream(parts.boxed(), passage.received);
        Ok(Started { schema: promised, parts, pins: None })
    }

    /// How a statement is sent, where one of its shape has been sent before.
    fn known_forward(&self, request: &Request) -> Option<Forward> {
        self.shapes.recall(&self.texts.of(request)?, self.federation.catalog_version())
    }

    /// Sends a statement of a shape that has been sent before, without planning it; gives the turn back where there was
    /// none, or where the upstream refuses it: then a plan says more, or answers by scans.
    async fn run_known(
        &self,
        request: &Request,
        deadline: Option<Deadline>,
        turn: Turn,
    ) -> Result<Result<Reply, Turn>, QueryError> {
        let is_kept = self.cache.as_ref().is_some_and(ResultsCache::keeps_upstreams);
        if is_kept || request.cache.only_if_cached {
            return Ok(Err(turn));
        }
        let Some(forward) = self.known_forward(request) else { return Ok(Err(turn)) };
        tracing::debug!("sent as a statement of this shape was");
        if let Some(context) = Context::current() {
            let names: Vec<String> = forward.datasets.iter().map(ToString::to_string).collect();
            tell_datasets(&context, names.iter().map(String::as_str));
            context.executes();
        }
        let started = match within(deadline, self.forward(&forward, None, Form::of(request.protocol))).await {
            Err(error) if falls_back(&error) => return Ok(Err(turn)),
            started => started?,
        };
        metrics::counter!("query_forwarded").increment(1);
        let parts = guarded(holding(started.parts, turn), deadline);
        let cached = self.cache.as_ref().map(|_| Cached::bypass());
        Ok(Ok(Reply { schema: started.schema, parts, cached, place: Some(Place::Pushed) }))
    }

    async fn promise(&self, forward: &Forward, plan: &LogicalPlan) -> Result<SchemaRef, QueryError> {
        let key = Promised::of(forward);
        if let Some(schema) = self.promises.get(&key) {
            return Ok(promised_schema(forward, &schema, plan));
        }
        let sent = forward.upstream.plan(&forward.sql).await;
        let planned = sent.map_err(|source| self.upstream_error(forward, source))?;
        let schema = self.settled(planned.schema, plan)?;
        self.promises.insert(key, Arc::clone(&schema));
        Ok(promised_schema(forward, &schema, plan))
    }

    /// GetFlightInfo has the types of DataFusion's first plan, where `CASE … THEN 0 ELSE 1.05 END` is an
    /// integer; the answer will have those of the last. Our own last plan knows them.
    fn settled(&self, promised: SchemaRef, plan: &LogicalPlan) -> Result<SchemaRef, QueryError> {
        let last = self.federation.context().state().optimize(plan).map_err(from_datafusion)?;
        if last.schema().fields().len() != promised.fields().len() {
            return Ok(promised);
        }
        let fields = promised.fields().iter().zip(last.schema().fields());
        let fields: Vec<Field> = fields
            .map(|(field, last)| match is_same_but_layout(field.data_type(), last.data_type()) {
                true => field.as_ref().clone(),
                false => field.as_ref().clone().with_data_type(last.data_type().clone()),
            })
            .collect();
        Ok(Arc::new(Schema::new_with_metadata(fields, promised.metadata().clone())))
    }

    fn upstream_error(&self, forward: &Forward, source: UpstreamError) -> QueryError {
        self.federation.report(&forward.upstream, &source);
        let names: Vec<String> = forward.datasets.iter().map(ToString::to_string).collect();
        QueryError::Upstream { dataset: Some(names.join(", ")), source }
    }

    async fn start_explain(
        &self,
        statement: Explain,
        plan: Logical,
        route: Route,
        weight: Weight,
    ) -> Result<Started, QueryError> {
        let batches = match route {
            Route::Forward(forward) => {
                let received = match statement.analyze {
                    true => {
                        let started = self.start_forward(&forward, plan, weight, Form::Batches).await?;
                        Some(explain::drain(started.into_batches()).await?)
                    }
                    false => None,
                };
                vec![explain::forwarded(&forward, received)?]
            }
            Route::Scan { reason } => {
                let plan = Logical::read(self.logical(statement.whole).await?);
                let physical = self.physical(plan, Joins::InMemory, weight).await?;
                let mut batches = vec![explain::scanned(&reason, &physical.notes)?];
                let started = self.start_physical(physical).await?;
                batches.extend(started.into_batches().try_collect::<Vec<_>>().await?);
                batches
            }
        };
        Ok(Started {
            schema: explain::schema(),
            parts: futures::stream::iter(batches.into_iter().map(|batch| Ok(Part::Batch(batch)))).boxed(),
            pins: None,
        })
    }
}

impl Started {
    /// Waits for the first batch; its error becomes the call's.
    async fn first(self) -> Result<Self, QueryError> {
        let Self { schema, mut parts, pins } = self;
        let first = parts.next().await.transpose()?;
        let parts = futures::stream::iter(first.map(Ok)).chain(parts).boxed();
        Ok(Self { schema, parts, pins })
    }

    fn into_batches(self) -> Batches {
        parts::into_batches(self.parts, self.schema)
    }
}

impl Promised {
    fn of(forward: &Forward) -> Self {
        Self { upstream: forward.upstream.id().clone(), sql: forward.sql.clone() }
    }
}

/// What lets a forwarded statement be answered by scans: the upstream cannot plan it.
fn falls_back(error: &QueryError) -> bool {
    matches!(error, QueryError::Upstream { source, .. } if source.is_refusal())
}

/// The upstream's own schema; where qualifiers were dropped on the way, the names that the user's
/// statement gives.
fn promised_schema(forward: &Forward, upstream: &SchemaRef, plan: &LogicalPlan) -> SchemaRef {
    let local = plan.schema();
    if !forward.requalified || local.fields().len() != upstream.fields().len() {
        return Arc::clone(upstream);
    }
    let fields: Vec<Field> = upstream
        .fields()
        .iter()
        .zip(local.fields())
        .map(|(field, local)| field.as_ref().clone().with_name(local.name()))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, upstream.metadata().clone()))
}

/// The same columns under the names of `schema`.
fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, QueryError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|error| QueryError::Internal { message: error.to_string() })
}

fn dataset_status(status: Status) -> DatasetStatus {
    let state = match status.state {
        State::Initializing => DatasetState::Initializing,
        State::Ready { .. } => DatasetState::Ready,
        State::Error { reason: Reason::Loading { why: None, .. }, .. } => DatasetState::Initializing,
        State::Error { reason, schema, since } => {
            let reason = match reason {
                Reason::Upstream(source) => {
                    QueryError::Upstream { dataset: Some(status.name.to_string()), source }
                }
                other => not_ready(&status.name, status.endpoint.clone(), Some(other)),
            };
            DatasetState::Error { reason: Arc::new(reason), since, was_ready: schema.is_some() }
        }
    };
    DatasetStatus {
        name: status.name,
        from: status.from,
        endpoint: status.endpoint,
        state,
        is_view: status.is_view,
        acceleration: None,
    }
}

/// Ends after the first error, and at the deadline with one.
pub(super) fn guarded<I: Send + 'static>(rows: Items<I>, deadline: Option<Deadline>) -> Items<I> {
    futures::stream::unfold(Some(rows), move |running| async move {
        let mut rows = running?;
        match within(deadline, rows.next().map(Option::transpose)).await {
            Ok(Some(row)) => Some((Ok(row), Some(rows))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
