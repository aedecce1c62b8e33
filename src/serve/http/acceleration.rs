//! `POST /v1/datasets/{name}/acceleration/refresh` and `PATCH /v1/datasets/{name}/acceleration`: a wish enters, its
//! acceptance leaves at once.

use ::http::StatusCode;
use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Bodies;
use super::error::Refusal;
use super::extract::Named;
use super::may_write;
use crate::config::Duration;
use crate::query::{Ask, AskError, AskMode};
use crate::serve::Door;
use crate::serve::access::Identity;

/// The largest body here: a SELECT of one dataset.
const BODY_BYTES_MAX: usize = 128 * 1024;

/// What a refresh may be asked for with; nothing is fine too.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefreshRequest)]
pub(super) struct Wish {
    /// Which rows, this time: a SELECT of the dataset. Needs a key with `:rw`.
    #[schema(example = "SELECT * FROM orders WHERE id > 10")]
    refresh_sql: Option<String>,
    /// `full` or `append`; the spicepod's where it is absent.
    #[schema(example = "full")]
    refresh_mode: Option<String>,
    /// It begins after a random time up to this.
    #[schema(example = "1s")]
    refresh_jitter_max: Option<String>,
}

/// A refresh that was asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = RefreshAccepted)]
pub(super) struct Accepted {
    message: String,
    /// Its number: `acceleration.refreshes.ended` of the dataset's status reaches it when it has ended.
    refresh: u64,
}

/// What changes until the restart.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccelerationChange)]
pub(super) struct Change {
    /// Which rows from now on; the spicepod's where it is absent.
    #[schema(example = "SELECT * FROM orders WHERE id > 10")]
    refresh_sql: Option<String>,
}

/// Asks for a refresh.
///
/// 201 once it is queued.
#[utoipa::path(
    post,
    path = "/v1/datasets/{name}/acceleration/refresh",
    params(("name" = String, Path, description = "The dataset")),
    request_body(content = Option<Wish>, content_type = "application/json"),
    responses(
        (status = 201, description = "The refresh is queued", body = Accepted),
        (status = 400, description = "The dataset is not accelerated, or the body cannot be read"),
        (status = 403, description = "The key may only read, and the body has `refresh_sql`"),
        (status = 404, description = "There is no such dataset"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is larger than 128 KiB"),
        (status = 429, description = "As many refreshes wait as may"),
        (status = 503, description = "There is no room for the body: `Retry-After` says when to try"),
    )
)]
pub(super) async fn refresh<D: Door>(
    State(door): State<D>,
    Extension(bodies): Extension<Bodies>,
    identity: Identity,
    Named(dataset): Named,
    body: Body,
) -> Result<(StatusCode, Json<Accepted>), Refusal> {
    let ask = wish(&bodies.read(body, BODY_BYTES_MAX).await?.bytes)?;
    // Other rows than the spicepod's would be everybody's.
    if ask.sql.is_some() {
        may_write(&identity)?;
    }
    let refresh = door.refresh(&dataset, ask)?;
    let message = format!("Dataset refresh triggered for {dataset}.");
    Ok((StatusCode::CREATED, Json(Accepted { message, refresh })))
}

/// Changes how a dataset is kept, until the restart.
#[utoipa::path(
    patch,
    path = "/v1/datasets/{name}/acceleration",
    params(("name" = String, Path, description = "The dataset")),
    request_body(content = Change, content_type = "application/json"),
    responses(
        (status = 200, description = "It holds from the next refresh on"),
        (status = 400, description = "The dataset is not accelerated, or the body cannot be read"),
        (status = 403, description = "The key may only read"),
        (status = 404, description = "There is no such dataset"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is larger than 128 KiB"),
        (status = 429, description = "As many refreshes wait as may"),
        (status = 503, description = "There is no room for the body: `Retry-After` says when to try"),
    )
)]
pub(super) async fn change<D: Door>(
    State(door): State<D>,
    Extension(bodies): Extension<Bodies>,
    identity: Identity,
    Named(dataset): Named,
    body: Body,
) -> Result<StatusCode, Refusal> {
    may_write(&identity)?;
    let body = bodies.read(body, BODY_BYTES_MAX).await?.bytes;
    let Change { refresh_sql } = serde_json::from_slice(&body).map_err(unparsable)?;
    door.set_refresh_sql(&dataset, refresh_sql)?;
    Ok(StatusCode::OK)
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

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        let (status, code) = match error {
            AskError::NotFound(_) => (StatusCode::NOT_FOUND, "DatasetNotFound"),
            AskError::NotAccelerated(_) => (StatusCode::BAD_REQUEST, "NotAccelerated"),
            AskError::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRefresh"),
            AskError::Busy(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyRefreshes"),
        };
        Self::new(status, code, error.to_string())
    }
}
