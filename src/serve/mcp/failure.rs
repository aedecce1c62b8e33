//! Calls that have no result: a query's error enters, the same code and words as HTTP's leave.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::json;

use crate::query::QueryError;
use crate::serve::status;

/// Why a call has no result, as an agent is told it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A stable word for programs, as HTTP's.
    code: &'static str,
    message: String,
    dataset: Option<String>,
    endpoint: Option<String>,
}

impl Failure {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), dataset: None, endpoint: None }
    }

    /// There is no such table; there is what `known` names.
    pub fn not_found(wanted: &str, known: &str) -> Self {
        Self::new("TableNotFound", format!("there is no dataset or view `{wanted}`; there is {known}"))
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The result of the call, marked as an error.
    pub fn result(self) -> CallToolResult {
        let Self { code, message, dataset, endpoint } = self;
        let text = format!("{code}: {message}");
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        let told = json!({ "code": code, "message": message, "dataset": dataset, "endpoint": endpoint });
        result.structured_content = Some(told);
        result
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let verdict = status::of(&error);
        if verdict.http.is_server_error() && !verdict.passes {
            tracing::warn!(%error, code = verdict.code, "query failed");
        }
        let (dataset, endpoint) = status::place(&error);
        Self {
            code: verdict.code,
            message: status::message(&error),
            dataset: dataset.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
        }
    }
}
