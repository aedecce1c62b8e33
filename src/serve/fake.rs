//! A query door for tests: DataFusion over tables in memory, and statements that misbehave on purpose.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Door;
use crate::query::{
    Answer, Caller, CancelError, DatasetState, DatasetStatus, Prepared, Publication, QueryError, QueryRecord,
    QueryRef, Request, SubscribeError,
};
use crate::task::Scope;
use crate::upstream::{ErrorKind, Step, UpstreamError};

type Script = Arc<dyn Fn() -> Result<Answer, QueryError> + Send + Sync>;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Fake {
    context: SessionContext,
    scripts: HashMap<String, Script>,
    pub(super) datasets: Vec<DatasetStatus>,
    publications: Vec<Arc<Publication>>,
    /// Those with an outcome have ended.
    queries: Vec<QueryRecord>,
}

impl Fake {
    /// A table with these batches.
    pub(super) fn table(mut self, name: &str, batches: Vec<RecordBatch>) -> Self {
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        self.context.register_table(name, Arc::new(table)).unwrap();
        self.datasets.push(DatasetStatus {
            name: name.parse().unwrap(),
            from: format!("spice.ai:https://core:1/{name}"),
            endpoint: Some("https://core:1".into()),
            state: DatasetState::Ready,
            is_view: false,
            acceleration: None,
        });
        self
    }

    /// A dataset that can be subscribed to.
    pub(super) fn publishing(mut self, publication: &Arc<Publication>) -> Self {
        self.publications.push(Arc::clone(publication));
        self
    }

    /// Queries that run or have run.
    pub(super) fn asked(mut self, queries: Vec<QueryRecord>) -> Self {
        self.queries = queries;
        self
    }

    /// What `sql` answers, whatever it says.
    pub(super) fn on(
        mut self,
        sql: &str,
        script: impl Fn() -> Result<Answer, QueryError> + Send + Sync + 'static,
    ) -> Self {
        self.scripts.insert(sql.to_owned(), Arc::new(script));
        self
    }

    /// `sql` fails before its first batch.
    pub(super) fn failing(self, sql: &str, error: QueryError) -> Self {
        self.on(sql, move || Err(error.clone()))
    }

    /// `sql` answers these batches as they are.
    pub(super) fn answering(self, sql: &str, schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        self.on(sql, move || {
            Ok(answer(SchemaRef::clone(&schema), stream::iter(batches.clone().into_iter().map(Ok))))
        })
    }
}

/// An answer of these items.
pub(super) fn answer(
    schema: SchemaRef,
    batches: impl futures::Stream<Item = Result<RecordBatch, QueryError>> + Send + 'static,
) -> Answer {
    Answer::new(schema, Box::pin(batches))
}

/// An answer whose drop cancels the returned token.
pub(super) fn watched(mut answer: Answer, token: &CancellationToken) -> Answer {
    let guard: DropGuard = token.clone().drop_guard();
    answer.parts = Box::pin(answer.parts.inspect(move |_| {
        let _held = &guard;
    }));
    answer
}

/// An upstream's failure of this kind.
pub(super) fn upstream_error(kind: ErrorKind) -> QueryError {
    let source = UpstreamError {
        kind,
        step: Step::Query,
        endpoint: "https://core:50051".into(),
        message: "it went wrong".into(),
        help: Some("try this".into()),
    };
    QueryError::Upstream { dataset: Some("orders".into()), source }
}

/// A free port with its address.
pub(super) async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The door over HTTP; it is served until the scope is dropped or cancelled.
pub(super) async fn http(door: Fake) -> (String, Scope) {
    http_with(door, super::http::HttpOptions::default()).await
}

/// The same with these options.
pub(super) async fn http_with(door: Fake, options: super::http::HttpOptions) -> (String, Scope) {
    let (listener, address) = bind().await;
    let scope = Scope::new();
    let serving = scope.clone();
    scope.spawn_draining("http", async move { super::http::serve(listener, door, options, &serving).await });
    (format!("http://{address}"), scope)
}

fn invalid(error: impl std::fmt::Display) -> QueryError {
    QueryError::Invalid { message: error.to_string() }
}

impl Door for Fake {
    async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        if let Some(script) = self.scripts.get(&request.sql) {
            return script();
        }
        let frame = self.context.sql(&request.sql).await.map_err(invalid)?;
        let batches = frame.execute_stream().await.map_err(invalid)?;
        let schema = batches.schema();
        Ok(answer(schema, batches.map(|batch| batch.map_err(invalid))))
    }

    async fn schema(&self, request: Request) -> Result<SchemaRef, QueryError> {
        if let Some(script) = self.scripts.get(&request.sql) {
            return script().map(|answer| answer.schema);
        }
        let frame = self.context.sql(&request.sql).await.map_err(invalid)?;
        Ok(Arc::clone(frame.schema().inner()))
    }

    async fn prepare(&self, request: Request) -> Result<Prepared, QueryError> {
        let schema = self.schema(request.clone()).await?;
        if self.scripts.contains_key(&request.sql) {
            return Ok(Prepared { schema, parameters: Vec::new() });
        }
        let plan = self.context.state().create_logical_plan(&request.sql).await.map_err(invalid)?;
        let types = plan.get_parameter_types().map_err(invalid)?;
        let field =
            |(name, kind): (String, Option<DataType>)| Field::new(name, kind.unwrap_or(DataType::Utf8), true);
        let mut parameters: Vec<Field> = types.into_iter().map(field).collect();
        parameters.sort_by(|one, other| one.name().cmp(other.name()));
        Ok(Prepared { schema, parameters })
    }

    async fn table_schema(&self, path: &[String]) -> Result<SchemaRef, QueryError> {
        let not_found =
            || QueryError::NotFound { message: format!("there is no dataset `{}`", path.join(".")) };
        let frame = self.context.table(path.join(".")).await.map_err(|_| not_found())?;
        Ok(Arc::clone(frame.schema().inner()))
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        self.datasets.clone()
    }

    fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        let name = path.join(".");
        let found = self.publications.iter().find(|known| known.dataset().to_string() == name);
        found.cloned().ok_or(SubscribeError::Unknown(name))
    }

    fn running_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        let seen = |query: &&QueryRecord| query.outcome.is_none() && caller.commands(&query.principal);
        self.queries.iter().filter(seen).cloned().collect()
    }

    fn ended_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        let seen = |query: &&QueryRecord| query.outcome.is_some() && caller.commands(&query.principal);
        self.queries.iter().filter(seen).cloned().collect()
    }

    fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        let is_meant = |query: &&QueryRecord| query.outcome.is_none() && which == QueryRef::Id(query.id);
        let found = self.queries.iter().find(is_meant).ok_or(CancelError::Unknown)?;
        if caller.commands(&found.principal) { Ok(()) } else { Err(CancelError::Forbidden) }
    }
}
