//! `/v1/mcp`: HTTP requests enter, are checked, and go on to rmcp's streamable HTTP; its answers leave.
//!
//! What is checked here is what rmcp leaves to its host: who may call, from where, in which session, and how much.

use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode};
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::de::IgnoredAny;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::refusal::Refusal;
use super::server::{Gone, Server};
use super::sessions::{Book, Own, Use};
use super::{MESSAGE_BYTES_MAX, McpAccess, McpOptions};
use crate::query::Principal;
use crate::serve::Door;
use crate::serve::access::Identity;
use crate::serve::listen::Endless;
use crate::serve::origin;

const SESSION_ID: &str = "mcp-session-id";
const REQUEST_ID: &str = "x-request-id";
/// A client that waits for an answer hears a comment this often, so that no proxy takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Front<D> {
    door: D,
    options: McpOptions,
    book: Arc<Book>,
    /// Ends what rmcp spawned.
    end: CancellationToken,
    _ends: DropGuard,
}

/// POST, GET and DELETE of the MCP endpoint, behind the guard that tells who asks. Its sessions end with it.
pub(in crate::serve) fn route<D: Door, S>(door: D, options: McpOptions) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let end = CancellationToken::new();
    let _ends = end.clone().drop_guard();
    let front = Front { door, options, book: Arc::new(Book::new()), end, _ends };
    post(answer::<D>).get(answer::<D>).delete(answer::<D>).with_state(Arc::new(front))
}

async fn answer<D: Door>(
    State(front): State<Arc<Front<D>>>,
    Extension(identity): Extension<Identity>,
    request: Request,
) -> Response {
    let request_id = request.headers().get(REQUEST_ID).cloned();
    let answered = front.try_answer(identity.caller.principal, request).await;
    answered.unwrap_or_else(|refusal| refusal.answer(request_id.as_ref().and_then(|id| id.to_str().ok())))
}

impl<D: Door> Front<D> {
    async fn try_answer(&self, principal: Principal, request: Request) -> Result<Response, Refusal> {
        let (mut parts, body) = request.into_parts();
        self.check_access()?;
        let McpOptions { allowed_hosts, allowed_origins, .. } = &self.options;
        origin::check(&parts, allowed_hosts, allowed_origins)
            .map_err(|foreign| Refusal::foreign(foreign, allowed_hosts))?;
        let method = parts.method.clone();
        let session = parts.headers.get(SESSION_ID).and_then(|id| id.to_str().ok());
        let by = if method == Method::GET { Use::Listen } else { Use::Call };
        let in_use = session.and_then(|id| self.book.enter(id, &principal, by));
        // rmcp confirms the end of a session that never was.
        if method == Method::DELETE && session.is_some() && in_use.is_none() {
            return Err(Refusal::unknown_session());
        }
        let has_session = session.is_some();
        let body = match method == Method::POST {
            true => read(body).await?,
            false => Bytes::new(),
        };
        let gone = CancellationToken::new();
        let held = (gone.clone().drop_guard(), in_use);
        parts.extensions.insert(Gone(gone));
        let request = ::http::Request::from_parts(parts, Full::new(body));
        let response = self.service(principal).handle(request).await;
        let response = response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &held;
                frame
            }))
        });
        adapted(response, &method, has_session)
    }

    fn check_access(&self) -> Result<(), Refusal> {
        match self.options.access {
            McpAccess::On => Ok(()),
            McpAccess::Off => {
                let message = "MCP is off: other machines can connect to this address, and nobody has to show a key; set \
                               keys with runtime.auth.api-key, or listen on 127.0.0.1 or a Unix socket";
                Err(Refusal::new(StatusCode::FORBIDDEN, "McpOff", message))
            }
        }
    }

    /// rmcp's endpoint for one principal. Hosts and origins are checked already, in more words.
    fn service(&self, principal: Principal) -> StreamableHttpService<Server<D>, Own> {
        let server = Server {
            door: self.door.clone(),
            principal: principal.clone(),
            descriptions: Arc::clone(&self.options.descriptions),
        };
        let own = Own { book: Arc::clone(&self.book), principal };
        let mut config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_json_response(true)
            .with_sse_keep_alive(Some(KEEP_ALIVE))
            .with_sse_retry(None)
            .with_max_request_body_bytes(MESSAGE_BYTES_MAX);
        config.cancellation_token = self.end.clone();
        StreamableHttpService::new(move || Ok(server.clone()), Arc::new(own), config)
    }
}

/// What rmcp answered, as the protocol and this server have it.
fn adapted(mut response: Response, method: &Method, has_session: bool) -> Result<Response, Refusal> {
    match (method, response.status()) {
        (&Method::DELETE, StatusCode::ACCEPTED) => *response.status_mut() = StatusCode::NO_CONTENT,
        (&Method::GET, StatusCode::OK) => drop(response.extensions_mut().insert(Endless)),
        (_, status) if has_session && is_of_lost_session(status, &response) => {
            return Err(Refusal::unknown_session());
        }
        _ => {}
    }
    Ok(response)
}

/// Whether rmcp has lost the session: it says so in plain text where it knew before it began, or as an error of its own
/// where the session ended meanwhile.
fn is_of_lost_session(status: StatusCode, response: &Response) -> bool {
    let is_plain = !response.headers().contains_key(::http::header::CONTENT_TYPE);
    is_plain && (status == StatusCode::NOT_FOUND || status == StatusCode::INTERNAL_SERVER_ERROR)
}

/// The body of a POST, which is one JSON-RPC message.
async fn read(body: Body) -> Result<Bytes, Refusal> {
    let body = to_bytes(body, MESSAGE_BYTES_MAX).await.map_err(|error| unreadable(&error))?;
    serde_json::from_slice::<IgnoredAny>(&body)
        .map_err(|error| Refusal::unparsable(format!("the request body is no JSON: {error}")))?;
    serde_json::from_slice::<ClientJsonRpcMessage>(&body).map_err(|_| not_a_message(&body))?;
    Ok(body)
}

fn unreadable(error: &axum::Error) -> Refusal {
    let is_too_large = std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    match is_too_large {
        true => {
            let message = format!("the request body is larger than {} MiB", MESSAGE_BYTES_MAX >> 20);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "McpMessageTooLarge", message)
        }
        false => Refusal::unparsable("the request body ended early"),
    }
}

fn not_a_message(body: &[u8]) -> Refusal {
    let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let message = match is_batch {
        true => "the request body is a batch: send one JSON-RPC message at a time",
        false => {
            "the request body is no JSON-RPC 2.0 message of MCP: expected {\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \
             \"tools/list\"} or the like, with the parameters of its method"
        }
    };
    Refusal::new(StatusCode::BAD_REQUEST, "McpMessageInvalid", message)
}
