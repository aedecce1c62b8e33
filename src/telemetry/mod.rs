//! What happened, told outward: the log on standard error and the metrics registry.
//!
//! Hears every room and calls none. The only place that sets process-wide subscribers.

use std::sync::Arc;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Writes the registry in Prometheus' text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// How much the log tells when `RUST_LOG` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// Errors alone, for a command that stops what others would be warned of.
    Silent,
    /// Warnings and errors, for commands that print their own result.
    Quiet,
    #[default]
    Info,
    Verbose,
    VeryVerbose,
}

impl Verbosity {
    /// Without rmcp's own log, which calls it an error when a client goes away.
    fn directives(self) -> &'static str {
        match self {
            Self::Silent => "error,rmcp=off",
            Self::Quiet => "warn,rmcp=off",
            Self::Info => "warn,rmcp=off,sidewing=info",
            Self::Verbose => "info,rmcp=off,sidewing=debug",
            Self::VeryVerbose => "debug,sidewing=trace",
        }
    }
}

/// Sends the log to standard error; `RUST_LOG` wins over `verbosity`. Later calls change nothing.
pub fn init_log(verbosity: Verbosity) {
    init_log_to(verbosity, std::io::stderr);
}

/// The same by way of `writer`, for who draws on the terminal that standard error is.
pub fn init_log_to<W>(verbosity: Verbosity, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(verbosity.directives()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .finish();
    // A second call in one process (tests, the demo) keeps the first log.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Installs the metrics registry and describes what it holds.
///
/// # Errors
/// A registry that cannot be built.
pub fn init_metrics() -> Result<Render, BuildError> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle: PrometheusHandle = recorder.handle();
    // As above: the first registry of a process stays.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    Ok(Arc::new(move || {
        handle.run_upkeep();
        handle.render()
    }))
}

fn describe() {
    metrics::describe_counter!("query_executions", "Statements that were started.");
    metrics::describe_counter!(
        "query_failures",
        "Statements that failed, before or after their first batch."
    );
    metrics::describe_counter!("query_forwarded", "Statements that were sent whole to one upstream.");
    metrics::describe_gauge!("query_active_count", "Statements that run.");
    metrics::describe_gauge!("query_waiting_count", "Statements that wait for their turn.");
    metrics::describe_counter!(
        "query_rejections",
        "Statements that had no turn: the queue was full, or they waited too long."
    );
    metrics::describe_gauge!(
        "query_memory_limit_bytes",
        metrics::Unit::Bytes,
        "What queries and accelerated data may take together."
    );
    describe_secret_stores();
    describe_datasets();
    describe_append_streams();
    metrics::describe_counter!("flight_do_put_rows", "Rows that clients wrote and that are stored.");
    metrics::describe_counter!(
        "flight_do_put_bytes",
        metrics::Unit::Bytes,
        "The same rows, as they were in memory."
    );
    describe_results_cache();
    describe_upstream();
    metrics::describe_gauge!("sidewing_build_info", "Always 1; the label tells the version.");
    metrics::gauge!("sidewing_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for name in ["query_executions", "query_failures", "query_forwarded"] {
        metrics::counter!(name).absolute(0);
    }
    for name in ["query_active_count", "query_waiting_count"] {
        metrics::gauge!(name).set(0.0);
    }
    for reason in ["queue_full", "queue_timeout"] {
        metrics::counter!("query_rejections", "reason" => reason).absolute(0);
    }
}

fn describe_secret_stores() {
    metrics::describe_counter!("secrets_store_errors", "Readings of a secret store that failed.");
    metrics::describe_gauge!(
        "secrets_store_load_duration_ms",
        metrics::Unit::Milliseconds,
        "How long the last reading of a secret store took."
    );
}

/// Flight client metrics, each for every endpoint.
fn describe_upstream() {
    for (counter, meaning) in [
        ("requests", "Calls to an upstream, without retries."),
        ("errors", "Calls that failed for good, by code."),
        ("retries", "Further attempts at calls that failed."),
        ("reconnects", "Connections to an address after the first."),
        ("handshakes", "Credentials that were exchanged for a token."),
        (
            "circuit_opened",
            "Times that the circuit opened: failures came in a row, or half of the calls failed.",
        ),
    ] {
        metrics::describe_counter!(format!("upstream_{counter}"), meaning);
    }
    metrics::describe_counter!(
        "upstream_received_bytes",
        metrics::Unit::Bytes,
        "Flight data that arrived from an upstream, decompressed; without framing, schemas of plans and errors."
    );
    metrics::describe_gauge!("upstream_in_flight", "Calls to an upstream under way, and open streams.");
    metrics::describe_gauge!("upstream_circuit_state", "0 closed, 1 half-open: a call finds out, 2 open.");
    metrics::describe_gauge!("upstream_addresses", "Addresses behind the upstream's name.");
    metrics::describe_histogram!(
        "upstream_connect_duration_ms",
        metrics::Unit::Milliseconds,
        "TCP, TLS and HTTP/2, of connections that were made."
    );
    metrics::describe_histogram!(
        "upstream_handshake_duration_ms",
        metrics::Unit::Milliseconds,
        "Handshakes that succeeded."
    );
}

