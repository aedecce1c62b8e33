//! The one door for SQL: a statement enters, a schema and a stream of batches leave.

mod error;

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;

use crate::name::{DatasetName, QueryId};

pub use error::QueryError;

/// The parameters of a statement: `$1, $2` or `$name`.
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

/// What a statement answers. Dropping it cancels the query, upstream included.
pub struct Answer {
    pub id: QueryId,
    /// The schema of every batch: the promise made by [`Engine::schema`].
    pub schema: SchemaRef,
    /// Ends after the first error.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>,
}

/// The state of one dataset, as `/v1/datasets?status=true` shows it.
#[derive(Debug, Clone)]
pub struct DatasetStatus {
    pub name: DatasetName,
    /// `from:` as written.
    pub from: String,
    /// `https://host:port`; for a view `None`.
    pub endpoint: Option<String>,
    pub state: DatasetState,
    pub is_view: bool,
}

#[derive(Debug, Clone)]
pub enum DatasetState {
    Initializing,
    Ready,
    /// With its reason; healing goes on.
    Error(Arc<QueryError>),
}

/// Plans and runs statements over the datasets of one spicepod. Cheap to clone.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Runs a statement. Returns when the first batch (or the end) is here, so that an early failure is
    /// an error of this call.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run(&self, _request: Request) -> Result<Answer, QueryError> {
        todo!()
    }

    /// The schema that [`Engine::run`] will answer with, without running.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn schema(&self, _request: Request) -> Result<SchemaRef, QueryError> {
        todo!()
    }

    /// The schema of one dataset or view by its name parts (`["t"]`, `["s","t"]`, `["a.b.t"]`).
    ///
    /// # Errors
    /// [`QueryError::NotFound`] for an unknown name.
    pub async fn table_schema(&self, _path: &[String]) -> Result<SchemaRef, QueryError> {
        todo!()
    }

    /// Every dataset and view with its state, in the order of the spicepod.
    #[must_use]
    pub fn datasets(&self) -> Vec<DatasetStatus> {
        todo!()
    }
}
