//! Every metric, once: name, kind, unit, labels, words. From here come `HELP`, `UNIT`, buckets, what is announced at zero
//! when the process starts, and `docs/metrics.md`.
//!
//! Names are the public runtime's where it has the metric, so that its dashboards and alerts work; what is sidewing's own
//! is named by the same habits.

use super::buckets::Counted;
use super::registry::Number;

/// Durations from a cached answer to a load of minutes.
const DURATION_MS: &[f64] = &[
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0,
    60_000.0, 300_000.0,
];
/// Of loads, which take longer.
const LOAD_MS: &[f64] = &[
    10.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    900_000.0,
    3_600_000.0,
];

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Bytes,
    Milliseconds,
    Seconds,
}

/// A label, and all values that it can have where they are known beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Label {
    /// Known when the spicepod is: a dataset, an upstream, a route.
    Open(&'static str),
    Of(&'static str, &'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [Label],
    pub help: &'static str,
    /// Of a histogram.
    pub bounds: &'static [f64],
}

const PROTOCOL: Label = Label::Of("protocol", &["http", "flight", "flightsql", "mcp", "internal"]);
const ERR_CODE: Label = Label::Of(
    "err_code",
    &["SyntaxError", "QueryPlanningError", "QueryExecutionError", "InternalError", "Cancelled"],
);
const BY_PROTOCOL: &[Label] = &[PROTOCOL];
const DATASET: &[Label] = &[Label::Open("dataset")];
const VIEW: &[Label] = &[Label::Open("view")];
const ENDPOINT: &[Label] = &[Label::Open("endpoint")];
const CALL: &[Label] = &[Label::Open("endpoint"), Label::Open("method")];
const FAILED_CALL: &[Label] = &[Label::Open("endpoint"), Label::Open("method"), Label::Open("code")];
const STORE: &[Label] = &[Label::Open("store")];
const SIGNAL: &[Label] = &[Label::Of("signal", &["traces", "metrics"])];

const fn metric(
    kind: Kind,
    name: &'static str,
    unit: Unit,
    labels: &'static [Label],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help, bounds: &[] }
}

const fn counter(name: &'static str, unit: Unit, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Kind::Counter, name, unit, labels, help)
}

const fn gauge(name: &'static str, unit: Unit, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Kind::Gauge, name, unit, labels, help)
}

const fn duration(
    name: &'static str,
    labels: &'static [Label],
    bounds: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Milliseconds, labels, help, bounds }
}

/// Second spellings, each with the name whose numbers it has: those that the deployment guide promises.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("query_failures_total", "query_failures"),
    ("refresh_errors_total", "dataset_acceleration_refresh_errors"),
];

/// Sections of [`METRICS`] for people, each with the first name of it.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("Queries", "query_active_count"),
    ("Front ends", "http_requests"),
    ("Datasets and views", "dataset_active_count"),
    ("Accelerated datasets", "dataset_acceleration_size_bytes"),
    ("Append streams", "append_stream_connected"),
    ("Results cache", "results_cache_requests"),
    ("Upstreams", "upstream_requests"),
    ("The process", "sidewing_build_info"),
];

