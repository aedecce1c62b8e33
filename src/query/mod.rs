//! The one door for SQL: a statement enters, a schema and a stream of batches leave.

mod admission;
mod deadline;
mod engine;
mod error;
mod explain;
mod gauges;
mod limits;
mod planning;
mod readiness;
mod statement;

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;

use crate::acceleration;
use crate::name::{DatasetName, QueryId};

pub use crate::acceleration::{Ask, AskError, AskMode};
pub use admission::QueueOptions;
pub use engine::{Engine, Options};
pub use error::QueryError;
pub use limits::STACK_SIZE;
pub use readiness::Readiness;

/// The parameters of a statement: `$1, $2`, `?`, or `$name`.
#[derive(Debug, Clone, Default)]
pub enum Parameters {
    #[default]
    None,
    Positional(Vec<serde_json::Value>),
    Named(serde_json::Map<String, serde_json::Value>),
}

/// A statement to run.
#[derive(Debug, Clone)]
pub struct Request {
    pub sql: String,
    pub parameters: Parameters,
}

/// Batches of an answer; ends after the first error.
pub type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>;

/// What a statement answers. Dropping it cancels the query, upstream included.
pub struct Answer {
    pub id: QueryId,
    /// The schema of every batch: the promise made by [`Engine::schema`].
    pub schema: SchemaRef,
    pub batches: Batches,
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
