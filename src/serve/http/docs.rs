//! `GET /openapi.json`, and `/docs`, which shows it: Swagger UI out of this binary, which asks nobody else for anything.

use std::io::Read;
use std::sync::Arc;

use ::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use ::http::{HeaderValue, StatusCode};
use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::error::Refusal;
use super::extract::Named;

const DOCUMENT: &str = "/openapi.json";
/// The viewer sets styles by script; all else comes from here. Its own check of documents by a service elsewhere is off.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The document as it is sent, and the viewer's settings.
#[derive(Clone)]
pub(super) struct Docs {
    document: Bytes,
    viewer: Arc<Config<'static>>,
}

impl Docs {
    pub(super) fn new(document: &OpenApi) -> Self {
        // Its keys are texts: it is always JSON.
        let document = document.to_json().unwrap_or_default().into();
        let viewer = Config::from(DOCUMENT).validator_url("none").use_base_layout();
        Self { document, viewer: Arc::new(viewer) }
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"))
)]
pub(super) async fn document(Extension(docs): Extension<Docs>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], docs.document)
}

/// The page's own files are asked for beside it.
pub(super) async fn redirect() -> Redirect {
    Redirect::to("/docs/")
}

pub(super) async fn page(Extension(docs): Extension<Docs>) -> Result<Response, Refusal> {
    shown(&docs, "index.html")
}

pub(super) async fn file(Extension(docs): Extension<Docs>, Named(file): Named) -> Result<Response, Refusal> {
    shown(&docs, &file)
}

/// The files take a quarter of their room in the binary. Clients get them as they ask: `compress` decides.
fn unpacked(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn shown(docs: &Docs, name: &str) -> Result<Response, Refusal> {
    let broken = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, name, "a file of the viewer cannot be made");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "internal error: the viewer is broken")
    };
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&docs.viewer)).map_err(|error| broken(&error))?;
    let Some(SwaggerFile { bytes, content_type, gzpipped: is_packed, .. }) = found else {
        let message = format!("there is no /docs/{name}; GET /docs shows the document");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "RouteNotFound", message));
    };
    let bytes =
        if is_packed { unpacked(&bytes).map_err(|error| broken(&error))? } else { bytes.into_owned() };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(content_type) = HeaderValue::try_from(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    Ok(response)
}
