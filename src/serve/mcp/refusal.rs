//! Requests that never reach a tool: why not enters, an HTTP answer with a JSON-RPC error leaves.
//!
//! MCP clients show the message of such an error; of other bodies they show nothing.

use ::http::StatusCode;
use axum::Json;
use axum::response::{IntoResponse, Response};
use rmcp::model::ErrorCode;
use serde_json::json;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    rpc: ErrorCode,
    /// A stable word for programs.
    code: &'static str,
    message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, rpc: ErrorCode::INVALID_REQUEST, code, message: message.into() }
    }

    /// The body is no JSON at all.
    pub fn unparsable(message: impl Into<String>) -> Self {
        let rpc = ErrorCode::PARSE_ERROR;
        Self { rpc, ..Self::new(StatusCode::BAD_REQUEST, "McpMessageUnreadable", message) }
    }

    /// A session that has ended, never was, or is another's: which of them is not told.
    pub fn unknown_session() -> Self {
        let message = "there is no such session: it has ended, or was never opened with this key; begin anew with \
                       `initialize`, without Mcp-Session-Id";
        Self::new(StatusCode::NOT_FOUND, "McpSessionNotFound", message)
    }

    /// The answer to the request of this id.
    pub fn answer(self, request_id: Option<&str>) -> Response {
        let data = json!({ "code": self.code, "request_id": request_id });
        let error = json!({ "code": self.rpc.0, "message": self.message, "data": data });
        let body = Json(json!({ "jsonrpc": "2.0", "id": null, "error": error }));
        (self.status, body).into_response()
    }
}
