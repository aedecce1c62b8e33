//! The parts of a request, each refused in our own words where it cannot be read.

use ::http::StatusCode;
use ::http::request::Parts;
use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path, Query};
use serde::de::DeserializeOwned;

use super::error::Refusal;
use crate::serve::access::Identity;

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
