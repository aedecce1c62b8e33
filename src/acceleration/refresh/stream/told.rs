//! What is told of an append stream: written by its follower, read by everybody, without waiting for each other.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use crate::name::DatasetName;

/// An append stream as `/v1/datasets?status=true` tells it. Counts are since this process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    pub is_connected: bool,
    /// The upstream speaks `sidewing.stream.v1`: after a reconnect only what is missing is sent. None before its
    /// first message.
    pub is_resumable: Option<bool>,
    /// Since the stream was last known to be whole; zero while it is.
    pub lag: Duration,
    pub lag_max: Duration,
    /// Connections after the first.
    pub reconnects: u64,
    pub received_rows: u64,
    /// As they came, beside their headers.
    pub received_bytes: u64,
    /// Rows that came again and were left out.
    pub repeated_rows: u64,
    /// Rows that the stream had lost, brought by a query.
    pub repaired_rows: u64,
    /// Updates and deletes, which an append stream does not propagate.
    pub ignored_rows: u64,
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Told {
    dataset: DatasetName,
    lag_max: Duration,
    state: Mutex<State>,
    connects: AtomicU64,
    received_rows: Count,
    received_bytes: Count,
    repeated_rows: Count,
    repaired_rows: Count,
    ignored_rows: Count,
}

#[derive(Debug)]
struct State {
    is_connected: bool,
    is_resumable: Option<bool>,
    /// When all was last known to be here.
    whole: Instant,
    /// It is known to be whole for as long as the connection lives, but for what the upstream itself lags behind.
    is_whole: Option<Duration>,
}

/// A number that is told here and as a metric.
#[derive(Debug, Default)]
struct Count {
    here: AtomicU64,
    metric: Metric,
}

/// A counter of the registry; none before the follower has begun, because there may be no registry before.
#[derive(Default)]
struct Metric(OnceLock<Counter>);

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metric")
    }
}

impl Count {
    /// It is there from the start, so that its first increase is one.
    fn announce(&self, metric: Counter) {
        metric.absolute(self.get());
        let _ = self.metric.0.set(metric);
    }

    fn add(&self, more: u64) {
        self.here.fetch_add(more, Ordering::Relaxed);
        if let Some(metric) = self.metric.0.get() {
            metric.increment(more);
        }
    }

    fn get(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

impl Told {
    /// `lag_max` is `append_stream_acceptable_lag`.
    pub(in super::super) fn new(dataset: DatasetName, lag_max: Duration) -> Self {
        let state = State { is_connected: false, is_resumable: None, whole: Instant::now(), is_whole: None };
        Self {
            dataset,
            lag_max,
            state: Mutex::new(state),
            connects: AtomicU64::new(0),
            received_rows: Count::default(),
            received_bytes: Count::default(),
            repeated_rows: Count::default(),
            repaired_rows: Count::default(),
            ignored_rows: Count::default(),
        }
    }

    pub(in super::super) fn status(&self) -> StreamStatus {
        let lag = self.lag();
        let state = self.state();
        StreamStatus {
            is_connected: state.is_connected,
            is_resumable: state.is_resumable,
            lag,
            lag_max: self.lag_max,
            reconnects: self.connects.load(Ordering::Relaxed).saturating_sub(1),
            received_rows: self.received_rows.get(),
            received_bytes: self.received_bytes.get(),
            repeated_rows: self.repeated_rows.get(),
            repaired_rows: self.repaired_rows.get(),
            ignored_rows: self.ignored_rows.get(),
        }
    }

    pub(super) fn lag(&self) -> Duration {
        let state = self.state();
        match state.is_whole {
            Some(behind) => behind,
            None => state.whole.elapsed(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.state().is_whole.is_some()
    }

    pub(super) fn is_late(&self) -> bool {
        self.lag() > self.lag_max
    }

    pub(super) fn lag_max(&self) -> Duration {
        self.lag_max
    }

    /// The follower begins: what was restored may be old, but nobody knows how old.
    pub(super) fn begin(&self) {
        let dataset = || self.dataset.to_string();
        let Self { received_rows, received_bytes, repeated_rows, repaired_rows, ignored_rows, .. } = self;
        received_rows.announce(metrics::counter!("append_stream_received_rows", "dataset" => dataset()));
        received_bytes.announce(metrics::counter!("append_stream_received_bytes", "dataset" => dataset()));
        repeated_rows.announce(metrics::counter!("append_stream_repeated_rows", "dataset" => dataset()));
        repaired_rows.announce(metrics::counter!("append_stream_repaired_rows", "dataset" => dataset()));
        ignored_rows.announce(metrics::counter!("append_stream_ignored_rows", "dataset" => dataset()));
        metrics::counter!("append_stream_reconnects", "dataset" => dataset()).absolute(0);
        self.state().whole = Instant::now();
    }

    pub(super) fn connected(&self) {
        if self.connects.fetch_add(1, Ordering::Relaxed) > 0 {
            let dataset = self.dataset.to_string();
            metrics::counter!("append_stream_reconnects", "dataset" => dataset).increment(1);
        }
        let mut state = self.state();
        (state.is_connected, state.is_resumable) = (true, None);
    }

    pub(super) fn speaks(&self, is_resumable: bool) {
        self.state().is_resumable = Some(is_resumable);
    }

    pub(super) fn disconnected(&self) {
        self.apart();
        self.state().is_connected = false;
    }

    /// All that there was at `at` is here; the upstream itself lags `behind`.
    pub(super) fn whole(&self, at: Instant, behind: Duration) {
        let mut state = self.state();
        state.whole = state.whole.max(at.checked_sub(behind).unwrap_or(state.whole));
        state.is_whole = Some(behind);
    }

    /// From now on it is not known to be.
    pub(super) fn apart(&self) {
        let mut state = self.state();
        if let Some(behind) = state.is_whole.take() {
            let whole = Instant::now().checked_sub(behind);
            state.whole = whole.map_or(state.whole, |whole| whole.max(state.whole));
        }
    }

    pub(super) fn received(&self, rows: u64, bytes: u64) {
        self.received_rows.add(rows);
        self.received_bytes.add(bytes);
    }

    pub(super) fn repeated(&self, rows: u64) {
        self.repeated_rows.add(rows);
    }

    pub(super) fn repaired(&self, rows: u64) {
        self.repaired_rows.add(rows);
    }

    /// Whether these are the first.
    pub(super) fn ignored(&self, rows: u64) -> bool {
        let before = self.ignored_rows.get();
        self.ignored_rows.add(rows);
        before == 0
    }

    pub(super) fn ignored_rows(&self) -> u64 {
        self.ignored_rows.get()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lag_begins_when_the_stream_ends_and_goes_down_the_chain() {
        let told = Told::new("t".parse().unwrap(), Duration::from_secs(60));
        let seconds = Duration::from_secs;
        tokio::time::advance(seconds(61)).await;
        assert!(told.is_late(), "never whole");
        told.connected();
        told.whole(Instant::now(), Duration::ZERO);
        tokio::time::advance(seconds(100)).await;
        assert_eq!(told.lag(), Duration::ZERO, "quiet and connected");
        told.disconnected();
        tokio::time::advance(seconds(5)).await;
        assert_eq!(told.lag(), seconds(5));
        told.connected();
        told.whole(Instant::now(), seconds(3));
        assert_eq!(told.lag(), seconds(3), "the upstream lags itself");
        told.apart();
        tokio::time::advance(seconds(1)).await;
        assert_eq!(told.lag(), seconds(4));
        assert_eq!(told.status().reconnects, 1);
    }
}
