//! The parts of a request, each refused in our own words where it cannot be read.

use std::time::Duration;

use ::http::StatusCode;
use ::http::request::Parts;
use axum::RequestPartsExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, Query};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::Refusal;
use crate::serve::access::Identity;

/// A body comes to its end within this time, so that no client holds its connection, and what it sent so far, for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The query string.
pub(super) struct Params<T>(pub(super) T);

/// The one variable part of a path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Refusal::bad("BadQueryString", rejection.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match parts.extract::<Path<String>>().await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Refusal::bad("BadPath", rejection.body_text())),
        }
    }
}

/// Put there by the guard.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unauthorized)
    }
}

/// No key, or none that is known: which, is not told.
pub(super) fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Invalid credentials")
}

/// The whole body.
///
/// # Errors
/// 413 above `bytes_max`, 408 for one that does not come, 400 for one that breaks off.
pub(super) async fn body(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(unreadable(&error, bytes_max)),
        Err(_) => {
            let message = format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BodyTimeout", message))
        }
    }
}

fn unreadable(error: &axum::Error, bytes_max: usize) -> Refusal {
    let too_large = std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    match too_large {
        true => {
            let message = format!("the request body is larger than {} KiB", bytes_max >> 10);
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
        }
        false => Refusal::bad("BodyUnreadable", "the request body ended early"),
    }
}
