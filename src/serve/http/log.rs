//! `/v1/log`: what the log tells, and whoever may write can let it tell something else while the process runs.

use ::http::StatusCode;
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusal;
use super::may_write;
use crate::serve::access::Identity;
use crate::telemetry;

/// What the log tells.
#[derive(Serialize, ToSchema)]
pub(super) struct Log {
    /// As `RUST_LOG` takes it.
    #[schema(example = "warn,sidewing=debug")]
    directives: String,
}

/// Tells what is logged.
#[utoipa::path(get, path = "/v1/log", responses((status = 200, description = "What is logged", body = Log)))]
pub(super) async fn log() -> Json<Log> {
    Json(Log { directives: telemetry::log_directives().unwrap_or_default() })
}

/// Changes what is logged until the restart.
///
/// The body has the words of `RUST_LOG`: `info`, or `warn,sidewing=debug`.
#[utoipa::path(
    put,
    path = "/v1/log",
    request_body(content((String = "text/plain", example = "warn,sidewing=debug"))),
    responses(
        (status = 200, description = "What is logged from now on", body = Log),
        (status = 400, description = "The body cannot be read as directives"),
        (status = 403, description = "The key may only read"),
    )
)]
pub(super) async fn set_log(identity: Identity, directives: String) -> Result<Json<Log>, Refusal> {
    may_write(&identity)?;
    telemetry::set_directives(&directives)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "InvalidLogDirectives", error.to_string()))?;
    tracing::info!(directives = directives.trim(), "the log tells something else");
    Ok(log().await)
}
