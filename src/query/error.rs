//! Why a statement has no answer. `serve::status` maps every variant to HTTP and gRPC, exhaustively.

use thiserror::Error;

use crate::upstream::UpstreamError;

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
    #[error("the query needs more memory than it may have: {message}")]
    ResourcesExhausted { message: String },
    #[error("the query ran longer than runtime.query.timeout ({seconds} s)")]
    Timeout { seconds: f64 },
    #[error("the query was cancelled")]
    Cancelled,
    #[error("internal error: {message}")]
    Internal { message: String },
}
