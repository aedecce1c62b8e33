//! `POST /v1/datasets/{name}/acceleration/refresh` and `PATCH /v1/datasets/{name}/acceleration`: a wish enters, its
//! acceptance leaves at once.

use ::http::{HeaderMap, StatusCode};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::error::Refusal;
use super::may_write;
use crate::config::Duration;
use crate::query::{Ask, AskError, AskMode};
use crate::serve::Door;
use crate::serve::access::Identity;

/// What a refresh may be asked for with; nothing is fine too.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Wish {
    refresh_sql: Option<String>,
    refresh_mode: Option<String>,
    refresh_jitter_max: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    refresh_sql: Option<String>,
}

/// 201 once the refresh is queued, with its number: `refreshes` of the dataset's status tells when it has ended.
pub(super) async fn refresh<D: Door>(
    State(door): State<D>,
    Path(dataset): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let wished = wish(&body);
    // Other rows than the spicepod's would be everybody's.
    if wished.as_ref().is_ok_and(|ask| ask.sql.is_some())
        && let Err(refusal) = may_write(&identity)
    {
        return refusal.answer(&headers);
    }
    let asked = wished.and_then(|ask| door.refresh(&dataset, ask));
    match asked {
        Ok(refresh) => {
            let message = format!("Dataset refresh triggered for {dataset}.");
            (StatusCode::CREATED, Json(json!({ "message": message, "refresh": refresh }))).into_response()
        }
        Err(error) => refused(&error, &headers),
    }
}

/// 200 with nothing; what was changed is forgotten at a restart.
pub(super) async fn change<D: Door>(
    State(door): State<D>,
    Path(dataset): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refusal) = may_write(&identity) {
        return refusal.answer(&headers);
    }
    let change: Result<Change, _> = serde_json::from_slice(&body).map_err(unparsable);
    match change.and_then(|change| door.set_refresh_sql(&dataset, change.refresh_sql)) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => refused(&error, &headers),
    }
}

fn wish(body: &[u8]) -> Result<Ask, AskError> {
    let wish = match body.trim_ascii().is_empty() {
        true => Wish::default(),
        false => serde_json::from_slice(body).map_err(unparsable)?,
    };
    let mode = match wish.refresh_mode.as_deref() {
        None => None,
        Some("full") => Some(AskMode::Full),
        Some("append") => Some(AskMode::Append),
        Some(other) => {
            return Err(AskError::Invalid(format!("refresh_mode `{other}` is not one of full, append")));
        }
    };
    let jitter_max = wish.refresh_jitter_max.map(|text| {
        let jitter: Result<Duration, _> = text.parse();
        jitter.map_err(|error| AskError::Invalid(format!("refresh_jitter_max: {error}")))
    });
    let jitter_max = jitter_max.transpose()?.map(|jitter| jitter.get());
    Ok(Ask { sql: wish.refresh_sql, mode, jitter_max })
}

fn unparsable(error: serde_json::Error) -> AskError {
    AskError::Invalid(format!("the body is not what was expected: {error}"))
}

/// The message stands alone in JSON, as the public runtime has it.
fn refused(error: &AskError, headers: &HeaderMap) -> Response {
    let (status, code) = match error {
        AskError::NotFound(_) => (StatusCode::NOT_FOUND, "DatasetNotFound"),
        AskError::NotAccelerated(_) => (StatusCode::BAD_REQUEST, "NotAccelerated"),
        AskError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRefresh"),
        AskError::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRefreshes"),
    };
    Refusal::new(status, code, error.to_string()).answer(headers)
}