pub(super) const METRICS: &[Metric] = &[
    gauge("query_active_count", Unit::None, BY_PROTOCOL, "Statements that run."),
    gauge("query_waiting_count", Unit::None, &[], "Statements that wait for their turn."),
    counter(
        "query_rejections",
        Unit::None,
        &[Label::Of("reason", &["queue_full", "queue_timeout"])],
        "Statements that had no turn: the queue was full, or they waited too long.",
    ),
    counter("query_executions", Unit::None, BY_PROTOCOL, "Statements that came, cached ones included."),
    counter(
        "query_failures",
        Unit::None,
        &[PROTOCOL, ERR_CODE],
        "Statements that failed, before or after their first rows.",
    ),
    duration(
        "query_duration_ms",
        BY_PROTOCOL,
        DURATION_MS,
        "From a statement's coming until its last row was taken, or it failed.",
    ),
    duration(
        "query_execution_duration_ms",
        BY_PROTOCOL,
        DURATION_MS,
        "The same from the moment when it was planned and begun; not of cached answers.",
    ),
    counter("query_processed_rows", Unit::None, &[], "Rows that statements read from tables and upstreams."),
    counter(
        "query_processed_bytes",
        Unit::Bytes,
        &[],
        "Those rows: as they came from upstreams, or as they are in memory.",
    ),
    counter("query_returned_rows", Unit::None, BY_PROTOCOL, "Rows that clients took."),
    counter("query_returned_bytes", Unit::Bytes, BY_PROTOCOL, "Those rows, as they were in memory."),
    counter("query_produced_spills", Unit::None, &[], "Files that statements wrote for want of memory."),
    counter("query_spilled_rows", Unit::None, &[], "Rows in those files."),
    counter("query_spilled_bytes", Unit::Bytes, &[], "Bytes in those files."),
    counter("query_forwarded", Unit::None, &[], "Statements that were sent whole to one upstream."),
    gauge(
        "query_memory_limit_bytes",
        Unit::Bytes,
        &[],
        "What queries and accelerated data may take together.",
    ),
    gauge("query_memory_reserved_bytes", Unit::Bytes, &[], "What they take now."),
    counter(
        "http_requests",
        Unit::None,
        &[Label::Open("method"), Label::Open("path"), Label::Open("status")],
        "HTTP requests that were answered, by route.",
    ),
    duration(
        "http_requests_duration_ms",
        &[Label::Open("method"), Label::Open("path")],
        DURATION_MS,
        "Until the answer began.",
    ),
    counter(
        "flight_requests",
        Unit::None,
        &[Label::Open("method"), Label::Open("command")],
        "Flight calls, by what was asked for.",
    ),
    duration(
        "flight_request_duration_ms",
        &[Label::Open("method"), Label::Open("command")],
        DURATION_MS,
        "Until the answer began.",
    ),
    counter("flight_do_put_rows", Unit::None, DATASET, "Rows that clients wrote and that are stored."),
    counter("flight_do_put_bytes", Unit::Bytes, DATASET, "The same rows, as they were in memory."),
    counter(
        "flight_do_exchange_data_updates_sent",
        Unit::None,
        DATASET,
        "Messages with rows that were sent to subscribers.",
    ),
    counter("runtime_http_server_started", Unit::None, &[], "1 once the HTTP front end listens."),
    counter("runtime_flight_server_started", Unit::None, &[], "1 once the Flight front end listens."),
    gauge(
        "dataset_active_count",
        Unit::None,
        &[Label::Open("engine")],
        "Datasets, by what keeps their rows.",
    ),
    gauge(
        "dataset_load_state",
        Unit::None,
        DATASET,
        "0 Initializing, 1 Ready, 2 Disabled, 3 Error, 4 Refreshing, 5 ShuttingDown; what is kept here is answered in all \
         of them once it was loaded.",
    ),
    counter("dataset_load_errors", Unit::None, DATASET, "Times that a dataset could not be loaded."),
    gauge(
        "dataset_unavailable_time_ms",
        Unit::Milliseconds,
        DATASET,
        "Since when a dataset cannot be asked, since the epoch; 0 while it can.",
    ),
    gauge("view_load_state", Unit::None, VIEW, "0 Initializing, 1 Ready, 3 Error."),
    counter("view_load_errors", Unit::None, VIEW, "Times that a view could not be planned."),
    gauge("dataset_acceleration_size_bytes", Unit::Bytes, DATASET, "Memory of the rows that are kept here."),
    gauge("dataset_acceleration_rows", Unit::None, DATASET, "Rows that are kept here."),
    counter("dataset_acceleration_refresh_errors", Unit::None, DATASET, "Refreshes that failed."),
    duration(
        "dataset_acceleration_refresh_duration_ms",
        &[Label::Open("dataset"), Label::Open("mode")],
        LOAD_MS,
        "How long refreshes took that succeeded.",
    ),
    gauge(
        "refresh_last_duration_ms",
        Unit::Milliseconds,
        DATASET,
        "How long the last refresh took that succeeded.",
    ),
    gauge(
        "dataset_acceleration_last_refresh_time_ms",
        Unit::Milliseconds,
        DATASET,
        "End of the last refresh, since the epoch.",
    ),
    gauge(
        "dataset_acceleration_max_timestamp_before_refresh_ms",
        Unit::Milliseconds,
        DATASET,
        "Newest row as the last refresh began, since the epoch.",
    ),
    gauge(
        "dataset_acceleration_max_timestamp_after_refresh_ms",
        Unit::Milliseconds,
        DATASET,
        "Newest row after the last refresh, since the epoch.",
    ),
    gauge(
        "dataset_acceleration_refresh_lag_ms",
        Unit::Milliseconds,
        DATASET,
        "How much newer the newest row became by the last refresh.",
    ),
    gauge(
        "dataset_acceleration_ingestion_lag_ms",
        Unit::Milliseconds,
        DATASET,
        "How old the newest row is now; of an append stream, how long ago it was last whole.",
    ),
    gauge(
        "append_stream_connected",
        Unit::None,
        DATASET,
        "1 while the dataset's append stream is connected.",
    ),
    counter("append_stream_reconnects", Unit::None, DATASET, "Connections after the first."),
    counter("append_stream_received_rows", Unit::None, DATASET, "Rows that came by the stream."),
    counter(
        "append_stream_received_bytes",
        Unit::Bytes,
        DATASET,
        "What came by the stream, headers and metadata with it.",
    ),
    counter("append_stream_repeated_rows", Unit::None, DATASET, "Rows that came again and were left out."),
    counter(
        "append_stream_repaired_rows",
        Unit::None,
        DATASET,
        "Rows that the stream had lost, brought by a query.",
    ),
    counter(
        "append_stream_ignored_rows",
        Unit::None,
        DATASET,
        "Updates and deletes, which an append stream does not propagate.",
    ),
    gauge("append_stream_subscribers", Unit::None, DATASET, "Clients that follow the dataset by DoExchange."),
    counter("append_stream_sent_rows", Unit::None, DATASET, "Rows that were sent to them."),
    counter(
        "append_stream_sent_bytes",
        Unit::Bytes,
        DATASET,
        "Flight data that was sent to them, without gRPC's framing.",
    ),
    counter("append_stream_resumes", Unit::None, DATASET, "Subscriptions that went on from what was held."),
    counter(
        "append_stream_snapshots",
        Unit::None,
        DATASET,
        "Times that a subscriber was sent the dataset from its first row on.",
    ),
    counter(
        "append_stream_data_loss",
        Unit::None,
        DATASET,
        "Subscribers that were cut off, too slow for stream_retention or stream_retention_bytes.",
    ),
    counter(
        "results_cache_requests",
        Unit::None,
        &[],
        "Statements that were looked for in the results cache.",
    ),
    counter("results_cache_hits", Unit::None, &[], "Statements whose result was there, stale ones included."),
    counter("results_cache_misses", Unit::None, &[], "Statements whose result was not there."),
    gauge("results_cache_hit_ratio", Unit::None, &[], "Hits of all that was looked for; 0 before the first."),
    counter(
        "results_cache_evictions",
        Unit::None,
        &[Label::Of("reason", &["size", "expired", "invalidated"])],
        "Results that were dropped: for want of room, of age, or because they are not exact any more.",
    ),
    counter(
        "results_cache_stale_rejections",
        Unit::None,
        &[],
        "Results that were outdated when they were complete, and were not kept.",
    ),
    counter(
        "results_cache_stale_swr_count",
        Unit::None,
        &[],
        "Stale results that were answered while they were to be fetched anew.",
    ),
    counter(
        "results_cache_swr_background_query_count",
        Unit::None,
        &[],
        "Runs that fetched a stale result anew.",
    ),
    gauge("results_cache_items_count", Unit::None, &[], "Results in the cache."),
    gauge("results_cache_size_bytes", Unit::Bytes, &[], "What they take."),
    gauge("results_cache_max_size_bytes", Unit::Bytes, &[], "What they may take; 0 where there is no cache."),
    counter("upstream_requests", Unit::None, CALL, "Calls to an upstream, retries not counted."),
    counter(
        "upstream_errors",
        Unit::None,
        FAILED_CALL,
        "Calls that failed for good before their first rows.",
    ),
    counter("upstream_retries", Unit::None, CALL, "Attempts after the first."),
    counter("upstream_handshakes", Unit::None, ENDPOINT, "Handshakes with a key."),
    counter("upstream_reconnects", Unit::None, ENDPOINT, "Connections after the first."),
    counter(
        "upstream_received_bytes",
        Unit::Bytes,
        ENDPOINT,
        "Flight data that arrived from an upstream, decompressed; without framing, schemas of plans and errors.",
    ),
    gauge("upstream_in_flight", Unit::None, ENDPOINT, "Calls to an upstream under way, and open streams."),
    gauge("upstream_circuit_state", Unit::None, ENDPOINT, "0 closed, 1 half-open: a call finds out, 2 open."),
    counter(
        "upstream_circuit_opened",
        Unit::None,
        ENDPOINT,
        "Times that the circuit opened: failures came in a row, or half of the calls failed.",
    ),
    gauge("upstream_addresses", Unit::None, ENDPOINT, "Addresses behind the upstream's name."),
    duration(
        "upstream_connect_duration_ms",
        ENDPOINT,
        DURATION_MS,
        "TCP, TLS and HTTP/2, of connections that were made.",
    ),
    duration("upstream_handshake_duration_ms", ENDPOINT, DURATION_MS, "Handshakes that succeeded."),
    gauge(
        "sidewing_build_info",
        Unit::None,
        &[Label::Open("version")],
        "Always 1; the label tells the version.",
    ),
    gauge(
        "tls_certificate_not_after_seconds",
        Unit::Seconds,
        &[Label::Open("section")],
        "When the listeners' certificate of a section of the spicepod ends, since the epoch.",
    ),
    gauge(
        "secrets_store_load_duration_ms",
        Unit::Milliseconds,
        STORE,
        "How long the last reading of a secret store took.",
    ),
    counter("secrets_store_errors", Unit::None, STORE, "Readings of a secret store that failed."),
    counter(
        "config_reloads",
        Unit::None,
        &[Label::Of("outcome", &["taken", "rejected"])],
        "Changes of the configuration that were looked at: `rejected` ones changed nothing.",
    ),
    gauge("runtime_stalled_ms", Unit::Milliseconds, &[], "How long no task has got on; 0 where tasks run."),
    counter(
        "task_history_dropped",
        Unit::None,
        &[],
        "Tasks that left the history before retention_period, for want of room.",
    ),
    counter("otel_export_items", Unit::None, SIGNAL, "Spans and series that a collector took."),
    counter(
        "otel_export_dropped",
        Unit::None,
        SIGNAL,
        "Spans and series that no collector took: it was away, refused them, or was too slow.",
    ),
    counter(
        "log_lines_repeated",
        Unit::None,
        &[],
        "Warnings and errors that were counted instead of written.",
    ),
    counter(
        "metrics_series_refused",
        Unit::None,
        &[],
        "Uses of series that are not counted, because there were too many already.",
    ),
];

