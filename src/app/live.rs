//! The door that front ends keep: each request goes through the engine of the configuration of its moment.
//!
//! Whoever has begun goes on with the engine that it began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arrow::datatypes::SchemaRef;

use crate::query::{
    Answer, Ask, AskError, Caller, CancelError, DatasetStatus, Engine, MemoryUse, Prepared, Publication,
    PutError, QueryError, QueryRecord, QueryRef, Request, SubscribeError, Vocabulary, Writer,
};
use crate::serve::{ConfigStatus, Door};
use crate::upstream::UpstreamHealth;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    engine: ArcSwap<Engine>,
    config: ArcSwap<ConfigStatus>,
}

impl Live {
    pub(super) fn new(engine: Engine, config: ConfigStatus) -> Self {
        Self(Arc::new(Inner { engine: ArcSwap::from_pointee(engine), config: ArcSwap::from_pointee(config) }))
    }

    /// The engine of now.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        self.0.engine.load_full()
    }

    /// From now on requests are answered by `engine`.
    pub(super) fn replace(&self, engine: Engine, config: ConfigStatus) {
        self.0.engine.store(Arc::new(engine));
        self.0.config.store(Arc::new(config));
    }

    /// Tells something else of the configuration that stays.
    pub(super) fn tell(&self, change: impl FnOnce(&mut ConfigStatus)) {
        let mut config = ConfigStatus::clone(&self.0.config.load());
        change(&mut config);
        self.0.config.store(Arc::new(config));
    }
}

impl Door for Live {
    async fn run(&self, request: Request) -> Result<Answer, QueryError> {
        self.engine().run(request).await
    }

    async fn schema(&self, request: Request) -> Result<SchemaRef, QueryError> {
        self.engine().schema(request).await
    }

    async fn prepare(&self, request: Request) -> Result<Prepared, QueryError> {
        self.engine().prepare(request).await
    }

    async fn table_schema(&self, path: &[String]) -> Result<SchemaRef, QueryError> {
        self.engine().table_schema(path).await
    }

    fn config(&self) -> ConfigStatus {
        ConfigStatus::clone(&self.0.config.load())
    }

    fn upstreams(&self) -> Vec<UpstreamHealth> {
        self.engine().upstreams()
    }

    fn memory(&self) -> MemoryUse {
        self.engine().memory()
    }

    fn primary_key(&self, path: &[String]) -> Vec<String> {
        self.engine().primary_key(path)
    }

    fn vocabulary(&self) -> Vocabulary {
        self.engine().vocabulary()
    }

    fn datasets(&self) -> Vec<DatasetStatus> {
        self.engine().datasets()
    }

    fn publication(&self, path: &[String]) -> Result<Arc<Publication>, SubscribeError> {
        self.engine().publication(path)
    }

    fn refresh(&self, dataset: &str, ask: Ask) -> Result<u64, AskError> {
        self.engine().refresh(dataset, ask)
    }

    fn set_refresh_sql(&self, dataset: &str, sql: Option<String>) -> Result<(), AskError> {
        self.engine().set_refresh_sql(dataset, sql)
    }

    fn running_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        self.engine().running_queries(caller)
    }

    fn ended_queries(&self, caller: &Caller) -> Vec<QueryRecord> {
        self.engine().ended_queries(caller)
    }

    fn cancel(&self, which: QueryRef, caller: &Caller) -> Result<(), CancelError> {
        self.engine().cancel(which, caller)
    }

    fn writer(&self, path: &[String]) -> Result<Writer, PutError> {
        self.engine().writer(path)
    }
}
