//! Front ends: a request is decoded, asked at the one door for SQL, and its answer encoded. Nothing else.
//!
//! Batches leave as they arrive and only as fast as the client reads; dropping a connection drops its
//! query. No SQL is looked at here, and no dataset is known by more than its name.

mod access;
mod caching;
mod cork;
mod keys;
mod listen;
mod opening;
mod origin;
mod socket;
mod stall;
mod status;
mod tls;
mod trace;

pub mod flight;
pub mod http;
pub mod mcp;
pub mod metrics;

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::datatypes::SchemaRef;

use crate::query::{
    Answer, Ask, AskError, Caller, CancelError, DatasetStatus, Engine, MemoryUse, Prepared, Publication,
    PutError, QueryError, QueryRecord, QueryRef, Request, SubscribeError, Vocabulary, Writer,
};

use crate::upstream::UpstreamHealth;

pub use access::{Access, ApiKey};
pub use keys::ApiKeys;
pub use socket::Listener;
pub use tls::{ServerTls, TlsFiles};

/// The configuration that answers, and what is wrong with the one that does not.
#[derive(Debug, Clone)]
pub struct ConfigStatus {
    /// Names it by what stands in it.
    pub version: Arc<str>,
    /// When it began to answer.
    pub since: SystemTime,
    /// Why what stands in the files now does not answer; none where it does.
    pub rejected: Option<String>,
    /// Settings that have changed and hold from the next start on.
    pub needs_restart: Vec<&'static str>,
}

impl ConfigStatus {
    /// One that begins to answer now.
    #[must_use]
    pub fn now(version: Arc<str>) -> Self {
        Self { version, since: SystemTime::now(), rejected: None, needs_restart: Vec::new() }
    }
}

/// What the front ends need of a query engine; [`Engine`] is the one, tests bring their own.
pub trait Door: Clone + Send + Sync + 'static {
    /// Runs a statement; returns when the first batch, or the end, is here.
    fn run(&self, request: Request) -> impl Future<Output = Result<Answer, QueryError>> + Send;

    /// The schema that [`Door::run`] will answer with.
    fn schema(&self, request: Request) -> impl Future<Output = Result<SchemaRef, QueryError>> + Send;

    /// What is known of a statement before it is run; a door that binds no parameters knows of none.
    fn prepare(&self, request: Request) -> impl Future<Output = Result<Prepared, QueryError>> + Send {
        let schema = self.schema(request);
        async move { Ok(Prepared { schema: schema.await?, parameters: Vec::new() }) }
    }

    /// The schema of one dataset or view, by the parts of its name.
    fn table_schema(&self, path: &[String]) -> impl Future<Output = Result<SchemaRef, QueryError>> + Send;

    /// Every dataset and view with its state.
    fn datasets(&self) -> Vec<DatasetStatus>;

    /// The configuration that answers; a door without one has no name for it.
    fn config(&self) -> ConfigStatus {
        ConfigStatus::now("none".into())
    }

    /// How each upstream is; a door without any knows of none.
    fn upstreams(&self) -> Vec<UpstreamHealth> {
        Vec::new()
    }

    /// What queries and data take; nothing of a door that does not count.
    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }

    /// The columns of a dataset's primary key, by the parts of its name; none where none is declared.
    fn primary_key(&self, _path: &[String]) -> Vec<String> {
        Vec::new()
    }

    /// The words of the SQL that is read.
    fn vocabulary(&self) -> Vocabulary {
        Vocabulary::default()
    }

    /// What subscribers of a dataset follow, by the parts of its name; a door without any knows none.
    fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        Err(SubscribeError::Unknown(path.join(".")))
    }

    /// Asks for a refresh of an accelerated dataset, and returns its number; a door without any refuses.
    fn refresh(&self, dataset: &str, _ask: Ask) -> Result<u64, AskError> {
        Err(AskError::NotFound(dataset.to_owned()))
    }

    /// Replaces `refresh_sql` of an accelerated dataset until the restart; a door without any refuses.
    fn set_refresh_sql(&self, dataset: &str, _sql: Option<String>) -> Result<(), AskError> {
        Err(AskError::NotFound(dataset.to_owned()))
    }

    /// The queries that run, oldest first, of those that the caller may see; a door without a book shows none.
    fn running_queries(&self, _caller: &Caller) -> Vec<QueryRecord> {
        Vec::new()
    }

    /// The queries that have ended, last first, of those that the caller may see.
    fn ended_queries(&self, _caller: &Caller) -> Vec<QueryRecord> {
        Vec::new()
    }

    /// Asks a query to end; a door without a book knows none.
    fn cancel(&self, _which: QueryRef, _caller: &Caller) -> Result<(), CancelError> {
        Err(CancelError::Unknown)
    }

    /// A way for one client's rows into a dataset, by the parts of its name; a door without any refuses.
    fn writer(&self, path: &[String]) -> Result<Writer, PutError> {
        let why = "nothing is written here".to_owned();
        Err(PutError::NotWritable { path: path.join("."), why })
    }
}

impl Door for Engine {
    fn run(&self, request: Request) -> impl Future<Output = Result<Answer, QueryError>> + Send {
        Engine::run(self, request)
    }

    fn schema(&self, request: Request) -> impl Future<Output = Result<SchemaRef, QueryError>> + Send {
        Engine::schema(self, request)
    }

    fn prepare(&self, request: Request) -> impl Future<Output = Result<Prepared, QueryError>> + Send {
        Engine::prepare(self, request)
    }

    fn table_schema(&self, path: &[String]) -> impl Future<Output = Result<SchemaRef, QueryError>> + Send {
        Engine::table_schema(self, path)
    }

    fn upstreams(&self) -> Vec<UpstreamHealth> {
        Engine::upstreams(self)
    }

    fn memory(&self) -> MemoryUse {
        Engine::memory(self)
    }

    fn primary_key(&self, path: &[String]) -> Vec<String> {
        Engine::primary_key(self, path)
    }

    fn vocabulary(&self) -> Vocabulary {
        Engine::vocabulary(self)
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        Engine::datasets(self)
    }

    fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        Engine::publication(self, path)
    }

    fn refresh(&self, dataset: &str, ask: Ask) -> Result<u64, AskError> {
        Engine::refresh(self, dataset, ask)
    }

    fn set_refresh_sql(&self, dataset: &str, sql: Option<String>) -> Result<(), AskError> {
        Engine::set_refresh_sql(self, dataset, sql)
    }

    fn running_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        Engine::running_queries(self, caller)
    }

    fn ended_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        Engine::ended_queries(self, caller)
    }

    fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        Engine::cancel(self, which, caller)
    }

    fn writer(&self, path: &[String]) -> Result<Writer, PutError> {
        Engine::writer(self, path)
    }
}

#[cfg(test)]
mod fake;
