//! `GET /v1/ready` and `GET /v1/datasets`: what can be asked, and why not.

use std::fmt::Write as _;
use std::time::SystemTime;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, StatusCode};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::error::Refusal;
use crate::acceleration::{Phase, RefreshFailure, Status, StreamStatus};
use crate::query::{DatasetState, DatasetStatus, Readiness};
use crate::serve::{Door, status};

const PLAIN: &str = "text/plain; charset=utf-8";

#[derive(Deserialize)]
pub(super) struct ReadyParams {
    #[serde(default)]
    verbose: bool,
}

#[derive(Deserialize)]
pub(super) struct DatasetsParams {
    #[serde(default)]
    status: bool,
    #[serde(default)]
    format: ListFormat,
    source: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ListFormat {
    #[default]
    Json,
    Csv,
}

/// One dataset, by the names that Spice.ai's clients know.
#[derive(Serialize)]
struct Item {
    from: String,
    name: String,
    replication_enabled: bool,
    acceleration_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// When the error began.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acceleration: Option<ItemAcceleration>,
}

/// What is kept of a dataset.
#[derive(Serialize)]
struct ItemAcceleration {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the state began.
    since: String,
    rows: usize,
    bytes: usize,
    generation: Option<u64>,
    last_refresh: Option<String>,
    /// How long it took.
    last_refresh_seconds: Option<f64>,
    watermark: Option<String>,
    lag_seconds: Option<f64>,
    /// Of a dataset that follows an append stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<ItemStream>,
    /// Of the refresh that takes rows now.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ItemProgress>,
    refreshes: ItemRefreshes,
}

#[derive(Serialize)]
struct ItemProgress {
    rows: usize,
    bytes: usize,
    elapsed_seconds: f64,
}

#[derive(Serialize)]
struct ItemStream {
    connected: bool,
    /// After a reconnect only what is missing is sent.
    resumable: Option<bool>,
    acceptable_lag_seconds: f64,
    reconnects: u64,
    received_rows: u64,
    received_bytes: u64,
    repeated_rows: u64,
    repaired_rows: u64,
    ignored_rows: u64,
}

/// The refreshes that somebody asked for, by their numbers.
#[derive(Serialize)]
struct ItemRefreshes {
    /// The last that was asked for.
    asked: u64,
    /// The last that has ended.
    ended: u64,
    /// The last that failed.
    failures: Vec<ItemFailure>,
}

#[derive(Serialize)]
struct ItemFailure {
    refresh: u64,
    reason: String,
}

#[derive(Serialize)]
struct ItemError {
    /// Whose it is: `dataset`.
    category: &'static str,
    /// Whether it may heal: `transient` or `permanent`.
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
}

fn bad_params(rejection: &QueryRejection, headers: &HeaderMap) -> Response {
    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "BadQueryString", rejection.body_text());
    refusal.answer(headers)
}

/// 200 `ready` when every dataset and view is, else 503 `not ready` with a line for each that is not.
pub(super) async fn ready<D: Door>(
    State(door): State<D>,
    headers: HeaderMap,
    params: Result<Query<ReadyParams>, QueryRejection>,
) -> Response {
    let verbose = match params {
        Ok(Query(params)) => params.verbose,
        Err(rejection) => return bad_params(&rejection, &headers),
    };
    let (is_ready, text) = ready_report(&door.datasets(), SystemTime::now(), verbose);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, PLAIN)], text).into_response()
}

