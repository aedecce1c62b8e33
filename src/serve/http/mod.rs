//! The HTTP front end: SQL and questions about health enter, JSON, CSV and plain text leave.

mod acceleration;
mod accept;
mod caching;
mod encode;
mod error;
mod sql;
mod state;
mod times;

use ::http::header::{HeaderName, WWW_AUTHENTICATE};
use ::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use uuid::Uuid;

use super::Door;
use super::access::{Access, Denied, Identity};
use super::listen::{self, Protocol};
use super::mcp::{self, McpOptions};
use super::socket::Listener;
use super::tls::ServerTls;
use crate::task::Scope;
use error::Refusal;

pub(crate) use accept::Format;
pub(crate) use encode::Encoder as RowWriter;
pub(super) use state::ready_report;

/// Names the request in its answer; a client may bring its own.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Names the query in its answer.
const QUERY_ID: HeaderName = HeaderName::from_static("x-query-id");
/// A client's own request id is kept up to this length.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What a lost client reads.
const ROUTES: &str = "POST /v1/sql, GET /v1/datasets, POST /v1/datasets/{name}/acceleration/refresh, \
     PATCH /v1/datasets/{name}/acceleration, GET /v1/ready, GET /health";

/// Routes that need no key: probes have none.
const OPEN_ROUTES: &[&str] = &["/health", "/healthz", "/v1/ready", "/readyz"];

/// How an HTTP listener is protected. The default is neither TLS nor keys.
#[derive(Clone, Default)]
pub struct HttpOptions {
    pub tls: Option<ServerTls>,
    /// Who may ask.
    pub access: Access,
    /// Whether agents are answered, and which.
    pub mcp: McpOptions,
}

/// Serves HTTP until the scope is cancelled and requests in flight have their answers.
pub async fn serve(listener: impl Into<Listener>, door: impl Door, options: HttpOptions, scope: &Scope) {
    let HttpOptions { tls, access, mcp } = options;
    listen::serve(listener, Protocol::Http, tls, router(door, access, mcp), scope).await;
}

fn router<D: Door>(door: D, access: Access, mcp: McpOptions) -> Router {
    let healthy = || async { "ok\n" };
    Router::new()
        .route("/v1/sql", post(sql::answer::<D>))
        .route("/v1/datasets", get(state::datasets::<D>))
        .route("/v1/datasets/{name}/acceleration", patch(acceleration::change::<D>))
        .route("/v1/datasets/{name}/acceleration/refresh", post(acceleration::refresh::<D>))
        .route("/v1/mcp", mcp::route(door.clone(), mcp))
        .route("/v1/ready", get(state::ready::<D>))
        .route("/readyz", get(state::ready::<D>))
        .route("/health", get(healthy))
        .route("/healthz", get(healthy))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(access, guard))
        .layer(middleware::from_fn(with_request_id))
        .with_state(door)
}

async fn no_route(uri: Uri, headers: HeaderMap) -> Response {
    let message = format!("there is nothing at {}; there is {ROUTES}", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "RouteNotFound", message).answer(&headers)
}

async fn wrong_method(uri: Uri, headers: HeaderMap) -> Response {
    let message = format!("{} does not take this method; there is {ROUTES}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).answer(&headers)
}

/// Gives the request its [`Identity`], unless its route is open to all.
async fn guard(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    if OPEN_ROUTES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match access.identify(request.headers()) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(Denied) => unauthorized(request.headers()),
    }
}

/// A browser asks its user for a name and a password then: the password is the key.
fn unauthorized(headers: &HeaderMap) -> Response {
    const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"sidewing\", charset=\"UTF-8\""];
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Invalid credentials");
    let mut response = refusal.answer(headers);
    for challenge in CHALLENGES {
        response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// # Errors
/// 403 for a caller who may only read.
fn may_write(identity: &Identity) -> Result<(), Refusal> {
    match identity.caller.may_write() {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "Write access denied")),
    }
}

/// Gives the request an id that its answer, its error and the log share.
async fn with_request_id(mut request: Request, next: Next) -> Response {
    let brought = request.headers().get(&REQUEST_ID).filter(|id| {
        id.len() <= REQUEST_ID_BYTES_MAX && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    let id = match brought {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(Uuid::new_v4().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("none")),
    };
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await.into_response();
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

#[cfg(test)]
mod tests;
