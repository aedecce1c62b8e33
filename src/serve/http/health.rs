//! `GET /health` and `GET /v1/ready`: whether the process lives, and whether it can be asked. Probes have no key.

use std::time::SystemTime;

use ::http::StatusCode;
use ::http::header::CONTENT_TYPE;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::accept::Format;
use super::extract::Params;
use crate::query::{DatasetStatus, Readiness};
use crate::serve::{Door, status};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadyParams {
    /// With a line for each dataset and view.
    #[serde(default)]
    verbose: bool,
}

/// Whether the process lives.
#[utoipa::path(
    get,
    path = "/health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain", example = "ok\n"))
)]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// The same as `/health`.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain", example = "ok\n"))
)]
pub(super) async fn healthz() -> &'static str {
    health().await
}

/// Whether every dataset and view can be asked.
#[utoipa::path(
    get,
    path = "/v1/ready",
    params(ReadyParams),
    responses(
        (status = 200, description = "All can", body = String, content_type = "text/plain", example = "ready"),
        (status = 400, description = "The query string cannot be read"),
        (
            status = 503,
            description = "Some cannot, each with a line of its own",
            body = String,
            content_type = "text/plain",
            example = "not ready\n[-] orders is being loaded\n"
        ),
    )
)]
pub(super) async fn ready<D: Door>(
    State(door): State<D>,
    Params(ReadyParams { verbose }): Params<ReadyParams>,
) -> Response {
    told(&door, verbose)
}

/// The same as `/v1/ready`.
#[utoipa::path(
    get,
    path = "/readyz",
    params(ReadyParams),
    responses(
        (status = 200, description = "All can", body = String, content_type = "text/plain", example = "ready"),
        (status = 400, description = "The query string cannot be read"),
        (
            status = 503,
            description = "Some cannot, each with a line of its own",
            body = String,
            content_type = "text/plain",
            example = "not ready\n[-] orders is being loaded\n"
        ),
    )
)]
pub(super) async fn readyz<D: Door>(
    State(door): State<D>,
    Params(ReadyParams { verbose }): Params<ReadyParams>,
) -> Response {
    told(&door, verbose)
}

/// 200 `ready` when every dataset and view is, else 503 `not ready` with a line for each that is not.
fn told(door: &impl Door, verbose: bool) -> Response {
    let (now, datasets) = (SystemTime::now(), door.datasets());
    let verdicts: Vec<_> = datasets.iter().map(|dataset| (dataset, dataset.readiness(now))).collect();
    let told = verdicts.iter().filter(|(_, readiness)| verbose || !readiness.is_ready());
    let lines: String = told.map(|(dataset, readiness)| ready_line(dataset, readiness)).collect();
    let (status, text) = match (verdicts.iter().all(|(_, readiness)| readiness.is_ready()), verbose) {
        // Clients compare the whole body.
        (true, false) => (StatusCode::OK, "ready".to_owned()),
        (true, true) => (StatusCode::OK, format!("{lines}ready\n")),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{lines}")),
    };
    (status, [(CONTENT_TYPE, Format::Plain.content_type())], text).into_response()
}

fn ready_line(dataset: &DatasetStatus, readiness: &Readiness<'_>) -> String {
    let name = &dataset.name;
    match readiness {
        Readiness::Ready => format!("[+] {name} ok\n"),
        Readiness::Stale(reason) => format!("[+] {name} ok, stale: {reason}\n"),
        Readiness::Away { reason, elapsed } => {
            format!("[+] {name} ok, away for {} s: {}\n", elapsed.as_secs(), status::message(reason))
        }
        Readiness::Loading => format!("[-] {name} is being loaded\n"),
        Readiness::Unready(reason) => format!("[-] {}\n", status::message(reason)),
    }
}
