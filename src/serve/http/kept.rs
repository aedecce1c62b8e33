//! How a dataset is kept here: the state of its acceleration as clients read it.

use serde::Serialize;
use utoipa::ToSchema;

use super::listing::shown;
use crate::acceleration::{Progress, RefreshFailure, Status, StreamStatus};

/// What is kept of a dataset.
#[derive(Serialize, ToSchema)]
#[schema(as = Acceleration)]
pub(super) struct ItemAcceleration {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the state began.
    #[schema(format = DateTime)]
    since: String,
    rows: usize,
    bytes: usize,
    generation: Option<u64>,
    #[schema(format = DateTime)]
    last_refresh: Option<String>,
    /// How long it took.
    last_refresh_seconds: Option<f64>,
    #[schema(format = DateTime)]
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

#[derive(Serialize, ToSchema)]
#[schema(as = AccelerationProgress)]
struct ItemProgress {
    rows: usize,
    bytes: usize,
    elapsed_seconds: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccelerationStream)]
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
#[derive(Serialize, ToSchema)]
#[schema(as = Refreshes)]
struct ItemRefreshes {
    /// The last that was asked for.
    asked: u64,
    /// The last that has ended.
    ended: u64,
    /// The last that failed.
    failures: Vec<ItemFailure>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RefreshFailure)]
struct ItemFailure {
    refresh: u64,
    reason: String,
}

impl ItemAcceleration {
    pub(super) fn of(kept: &Status) -> Self {
        Self {
            reason: kept.reason.clone(),
            since: shown(kept.since),
            rows: kept.rows,
            bytes: kept.bytes,
            generation: kept.generation,
            last_refresh: kept.last_refresh.map(shown),
            last_refresh_seconds: kept.last_refresh_took.map(|took| took.as_secs_f64()),
            watermark: kept.watermark.map(shown),
            lag_seconds: kept.lag().map(|lag| lag.as_secs_f64()),
            stream: kept.stream.as_ref().map(ItemStream::of),
            progress: kept.progress.map(ItemProgress::of),
            refreshes: ItemRefreshes {
                asked: kept.refreshes.asked,
                ended: kept.refreshes.ended,
                failures: kept.refreshes.failures.iter().map(ItemFailure::of).collect(),
            },
        }
    }
}

impl ItemProgress {
    fn of(progress: Progress) -> Self {
        let elapsed_seconds = progress.elapsed.as_secs_f64();
        Self { rows: progress.rows, bytes: progress.bytes, elapsed_seconds }
    }
}

impl ItemStream {
    fn of(stream: &StreamStatus) -> Self {
        Self {
            connected: stream.is_connected,
            resumable: stream.is_resumable,
            acceptable_lag_seconds: stream.lag_max.as_secs_f64(),
            reconnects: stream.reconnects,
            received_rows: stream.received_rows,
            received_bytes: stream.received_bytes,
            repeated_rows: stream.repeated_rows,
            repaired_rows: stream.repaired_rows,
            ignored_rows: stream.ignored_rows,
        }
    }
}

impl ItemFailure {
    fn of(failure: &RefreshFailure) -> Self {
        Self { refresh: failure.refresh, reason: failure.reason.clone() }
    }
}
