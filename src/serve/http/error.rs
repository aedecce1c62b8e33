//! Errors as HTTP answers: JSON for a client that names JSON, text otherwise.

use ::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{REQUEST_ID, accept};
use crate::query::QueryError;
use crate::serve::status;

/// When a client may try again what failed for now.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A refused request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    dataset: Option<String>,
    endpoint: Option<String>,
    passes: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    dataset: Option<&'a str>,
    endpoint: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl Refusal {
    /// A refusal that has nothing to do with a dataset.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), dataset: None, endpoint: None, passes: false }
    }

    /// The answer to a request with these headers.
    pub(super) fn answer(self, headers: &HeaderMap) -> Response {
        let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let mut response = match accept::names_json(headers) {
            true => Json(Body {
                code: self.code,
                message: &self.message,
                dataset: self.dataset.as_deref(),
                endpoint: self.endpoint.as_deref(),
                request_id,
            })
            .into_response(),
            false => {
                ([(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{}\n", self.message)).into_response()
            }
        };
        *response.status_mut() = self.status;
        if self.passes {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
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
