//! The HTTP front end: SQL and questions about health enter; JSON, CSV, plain text and Arrow leave.
//!
//! `outer` stands around everything, then come CORS, compression, and the guards of pages and of keys. `api` holds the routes together with the
//! document that describes them.

mod about;
mod api;
mod compress;
mod cors;
mod docs;
mod extract;
mod outer;
mod pages;

mod acceleration;
mod console;
mod datasets;
mod detailed;
mod health;
mod log;
mod process;
mod queries;
mod sql;

mod accept;
mod arrow_stream;
mod asked;
mod body;
mod caching;
mod encode;
mod envelope;
mod error;
mod kept;
mod listing;
mod outgoing;
mod schema_json;
mod times;

use std::sync::Arc;

use ::http::header::{HeaderName, WWW_AUTHENTICATE};
use ::http::{HeaderValue, Method, StatusCode, Uri};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use super::Door;
use super::access::{Access, Denied, Identity};
use super::listen::{self, Protocol};
use super::mcp::{self, McpOptions};
use super::socket::Listener;
use super::tls::ServerTls;
use crate::config::Cors;
use crate::task::Scope;
use api::Api;
use error::Refusal;
use process::Process;

pub(crate) use accept::Format;
pub(crate) use encode::Encoder as RowWriter;
pub(super) use health::ready_report;

pub use about::{About, ListenerAbout, SpicepodAbout};

/// Names the query in its answer.
const QUERY_ID: HeaderName = HeaderName::from_static("x-query-id");

/// Names the configuration that answered.
const CONFIG: HeaderName = HeaderName::from_static("x-sidewing-config");

/// Routes that need no key: probes have none.
const OPEN_ROUTES: &[&str] = &["/health", "/healthz", "/v1/ready", "/readyz"];

/// How an HTTP listener is protected, and what it tells of its process. The default is neither TLS nor keys.
#[derive(Clone, Default)]
pub struct HttpOptions {
    pub tls: Option<ServerTls>,
    /// Who may ask.
    pub access: Access,
    /// Which pages of other origins may ask; none where that is off.
    pub cors: Cors,
    pub about: About,
    /// Whether agents are answered, and which.
    pub mcp: McpOptions,
}

/// Serves HTTP until the scope is cancelled and requests in flight have their answers.
pub async fn serve(listener: impl Into<Listener>, door: impl Door, options: HttpOptions, scope: &Scope) {
    let tls = options.tls.clone();
    let router = router(door, options, scope);
    listen::serve(listener, Protocol::Http, tls, router, scope).await;
}

/// Every route. What the document holds goes through `route`, what it does not, through `aside`.
fn routes<D: Door>(door: &D, mcp: McpOptions) -> Api<D> {
    Api::new()
        .group("sql")
        .route(sql::__path_answer, sql::answer::<D>)
        .route(queries::__path_active, queries::active::<D>)
        .route(queries::__path_recent, queries::recent::<D>)
        .route(queries::__path_cancel, queries::cancel::<D>)
        .group("datasets")
        .route(datasets::__path_datasets, datasets::datasets::<D>)
        .route(datasets::__path_views, datasets::views::<D>)
        .route(acceleration::__path_change, acceleration::change::<D>)
        .route(acceleration::__path_refresh, acceleration::refresh::<D>)
        .route(process::__path_catalogs, process::catalogs)
        .group("process")
        .route(process::__path_spicepods, process::spicepods::<D>)
        .route(process::__path_status, process::status::<D>)
        .route(log::__path_log, log::log)
        .route(log::__path_set_log, log::set_log)
        .route(docs::__path_document, docs::document)
        .group("health")
        .route(health::__path_ready, health::ready::<D>)
        .route(health::__path_readyz, health::readyz::<D>)
        .route(health::__path_health, health::health)
        .route(health::__path_healthz, health::healthz)
        .route(detailed::__path_detailed, detailed::detailed::<D>)
        .aside("/docs/openapi.json", get(docs::document))
        .aside("/docs", get(docs::redirect))
        .aside("/docs/", get(docs::page))
        .aside("/docs/{file}", get(docs::file))
        .aside("/v1/mcp", mcp::route(door.clone(), mcp))
}

fn router<D: Door>(door: D, options: HttpOptions, scope: &Scope) -> Router {
    let pages = pages::Pages::of(&options);
    let (routes, document) = routes(&door, options.mcp).finish();
    let process = Process { about: Arc::new(options.about), draining: scope.token() };
    let guarded = routes
        .merge(console::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(process))
        .layer(Extension(body::Bodies::default()))
        .layer(Extension(docs::Docs::new(&document)))
        .layer(middleware::from_fn_with_state(options.access, guard))
        .layer(middleware::from_fn_with_state(pages, pages::guard))
        .layer(compress::layer());
    // Before the guard: a browser asks whether it may show its key without showing it.
    let shared = match cors::layer(&options.cors) {
        Some(cors) => guarded.layer(cors),
        None => guarded,
    };
    shared.layer(middleware::from_fn(outer::around)).with_state(door)
}

async fn no_route(uri: Uri) -> Refusal {
    let message = format!(
        "there is nothing at {}; POST /v1/sql answers SQL, GET /openapi.json lists all there is, and /docs shows it",
        uri.path()
    );
    Refusal::new(StatusCode::NOT_FOUND, "RouteNotFound", message)
}

/// `Allow` is added to both answers.
async fn wrong_method(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!(
        "{} does not take {method}: the answer's `Allow` says what it takes, GET /openapi.json what for",
        uri.path()
    );
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).into_response()
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
        Err(Denied) => unauthorized(),
    }
}

/// A browser asks its user for a name and a password then: the password is the key.
fn unauthorized() -> Response {
    const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"sidewing\", charset=\"UTF-8\""];
    let mut response = extract::unauthorized().into_response();
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

#[cfg(test)]
mod tests;