/// Whether every dataset and view can be asked, and what is said of those that cannot, or of all.
pub(in crate::serve) fn ready_report(
    datasets: &[DatasetStatus],
    now: SystemTime,
    verbose: bool,
) -> (bool, String) {
    let verdicts: Vec<_> = datasets.iter().map(|dataset| (dataset, dataset.readiness(now))).collect();
    let told = verdicts.iter().filter(|(_, readiness)| verbose || !readiness.is_ready());
    let lines: String = told.map(|(dataset, readiness)| ready_line(dataset, readiness)).collect();
    match (verdicts.iter().all(|(_, readiness)| readiness.is_ready()), verbose) {
        // Clients compare the whole body.
        (true, false) => (true, "ready".to_owned()),
        (true, true) => (true, format!("{lines}ready\n")),
        (false, _) => (false, format!("not ready\n{lines}")),
    }
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

/// The datasets of the spicepod; views are not among them.
pub(super) async fn datasets<D: Door>(
    State(door): State<D>,
    headers: HeaderMap,
    params: Result<Query<DatasetsParams>, QueryRejection>,
) -> Response {
    let params = match params {
        Ok(Query(params)) => params,
        Err(rejection) => return bad_params(&rejection, &headers),
    };
    let listed = door.datasets().into_iter().filter(|dataset| !dataset.is_view);
    let wanted = listed.filter(|dataset| is_from(&dataset.from, params.source.as_deref()));
    let items = wanted.map(|dataset| item(dataset, params.status)).collect::<Vec<_>>();
    match params.format {
        ListFormat::Json => Json(items).into_response(),
        ListFormat::Csv => {
            ([(CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&items, params.status)).into_response()
        }
    }
}

/// Whether a dataset comes `from` this source: the connector's name, or the whole text.
fn is_from(from: &str, source: Option<&str>) -> bool {
    let connector = from.split([':', '/']).next();
    source.is_none_or(|source| from == source || connector == Some(source))
}

fn item(dataset: DatasetStatus, with_status: bool) -> Item {
    let (phase, kept) = (dataset.phase(), dataset.acceleration.as_ref());
    let (error, since) = match &dataset.state {
        DatasetState::Error { reason, since, .. } if with_status => (Some(reason), Some(*since)),
        _ => (None, None),
    };
    let failed =
        kept.filter(|kept| with_status && kept.phase == Phase::Error).and_then(|kept| kept.reason.clone());
    Item {
        from: dataset.from,
        name: dataset.name.to_string(),
        replication_enabled: false,
        acceleration_enabled: kept.is_some(),
        status: with_status.then_some(phase.word()),
        error: error.map(|error| {
            let verdict = status::of(error);
            let kind = if verdict.passes { "transient" } else { "permanent" };
            ItemError { category: "dataset", kind, code: verdict.code }
        }),
        error_message: failed.or_else(|| error.map(|error| status::message(error))),
        since: since.map(shown),
        acceleration: kept.filter(|_| with_status).map(kept_item),
    }
}

fn kept_item(kept: &Status) -> ItemAcceleration {
    ItemAcceleration {
        reason: kept.reason.clone(),
        since: shown(kept.since),
        rows: kept.rows,
        bytes: kept.bytes,
        generation: kept.generation,
        last_refresh: kept.last_refresh.map(shown),
        last_refresh_seconds: kept.last_refresh_took.map(|took| took.as_secs_f64()),
        watermark: kept.watermark.map(shown),
        lag_seconds: kept.lag().map(|lag| lag.as_secs_f64()),
        stream: kept.stream.as_ref().map(stream),
        progress: kept.progress.map(|progress| ItemProgress {
            rows: progress.rows,
            bytes: progress.bytes,
            elapsed_seconds: progress.elapsed.as_secs_f64(),
        }),
        refreshes: ItemRefreshes {
            asked: kept.refreshes.asked,
            ended: kept.refreshes.ended,
            failures: kept.refreshes.failures.iter().map(ItemFailure::of).collect(),
        },
    }
}

impl ItemFailure {
    fn of(failure: &RefreshFailure) -> Self {
        Self { refresh: failure.refresh, reason: failure.reason.clone() }
    }
}

/// RFC 3339, UTC.
fn shown(moment: SystemTime) -> String {
    DateTime::<Utc>::from(moment).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn csv(items: &[Item], with_status: bool) -> String {
    let mut text = String::from("from,name,replication_enabled,acceleration_enabled");
    text.push_str(if with_status { ",status,error_message\n" } else { "\n" });
    for item in items {
        let (replicated, accelerated) = (item.replication_enabled, item.acceleration_enabled);
        let _ = write!(text, "{},{},{replicated},{accelerated}", quoted(&item.from), quoted(&item.name));
        if let Some(status) = item.status {
            let _ = write!(text, ",{status},{}", quoted(item.error_message.as_deref().unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

/// A CSV field, RFC 4180.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
fn stream(of: &StreamStatus) -> ItemStream {
    ItemStream {
        connected: of.is_connected,
        resumable: of.is_resumable,
        acceptable_lag_seconds: of.lag_max.as_secs_f64(),
        reconnects: of.reconnects,
        received_rows: of.received_rows,
        received_bytes: of.received_bytes,
        repeated_rows: of.repeated_rows,
        repaired_rows: of.repaired_rows,
        ignored_rows: of.ignored_rows,
    }
}
