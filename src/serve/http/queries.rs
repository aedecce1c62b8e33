//! `GET /v1/sql/active`, `GET /v1/sql/recent` and `POST /v1/sql/{id}/cancel`: what runs, what ran, and its end.
//!
//! A caller sees and ends its own queries; one who may write, everybody's.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ::http::StatusCode;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusal;
use super::extract::Named;
use super::listing;
use crate::name::{QueryId, QueryIdError};
use crate::query::{CancelError, Outcome, Place, QueryRecord, QueryRef};
use crate::serve::Door;
use crate::serve::access::Identity;

/// One query.
#[derive(Serialize, ToSchema)]
#[schema(as = Query)]
pub(super) struct Item {
    query_id: String,
    /// Which front end it came through: `http`, `flight`, `flightsql`, `mcp` or `internal`.
    protocol: &'static str,
    /// Who asked: `anonymous`, or a name for the key that tells nothing of it.
    principal: String,
    /// The statement, cut where it is long.
    #[schema(value_type = String)]
    sql: Arc<str>,
    /// The same, by the name that Spice.ai's clients know.
    #[schema(value_type = String)]
    sql_preview: Arc<str>,
    /// RFC 3339.
    #[schema(format = DateTime)]
    started: String,
    /// The same, in milliseconds since 1970.
    started_at_ms: u64,
    /// Its waiting included.
    elapsed_ms: f64,
    /// Taken by its client so far.
    rows: u64,
    /// Where it is answered: `local`, `pushed`, `federated` or `cache`; null until it is planned.
    place: Option<&'static str>,
    /// How it ended: `done`, `failed`, `cancelled`, or `left` by its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The queries that run, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = RunningQueries)]
pub(super) struct Running {
    queries: Vec<Item>,
    total_count: usize,
}

/// The last queries that ended, last first.
#[derive(Serialize, ToSchema)]
#[schema(as = EndedQueries)]
pub(super) struct Ended {
    queries: Vec<Item>,
}

/// A query that was asked to end.
#[derive(Serialize, ToSchema)]
#[schema(as = CancelledQuery)]
pub(super) struct Cancelled {
    query_id: String,
    #[schema(example = "cancelled")]
    status: &'static str,
}

impl From<QueryRecord> for Item {
    fn from(record: QueryRecord) -> Self {
        let since = record.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let error = match &record.outcome {
            Some(Outcome::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        Self {
            query_id: record.id.to_string(),
            protocol: record.protocol.word(),
            principal: record.principal.to_string(),
            sql_preview: Arc::clone(&record.sql),
            sql: record.sql,
            started: listing::shown(record.started),
            started_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            elapsed_ms: record.elapsed.as_secs_f64() * 1_000.0,
            rows: record.rows,
            place: record.place.map(Place::word),
            outcome: record.outcome.as_ref().map(Outcome::word),
            error,
        }
    }
}

/// The queries that run.
#[utoipa::path(
    get,
    path = "/v1/sql/active",
    responses((status = 200, description = "The caller's own; with a key with `:rw`, everybody's", body = Running))
)]
pub(super) async fn active<D: Door>(State(door): State<D>, identity: Identity) -> Json<Running> {
    let queries: Vec<Item> = door.running_queries(&identity.caller).into_iter().map(Item::from).collect();
    Json(Running { total_count: queries.len(), queries })
}

/// The queries that ended last.
#[utoipa::path(
    get,
    path = "/v1/sql/recent",
    responses((status = 200, description = "The caller's own; with a key with `:rw`, everybody's", body = Ended))
)]
pub(super) async fn recent<D: Door>(State(door): State<D>, identity: Identity) -> Json<Ended> {
    let queries = door.ended_queries(&identity.caller).into_iter().map(Item::from).collect();
    Json(Ended { queries })
}

/// Ends a query.
#[utoipa::path(
    post,
    path = "/v1/sql/{id}/cancel",
    params((
        "id" = String,
        Path,
        pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        description = "The query's id: its answer's `X-Query-Id`"
    )),
    responses(
        (status = 200, description = "The query ends, and its client is told so", body = Cancelled),
        (status = 400, description = "The id is no UUID"),
        (status = 403, description = "The query is another caller's: only a key with `:rw` cancels those"),
        (status = 404, description = "No such query runs"),
    )
)]
pub(super) async fn cancel<D: Door>(
    State(door): State<D>,
    identity: Identity,
    Named(id): Named,
) -> Result<Json<Cancelled>, Refusal> {
    let id: QueryId =
        id.parse().map_err(|error: QueryIdError| Refusal::bad("BadQueryId", error.to_string()))?;
    door.cancel(QueryRef::Id(id), &identity.caller).map_err(|error| {
        let (status, code) = match error {
            CancelError::Unknown => (StatusCode::NOT_FOUND, "QueryNotFound"),
            CancelError::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
        };
        Refusal::new(status, code, error.to_string())
    })?;
    Ok(Json(Cancelled { query_id: id.to_string(), status: "cancelled" }))
}