fn describe_datasets() {
    const STATES: &str = "0 Initializing, 1 Ready, 2 Disabled, 3 Error, 4 Refreshing, 5 ShuttingDown; what is kept here is answered in all \
         of them once it was loaded.";
    metrics::describe_gauge!("dataset_load_state", STATES);
    metrics::describe_gauge!("view_load_state", "0 Initializing, 1 Ready, 3 Error.");
    metrics::describe_counter!("dataset_acceleration_refresh_errors", "Refreshes that failed.");
    for (gauge, unit, meaning) in [
        ("size_bytes", metrics::Unit::Bytes, "Memory of the rows that are kept here."),
        ("rows", metrics::Unit::Count, "Rows that are kept here."),
        ("last_refresh_time_ms", metrics::Unit::Milliseconds, "End of the last refresh, since the epoch."),
        (
            "max_timestamp_before_refresh_ms",
            metrics::Unit::Milliseconds,
            "Newest row as the last refresh began, since the epoch.",
        ),
        (
            "max_timestamp_after_refresh_ms",
            metrics::Unit::Milliseconds,
            "Newest row after the last refresh, since the epoch.",
        ),
        (
            "refresh_lag_ms",
            metrics::Unit::Milliseconds,
            "How much newer the newest row became by the last refresh.",
        ),
        ("ingestion_lag_ms", metrics::Unit::Milliseconds, "How old the newest row is now."),
    ] {
        metrics::describe_gauge!(format!("dataset_acceleration_{gauge}"), unit, meaning);
    }
}

fn describe_append_streams() {
    metrics::describe_gauge!("append_stream_connected", "1 while the dataset's append stream is connected.");
    for (counter, meaning) in [
        ("reconnects", "Connections after the first."),
        ("received_rows", "Rows that came by the stream."),
        ("repeated_rows", "Rows that came again and were left out."),
        ("repaired_rows", "Rows that the stream had lost, brought by a query."),
        ("ignored_rows", "Updates and deletes, which an append stream does not propagate."),
    ] {
        metrics::describe_counter!(format!("append_stream_{counter}"), meaning);
    }
    metrics::describe_counter!(
        "append_stream_received_bytes",
        metrics::Unit::Bytes,
        "What came by the stream, headers and metadata with it."
    );
    metrics::describe_gauge!("append_stream_subscribers", "Clients that follow the dataset by DoExchange.");
    metrics::describe_counter!("append_stream_sent_rows", "Rows that were sent to them.");
    metrics::describe_counter!(
        "append_stream_sent_bytes",
        metrics::Unit::Bytes,
        "Flight data that was sent to them, without gRPC's framing."
    );
    metrics::describe_counter!("append_stream_resumes", "Subscriptions that went on from what was held.");
    metrics::describe_counter!(
        "append_stream_snapshots",
        "Times that a subscriber was sent the dataset from its first row on."
    );
    metrics::describe_counter!(
        "append_stream_data_loss",
        "Subscribers that were cut off, too slow for stream_retention or stream_retention_bytes."
    );
}

fn describe_results_cache() {
    metrics::describe_counter!(
        "results_cache_requests",
        "Statements that were looked for in the results cache."
    );
    metrics::describe_counter!(
        "results_cache_hits",
        "Statements whose result was there, stale ones included."
    );
    metrics::describe_counter!("results_cache_misses", "Statements whose result was not there.");
    metrics::describe_counter!(
        "results_cache_evictions",
        "Results that were dropped: for want of room, of age, or because they are not exact any more."
    );
    metrics::describe_counter!(
        "results_cache_stale_rejections",
        "Results that were outdated when they were complete, and were not kept."
    );
    metrics::describe_counter!(
        "results_cache_stale_swr_count",
        "Stale results that were answered while they were to be fetched anew."
    );
    metrics::describe_counter!(
        "results_cache_swr_background_query_count",
        "Runs that fetched a stale result anew."
    );
    metrics::describe_gauge!("results_cache_items_count", "Results in the cache.");
    metrics::describe_gauge!("results_cache_size_bytes", metrics::Unit::Bytes, "What they take.");
    metrics::describe_gauge!(
        "results_cache_max_size_bytes",
        metrics::Unit::Bytes,
        "What they may take; 0 where there is no cache."
    );
    for name in [
        "results_cache_requests",
        "results_cache_hits",
        "results_cache_misses",
        "results_cache_stale_rejections",
        "results_cache_stale_swr_count",
        "results_cache_swr_background_query_count",
    ] {
        metrics::counter!(name).absolute(0);
    }
    for reason in ["size", "expired", "invalidated"] {
        metrics::counter!("results_cache_evictions", "reason" => reason).absolute(0);
    }
    for name in ["results_cache_items_count", "results_cache_size_bytes", "results_cache_max_size_bytes"] {
        metrics::gauge!(name).set(0.0);
    }
}
