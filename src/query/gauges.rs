//! The gauges of datasets, written when somebody looks at the metrics: states leave, nothing is kept.
//!
//! Names and meanings are the public runtime's, so that its dashboards work.

use std::time::{Duration, SystemTime};

use datafusion::execution::memory_pool::MemoryLimit;

use crate::acceleration::{Phase, Status};
use crate::upstream::UpstreamHealth;

use super::{DatasetState, DatasetStatus, Engine};

impl DatasetStatus {
    /// The state that is told of it. What is kept here may be answered although its refresh fails: then the
    /// refresh's state is the one to watch.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (&self.acceleration, &self.state) {
            (Some(kept), _) => kept.phase,
            (None, DatasetState::Initializing) => Phase::Initializing,
            (None, DatasetState::Ready) => Phase::Ready,
            (None, DatasetState::Error { .. }) => Phase::Error,
        }
    }
}

/// What queries, accelerated data and cached results take together, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub used_bytes: usize,
    /// None where there is none.
    pub limit_bytes: Option<usize>,
}

impl Engine {
    /// How each upstream is. Asks nobody.
    #[must_use]
    pub fn upstreams(&self) -> Vec<UpstreamHealth> {
        self.federation.upstream_health()
    }

    /// What the pool has given out.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        let pool = self.federation.memory_pool();
        let limit_bytes = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        };
        MemoryUse { used_bytes: pool.reserved(), limit_bytes }
    }

    /// Writes the gauges of every dataset and view as they are now.
    pub fn measure(&self) {
        metrics::gauge!("query_memory_reserved_bytes").set(self.federation.memory_pool().reserved() as f64);
        let datasets = self.datasets();
        count(&datasets);
        for dataset in datasets {
            let name = dataset.name.to_string();
            let phase = number(dataset.phase());
            if dataset.is_view {
                metrics::gauge!("view_load_state", "view" => name.clone()).set(phase);
                metrics::counter!("view_load_errors", "view" => name).increment(0);
                continue;
            }
            metrics::gauge!("dataset_load_state", "dataset" => name.clone()).set(phase);
            metrics::counter!("dataset_load_errors", "dataset" => name.clone()).increment(0);
            let away = away_since(&dataset.state).map_or(0.0, milliseconds);
            metrics::gauge!("dataset_unavailable_time_ms", "dataset" => name.clone()).set(away);
            for (gauge, value) in dataset.acceleration.iter().flat_map(figures) {
                metrics::gauge!(gauge, "dataset" => name.clone()).set(value);
            }
        }
    }
}

/// Datasets by what keeps their rows: the upstream alone, memory, or files.
fn count(datasets: &[DatasetStatus]) {
    let datasets = || datasets.iter().filter(|dataset| !dataset.is_view);
    let kept = datasets().filter(|dataset| dataset.acceleration.is_some()).count();
    for (engine, count) in [("arrow", kept), ("None", datasets().count() - kept)] {
        metrics::gauge!("dataset_active_count", "engine" => engine).set(count as f64);
    }
}

fn away_since(state: &DatasetState) -> Option<SystemTime> {
    match state {
        DatasetState::Error { since, .. } => Some(*since),
        DatasetState::Initializing | DatasetState::Ready => None,
    }
}

fn number(phase: Phase) -> f64 {
    match phase {
        Phase::Initializing => 0.0,
        Phase::Ready => 1.0,
        Phase::Disabled => 2.0,
        Phase::Error => 3.0,
        Phase::Refreshing => 4.0,
        Phase::ShuttingDown => 5.0,
    }
}

/// The gauges of what is kept of a dataset; those of a time only once there is one.
fn figures(kept: &Status) -> Vec<(&'static str, f64)> {
    let mut figures = vec![
        ("dataset_acceleration_size_bytes", kept.bytes as f64),
        ("dataset_acceleration_rows", kept.rows as f64),
    ];
    let before = kept.watermark_before.map(milliseconds);
    let after = kept.watermark.map(milliseconds);
    figures
        .extend(kept.last_refresh.map(|at| ("dataset_acceleration_last_refresh_time_ms", milliseconds(at))));
    let took = kept.last_refresh_took.map(|took| took.as_secs_f64() * 1e3);
    figures.extend(took.map(|took| ("refresh_last_duration_ms", took)));
    figures.extend(before.map(|at| ("dataset_acceleration_max_timestamp_before_refresh_ms", at)));
    figures.extend(after.map(|at| ("dataset_acceleration_max_timestamp_after_refresh_ms", at)));
    // How far the last refresh went, not how old the rows are: that is `ingestion_lag`.
    let lag = before.zip(after).map(|(before, after)| after - before);
    figures.extend(lag.map(|lag| ("dataset_acceleration_refresh_lag_ms", lag)));
    figures.extend(
        kept.stream
            .iter()
            .map(|stream| ("append_stream_connected", f64::from(u8::from(stream.is_connected)))),
    );
    figures.extend(kept.lag().map(|lag| ("dataset_acceleration_ingestion_lag_ms", lag.as_secs_f64() * 1e3)));
    figures
}

/// Since the epoch; before it, below zero.
fn milliseconds(moment: SystemTime) -> f64 {
    let after = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH).ok();
    let ms = |distance: Duration| distance.as_secs_f64() * 1e3;
    after(moment)
        .map_or_else(|| -SystemTime::UNIX_EPOCH.duration_since(moment).map(ms).unwrap_or_default(), ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_time_are_told_once_there_is_one() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut kept = Status { rows: 3, bytes: 70, ..Status::new(SystemTime::UNIX_EPOCH) };
        let names = |kept: &Status| figures(kept).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&kept), ["dataset_acceleration_size_bytes", "dataset_acceleration_rows"]);
        kept.last_refresh = at(9);
        (kept.watermark_before, kept.watermark) = (at(5), at(7));
        let all = figures(&kept);
        let of = |wanted: &str| all.iter().find(|(name, _)| name.ends_with(wanted)).map(|(_, value)| *value);
        assert_eq!(of("_last_refresh_time_ms"), Some(9_000.0));
        assert_eq!(of("_max_timestamp_before_refresh_ms"), Some(5_000.0));
        assert_eq!(of("_max_timestamp_after_refresh_ms"), Some(7_000.0));
        assert_eq!(of("_refresh_lag_ms"), Some(2_000.0));
        assert!(of("_ingestion_lag_ms") > Some(1e9));
        assert_eq!(milliseconds(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), -1_000.0);
    }
}
