//! Why a statement has no answer. `serve::status` maps every variant to HTTP and gRPC, exhaustively.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use thiserror::Error;

use crate::federation::{Reason, Refusal, ScanError};
use crate::name::DatasetName;
use crate::upstream::UpstreamError;

/// How sqlparser begins what it says.
const PARSER_ERROR: &str = "sql parser error";

/// A failed statement. Its text is for the client: no secret, no other client's SQL.
#[derive(Debug, Clone, Error)]
pub enum QueryError {
    /// The statement is wrong: syntax, unknown column, wrong types, a division by zero.
    #[error("{message}")]
    Invalid { message: String },
    /// A table or dataset that is not there.
    #[error("{message}")]
    NotFound { message: String },
    /// DDL, DML, COPY, SET and the like.
    #[error(
        "{statement} is refused: sidewing only reads. Send SELECT, WITH, VALUES, SHOW, DESCRIBE or EXPLAIN"
    )]
    ReadOnly { statement: String },
    /// A dataset that has not been reached yet.
    #[error("dataset `{dataset}` is not ready: {reason}")]
    NotReady { dataset: String, endpoint: Option<String>, reason: String },
    /// The upstream failed, or refused.
    #[error("{}{source}", .dataset.as_ref().map(|d| format!("dataset `{d}`: ")).unwrap_or_default())]
    Upstream { dataset: Option<String>, source: UpstreamError },
    /// Valid SQL that this version cannot run.
    #[error("{message}")]
    Unsupported { message: String },
    #[error(
        "the query needs more memory than runtime.query.memory_limit leaves it: {message}; raise the limit, run fewer \
         queries at a time (runtime.query.max_concurrent_queries), or ask for less"
    )]
    ResourcesExhausted { message: String },
    /// What does not fit into memory cannot be kept on disk either.
    #[error(
        "the query does not fit into memory, and its temporary files failed: {message}; give \
         runtime.query.temp_directory more room, or raise runtime.query.memory_limit"
    )]
    Spill { message: String },
    /// As many run and wait as may.
    #[error(
        "as many queries run ({running}) and wait ({waiting}) as may: try again in a moment, or raise \
         runtime.query.max_concurrent_queries"
    )]
    QueueFull { running: usize, waiting: usize },
    /// Its turn did not come in time; `setting` names what says so.
    #[error(
        "the query waited {seconds} s for its turn, as long as {setting} lets it, while as many others ran as may \
         ({running}): try again, or raise runtime.query.max_concurrent_queries"
    )]
    QueueTimeout { seconds: f64, setting: &'static str, running: usize },
    #[error("the query ran longer than runtime.query.timeout ({seconds} s)")]
    Timeout { seconds: f64 },
    /// `only-if-cached`.
    #[error(
        "no cached result may answer the statement, and the request's `only-if-cached` wants it not to be run"
    )]
    NotCached,
    #[error("the query was cancelled")]
    Cancelled,
    #[error(
        "the client took nothing of the answer for {seconds} s, as long as runtime.params.query_client_timeout lets it: \
         read on sooner, or raise it"
    )]
    ClientStalled { seconds: f64 },
    #[error("internal error: {message}")]
    Internal { message: String },
}

impl QueryError {
    /// The word of the metrics and of the history: few, so that they stay countable. `is_running` says whether the
    /// statement was planned already.
    #[must_use]
    pub(super) fn code(&self, is_running: bool) -> &'static str {
        match self {
            Self::Invalid { message } if message.starts_with(PARSER_ERROR) => "SyntaxError",
            Self::Invalid { .. } if is_running => "QueryExecutionError",
            Self::Invalid { .. }
            | Self::NotFound { .. }
            | Self::ReadOnly { .. }
            | Self::Unsupported { .. }
            | Self::NotCached => "QueryPlanningError",
            Self::NotReady { .. }
            | Self::Upstream { .. }
            | Self::ResourcesExhausted { .. }
            | Self::Spill { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Timeout { .. } => "QueryExecutionError",
            Self::Cancelled | Self::ClientStalled { .. } => "Cancelled",
            Self::Internal { .. } => "InternalError",
        }
    }

    /// Whether the statement itself is at fault, not its surroundings.
    pub(super) fn is_the_users(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Unsupported { .. } | Self::NotFound { .. })
    }
}

