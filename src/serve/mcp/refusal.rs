//! Requests that never reach a tool: why not enters, an HTTP answer with a JSON-RPC error leaves.
//!
//! MCP clients show the message of such an error; of other bodies they show nothing.

use ::http::StatusCode;
use axum::Json;
use axum::response::{IntoResponse, Response};
use rmcp::model::ErrorCode;
use serde_json::json;

use crate::serve::origin::{Foreign, known_hosts};

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

    /// A request for another host, or from a page of another site.
    pub fn foreign(foreign: Foreign, allowed_hosts: &[String]) -> Self {
        match foreign {
            Foreign::NoHost => {
                let message = "the request does not say for which host it is: send one Host header, for example \
                               localhost:8090";
                Self::new(StatusCode::BAD_REQUEST, "McpHostMissing", message)
            }
            Foreign::Host { name } => {
                let message = format!(
                    "the request is for the host `{name}`, and MCP answers for {} only: a page of another site could \
                     have its name resolve to this server (DNS rebinding); if `{name}` is a name of this server, add \
                     it to runtime.mcp.allowed_hosts",
                    known_hosts(allowed_hosts)
                );
                Self::new(StatusCode::FORBIDDEN, "McpHostNotAllowed", message)
            }
            Foreign::Origin { origin } => {
                let message = format!(
                    "the request was sent by a page of `{origin}`, and MCP answers to this server's own pages only: if \
                     that site may call it, enable runtime.cors and add the origin to runtime.cors.allowed_origins"
                );
                Self::new(StatusCode::FORBIDDEN, "McpOriginNotAllowed", message)
            }
        }
    }

    /// The answer to the request of this id.
    pub fn answer(self, request_id: Option<&str>) -> Response {
        let data = json!({ "code": self.code, "request_id": request_id });
        let error = json!({ "code": self.rpc.0, "message": self.message, "data": data });
        let body = Json(json!({ "jsonrpc": "2.0", "id": null, "error": error }));
        (self.status, body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_foreign_is_told_with_what_to_set() {
        let told = |foreign| format!("{:?}\n", Refusal::foreign(foreign, &["pod".to_owned()]));
        let host = Foreign::Host { name: "evil.example".into() };
        let origin = Foreign::Origin { origin: "https://evil.example".into() };
        insta::assert_snapshot!([Foreign::NoHost, host, origin].map(told).concat());
    }
}