impl Kind {
    pub(super) fn of(number: &Number) -> Self {
        match number {
            Number::Counter(_) => Self::Counter,
            Number::Gauge(_) => Self::Gauge,
            Number::Histogram(Counted { .. }) => Self::Histogram,
        }
    }

    pub(super) fn holds(self, number: &Number) -> bool {
        Self::of(number) == self
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Unit {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => "bytes",
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }
}

pub(super) fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// The buckets of a histogram; those of durations where the catalogue does not know it.
pub(super) fn bounds(name: &str) -> &'static [f64] {
    find(name).map(|metric| metric.bounds).filter(|bounds| !bounds.is_empty()).unwrap_or(DURATION_MS)
}

/// Lets everything be there from the start whose labels are known by then, so that the first increase is seen as one.
pub(super) fn announce() {
    // The registry tells of itself by itself.
    for metric in METRICS.iter().filter(|metric| metric.name != "metrics_series_refused") {
        for labels in combinations(metric.labels) {
            match metric.kind {
                Kind::Counter => metrics::counter!(metric.name, &labels).increment(0),
                Kind::Gauge => metrics::gauge!(metric.name, &labels).set(0.0),
                Kind::Histogram => drop(metrics::histogram!(metric.name, &labels)),
            }
        }
    }
    metrics::gauge!("sidewing_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// All values of all labels, each with each; none where one of them is open.
fn combinations(labels: &[Label]) -> Vec<Vec<(&'static str, &'static str)>> {
    labels.iter().fold(vec![Vec::new()], |all, label| match label {
        Label::Open(_) => Vec::new(),
        Label::Of(name, values) => all
            .iter()
            .flat_map(|one| values.iter().map(|value| [one.clone(), vec![(*name, *value)]].concat()))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_described_once_and_fully() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let Metric { name, kind, unit, help, bounds, .. } = metric;
            assert!(names.insert(*name), "{name} stands twice");
            assert!(help.ends_with('.'), "{name}: {help}");
            assert_eq!(*kind == Kind::Histogram, !bounds.is_empty(), "{name}");
            assert!(bounds.is_sorted(), "{name}");
            let word = unit.word();
            let suffix = if word == "milliseconds" { "ms" } else { word };
            assert!(name.ends_with(suffix), "{name} has the unit {word}");
            assert!(
                !word.is_empty() || !["_ms", "_bytes", "_seconds"].iter().any(|unit| name.ends_with(unit)),
                "{name}"
            );
        }
        for (also, of) in ALIASES {
            assert!(names.contains(of) && !names.contains(also), "{also}");
        }
        for (_, first) in SECTIONS {
            assert!(names.contains(first), "{first}");
        }
    }

    #[test]
    fn labels_are_combined_where_all_are_known() {
        let (a, b) = (Label::Of("a", &["1", "2"]), Label::Of("b", &["x", "y", "z"]));
        assert_eq!(combinations(&[]), [Vec::new()]);
        assert_eq!(combinations(&[a, b]).len(), 6);
        assert!(combinations(&[a, Label::Open("dataset")]).is_empty());
    }

    #[test]
    fn no_name_of_the_deployment_guide_is_missing() {
        let guide = [
            "query_duration_ms",
            "query_processed_rows",
            "query_failures_total",
            "refresh_last_duration_ms",
            "refresh_errors_total",
        ];
        for name in guide {
            let is_alias = ALIASES.iter().any(|(also, _)| *also == name);
            assert!(is_alias || find(name).is_some(), "{name}");
        }
    }
}
