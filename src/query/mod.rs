//! The one door for SQL: a statement enters, a schema and a stream of batches leave.

mod admission;
mod cache;
mod cached;
mod caller;
mod computed;
mod deadline;
mod dialect;
mod direct;
mod engine;
mod error;
mod explain;
mod gauges;
mod lexis;
mod limits;
mod parts;
mod places;
mod plan;
mod planning;
mod plans;
mod prepare;
mod processed;
mod readiness;
mod records;
mod shape;
mod shapes;
mod statement;
mod subscribe;
mod tables;
mod told;
mod typed;
mod vocabulary;
mod written;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::datatypes::SchemaRef;

use crate::acceleration;
use crate::name::{DatasetName, QueryId};
use crate::telemetry::Traceparent;

pub use crate::acceleration::{
    Ask, AskError, AskMode, Publication, PutError, Standing, Stored, StreamEnd, StreamEvent, Subscription,
    Writer,
};
pub use admission::QueueOptions;
pub use cache::{CacheWishes, ClientKey, ResultsCache, Scope};
pub use caller::{Caller, KeyId, Principal, Rights};
pub use engine::{Engine, Options};
pub use error::QueryError;
pub use gauges::MemoryUse;
pub use limits::{STACK_SIZE, STATEMENT_BYTES_MAX};
pub use parts::{Batches, Parts};
pub use prepare::Prepared;
pub use readiness::Readiness;
pub use records::{CancelError, Outcome, Place, Protocol, QueryRecord, QueryRef};
pub use subscribe::SubscribeError;
pub use typed::TypedParameters;
pub use vocabulary::Vocabulary;

/// The parameters of a statement: `$1, $2`, `?`, or `$name`.
#[derive(Debug, Clone, Default)]
pub enum Parameters {
    #[default]
    None,
    Positional(Vec<serde_json::Value>),
    Named(serde_json::Map<String, serde_json::Value>),
    /// By name, number or place, as Arrow has them.
    Typed(TypedParameters),
}

/// A statement to run.
#[derive(Debug, Clone)]
pub struct Request {
    pub sql: String,
    pub parameters: Parameters,
    /// Who asks.
    pub principal: Principal,
    /// Which front end it came through.
    pub protocol: Protocol,
    /// The number of the ticket that it was asked with, by which it can be cancelled.
    pub ticket: Option<u128>,
    /// What the request says of the results cache.
    pub cache: CacheWishes,
    /// Whether its principal may see what others did, in the tables of this process.
    pub rights: Rights,
    /// The span of who asks, where they say.
    pub caller: Option<Traceparent>,
}

impl Request {
    /// A statement without parameters, asked by nobody in particular.
    #[must_use]
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            parameters: Parameters::None,
            principal: Principal::default(),
            protocol: Protocol::default(),
            ticket: None,
            cache: CacheWishes::default(),
            rights: Rights::default(),
            caller: None,
        }
    }
}

/// What a statement answers. Dropping it cancels the query, upstream included.
pub struct Answer {
    pub id: QueryId,
    /// The schema of every batch: the promise made by [`Engine::schema`].
    pub schema: SchemaRef,
    pub parts: Parts,
    /// What the results cache had to do with it; none where there is no cache.
    pub cached: Option<Cached>,
    /// The version of the configuration that answered; none where there is none.
    pub config: Option<Arc<str>>,
}

impl Answer {
    /// What a door without cache and configuration answers.
    #[must_use]
    pub fn new(schema: SchemaRef, batches: Batches) -> Self {
        let parts = parts::of_batches(batches);
        Self { id: QueryId::random(), schema, parts, cached: None, config: None }
    }

    /// The rows as batches, whatever they came as.
    #[must_use]
    pub fn into_batches(self) -> Batches {
        parts::into_batches(self.parts, self.schema)
    }
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// It was there, or an equal statement that ran already answered for it.
    Hit,
    /// It was there, and is older than it should be.
    Stale,
    /// It was computed, and is kept if it is not too large.
    Miss,
    /// It was computed: the statement, or the request, leaves the cache aside.
    Bypass,
}

/// What an answer says of the results cache.
#[derive(Debug, Clone)]
pub struct Cached {
    pub status: CacheStatus,
    /// Who may be given the same answer; none where it is not kept.
    pub scope: Option<Scope>,
    /// Whether a client's own key stands for a part of it.
    pub has_client_key: bool,
    /// How much longer it is fresh, and how long it may be answered stale after that.
    pub freshness: Option<(Duration, Duration)>,
}

impl Cached {
    fn bypass() -> Self {
        Self { status: CacheStatus::Bypass, scope: None, has_client_key: false, freshness: None }
    }
}

/// The state of one dataset, as `/v1/datasets?status=true` shows it.
#[derive(Debug, Clone)]
pub struct DatasetStatus {
    pub name: DatasetName,
    /// `from:` as written.
    pub from: String,
    /// `https://host:port`; for a view `None`.
    pub endpoint: Option<String>,
    /// Whether queries are answered.
    pub state: DatasetState,
    pub is_view: bool,
    /// How it is kept here; none where it is not.
    pub acceleration: Option<acceleration::Status>,
}

#[derive(Debug, Clone)]
pub enum DatasetState {
    Initializing,
    Ready,
    /// Something failed; healing goes on.
    Error {
        reason: Arc<QueryError>,
        /// When it began.
        since: SystemTime,
        /// It was ready before: queries are still tried, and the first that succeeds heals it.
        was_ready: bool,
    },
}
