//! The endpoint as a client meets it, in both eras of the protocol, over doors that misbehave on purpose.

mod fuzz;
mod protocol;
mod stdio;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use axum::body::Body;
use axum::response::Response;
use axum::{Extension, Router};
use futures::stream;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{McpAccess, McpOptions, route};
use crate::query::{Caller, KeyId, Principal, Rights};
use crate::serve::access::Identity;
use crate::serve::fake::{Fake, answer, watched};

const MODERN: &str = "2026-07-28";
/// Longer than anything here takes on a busy machine.
const WAIT: Duration = Duration::from_secs(20);

/// As on loopback.
fn on() -> McpOptions {
    McpOptions { access: McpAccess::On, ..McpOptions::default() }
}

/// The endpoint behind a guard that knows who asks.
fn endpoint(door: Fake, options: McpOptions) -> Router {
    Router::new().route("/v1/mcp", route(door, options)).layer(Extension(Identity::anonymous()))
}

/// The same for whoever shows the key `name`.
fn shown_key(name: &str) -> Extension<Identity> {
    let mut identity = Identity::anonymous();
    identity.caller = Caller { principal: Principal::Key(KeyId::new(name)), rights: Rights::Read };
    Extension(identity)
}

fn numbers(rows: std::ops::Range<i64>) -> RecordBatch {
    let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
    RecordBatch::try_from_iter([("n", ints)]).unwrap()
}

/// A query `slow` that gives no row ever.
struct Slow {
    door: Fake,
    begun: CancellationToken,
    dropped: CancellationToken,
}

impl Slow {
    fn new() -> Self {
        let (begun, dropped) = (CancellationToken::new(), CancellationToken::new());
        let (begins, token) = (begun.clone(), dropped.clone());
        let door = Fake::default().on("slow", move || {
            begins.cancel();
            Ok(watched(answer(numbers(0..0).schema(), stream::pending()), &token))
        });
        Self { door, begun, dropped }
    }

    fn endpoint(&self) -> Router {
        endpoint(self.door.clone(), on())
    }

    async fn is_begun(&self) {
        timeout(WAIT, self.begun.cancelled()).await.expect("the query begins");
        assert!(!self.dropped.is_cancelled());
    }

    async fn is_dropped(&self) {
        timeout(WAIT, self.dropped.cancelled()).await.expect("the query is dropped");
    }
}

fn request(method: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> ::http::Request<Body> {
    let mut request = ::http::Request::builder().method(method).uri("/v1/mcp");
    let common = [
        ("host", "localhost:8090"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
    ];
    for (name, value) in common.iter().chain(headers) {
        request = request.header(*name, *value);
    }
    // What is given goes in place of what is common.
    let mut request = request.body(body.into()).unwrap();
    for (name, value) in headers {
        let name: ::http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

async fn send(router: &Router, request: ::http::Request<Body>) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The JSON-RPC message of an answer, be it JSON or the one event of a stream.
async fn message(response: Response) -> Value {
    let text = text(response).await;
    let data = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
    serde_json::from_str(data.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn call(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// A message of the era without sessions.
fn modern(method: &str, mut params: Value) -> ::http::Request<Body> {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
    let mut headers = vec![("mcp-protocol-version", MODERN), ("mcp-method", method)];
    if !name.is_empty() {
        headers.push(("mcp-name", &name));
    }
    request("POST", &headers, call(1, method, &params))
}

async fn ask_modern(router: &Router, method: &str, params: Value) -> Value {
    message(send(router, modern(method, params)).await).await
}

/// The result of a tool.
async fn tool(router: &Router, name: &str, arguments: Value) -> Value {
    let answered = ask_modern(router, "tools/call", json!({ "name": name, "arguments": arguments })).await;
    assert!(answered["result"].is_object(), "{answered}");
    answered["result"].clone()
}

/// A session of the first era, its handshake done.
struct Session {
    router: Router,
    id: String,
}

impl Session {
    async fn open(router: &Router) -> Self {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let response = send(router, request("POST", &[], call(0, "initialize", &params))).await;
        assert_eq!(response.status(), 200);
        let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let answered = message(response).await;
        assert_eq!(answered["result"]["protocolVersion"], "2025-11-25", "{answered}");
        let session = Self { router: router.clone(), id };
        let noted = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(session.post(noted.to_string()).await.status(), 202);
        session
    }

    fn request(&self, method: &str, body: impl Into<Body>) -> ::http::Request<Body> {
        let headers = [("mcp-session-id", &*self.id), ("mcp-protocol-version", "2025-11-25")];
        request(method, &headers, body)
    }

    async fn post(&self, body: String) -> Response {
        send(&self.router, self.request("POST", body)).await
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        message(self.post(call(1, method, &params)).await).await
    }
}

#[test]
fn agents_are_answered_where_nobody_unknown_asks() {
    let of = |is_guarded, address: &str| McpAccess::of(is_guarded, &address.parse().unwrap());
    for local in ["127.0.0.1:1", "[::1]:1", "unix:/s"] {
        assert_eq!(of(false, local), McpAccess::On, "{local}");
    }
    for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        assert_eq!(of(false, open), McpAccess::Off, "{open}");
        assert_eq!(of(true, open), McpAccess::On, "{open}");
    }
}
