//! Errors as HTTP answers: JSON for a client that takes JSON, text otherwise.
//!
//! A handler says what is wrong; [`outer`](super::outer) knows the client, and writes it.

use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderValue, StatusCode};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::query::QueryError;
use crate::serve::status;

/// When a client may try again what failed for now.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A refused request. As a response it is without a body until it is [`Refusal::told`].
#[derive(Debug, Clone)]
pub(in crate::serve) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    dataset: Option<String>,
    endpoint: Option<String>,
    passes: bool,
}

/// What is wrong, for a client that takes JSON; others read the message alone.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody<'a> {
    /// A stable word for programs.
    #[schema(example = "DatasetNotReady")]
    code: &'a str,
    /// What is wrong, where, why, and what to do.
    message: &'a str,
    /// The dataset that it is about.
    dataset: Option<&'a str>,
    /// The upstream's endpoint that it is about.
    endpoint: Option<&'a str>,
    /// The answer's `X-Request-Id`, which the log has too.
    request_id: Option<&'a str>,
}

impl Refusal {
    /// A refusal that has nothing to do with a dataset.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), dataset: None, endpoint: None, passes: false }
    }

    /// 400.
    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same, of a request that may succeed soon.
    pub(super) fn passing(self) -> Self {
        Self { passes: true, ..self }
    }

    /// Writes itself into the `response` that it was turned into.
    pub(super) fn told(self, response: Response, as_json: bool, request_id: &HeaderValue) -> Response {
        let (content_type, text) = match as_json {
            true => ("application/json", self.json(request_id.to_str().ok())),
            false => ("text/plain; charset=utf-8", format!("{}\n", self.message).into_bytes()),
        };
        let (mut head, _) = response.into_parts();
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        Response::from_parts(head, Body::from(text))
    }

    fn json(&self, request_id: Option<&str>) -> Vec<u8> {
        let body = ErrorBody {
            code: self.code,
            message: &self.message,
            dataset: self.dataset.as_deref(),
            endpoint: self.endpoint.as_deref(),
            request_id,
        };
        // Texts and nulls are always JSON.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if self.passes {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<&QueryError> for Refusal {
    fn from(error: &QueryError) -> Self {
        let verdict = status::of(error);
        if verdict.http.is_server_error() && !verdict.passes {
            tracing::warn!(%error, code = verdict.code, "query failed");
        }
        let (dataset, endpoint) = status::place(error);
        Self {
            status: verdict.http,
            code: verdict.code,
            message: status::message(error),
            dataset: dataset.map(str::to_owned),
            endpoint: endpoint.map(str::to_owned),
            passes: verdict.passes,
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Self::from(&error)
    }
}