impl From<Refusal> for QueryError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown { name, help } => {
                Self::NotFound { message: format!("table `{name}` not found; {help}") }
            }
            Refusal::NotReady { name, endpoint, reason } => not_ready(&name, endpoint, reason),
        }
    }
}

/// The error of a dataset that is not ready; an upstream's reason keeps its kind.
pub(super) fn not_ready(name: &DatasetName, endpoint: Option<String>, reason: Option<Reason>) -> QueryError {
    let dataset = name.to_string();
    let reason = reason.map_or_else(|| "connecting to its upstream".to_owned(), |reason| reason.to_string());
    QueryError::NotReady { dataset, endpoint, reason }
}

/// What DataFusion met, sorted by whose fault it is.
pub(super) fn from_datafusion(error: DataFusionError) -> QueryError {
    use DataFusionError as E;
    match error {
        E::External(source) => match source.downcast::<ScanError>() {
            Ok(scan) => QueryError::Upstream { dataset: Some(scan.names()), source: scan.source },
            Err(other) => QueryError::Internal { message: other.to_string() },
        },
        E::Shared(shared) => from_shared(&shared),
        E::Context(_, inner) | E::Diagnostic(_, inner) => from_datafusion(*inner),
        E::Collection(errors) => errors.into_iter().next().map_or_else(
            || QueryError::Internal { message: "an empty collection of errors".to_owned() },
            from_datafusion,
        ),
        E::ArrowError(inner, _) => from_arrow(*inner),
        E::SQL(inner, _) => QueryError::Invalid { message: inner.to_string() },
        E::Plan(message) | E::Execution(message) | E::Configuration(message) => {
            QueryError::Invalid { message: without_backtrace(&message) }
        }
        E::SchemaError(inner, _) => QueryError::Invalid { message: without_backtrace(&inner.to_string()) },
        E::NotImplemented(message) => QueryError::Unsupported { message: without_backtrace(&message) },
        E::ResourcesExhausted(message) => exhausted(&message),
        E::IoError(error) => spill(&error),
        other => QueryError::Internal { message: without_backtrace(&other.to_string()) },
    }
}

/// An error that several consumers of one stream share: the first cause decides.
fn from_shared(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::External(source) => match source.downcast_ref::<ScanError>() {
            Some(scan) => QueryError::Upstream { dataset: Some(scan.names()), source: scan.source.clone() },
            None => QueryError::Internal { message: source.to_string() },
        },
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::IoError(error) => spill(error),
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::IoError(_, error) => spill(error),
            other => QueryError::Invalid { message: other.to_string() },
        },
        DataFusionError::Internal(message) => QueryError::Internal { message: without_backtrace(message) },
        other => QueryError::Invalid { message: without_backtrace(&other.to_string()) },
    }
}

fn from_arrow(error: ArrowError) -> QueryError {
    match error {
        ArrowError::ExternalError(source) => match source.downcast::<DataFusionError>() {
            Ok(inner) => from_datafusion(*inner),
            Err(other) => QueryError::Internal { message: other.to_string() },
        },
        // Files are only read and written for spilling: nothing else reaches one from SQL.
        ArrowError::IoError(_, error) => spill(&error),
        ArrowError::MemoryError(message) => QueryError::ResourcesExhausted { message },
        ArrowError::NotYetImplemented(message) => QueryError::Unsupported { message },
        other => QueryError::Invalid { message: other.to_string() },
    }
}

/// Memory that the pool refused. Its tracker lists the largest holders before the cause: those are for the log.
fn exhausted(message: &str) -> QueryError {
    let message = without_backtrace(message);
    match message.rsplit_once("\nError: ") {
        None => QueryError::ResourcesExhausted { message },
        Some((holders, cause)) => {
            tracing::debug!(holders, cause, "memory refused");
            QueryError::ResourcesExhausted { message: cause.to_owned() }
        }
    }
}

/// Temporary files that failed. DataFusion's advice names its own settings, which nobody has here.
fn spill(error: &std::io::Error) -> QueryError {
    let text = without_backtrace(&error.to_string());
    let message =
        text.split(" Please try increasing").next().unwrap_or(&text).trim_end_matches('.').to_owned();
    QueryError::Spill { message }
}

fn without_backtrace(message: &str) -> String {
    message.split("\n\nbacktrace:").next().unwrap_or(message).trim_end().to_owned()
}
