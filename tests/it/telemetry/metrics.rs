//! The metrics address and `runtime.metrics`: names, words, promtool's opinion, and that the numbers move.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::{items, scrape};
use crate::clients::tools::required;
use crate::support::client::Client;
use crate::support::sidecar::{Sidecar, repository_file};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const KEY: &str = "an-upstream-key";

/// What promtool holds against names that the public runtime and the deployment guide give: dashboards know them so.
const PROMISED: [&str; 5] = [
    "non-histogram and non-summary metrics should not have \"_count\" suffix",
    "counter metrics should have \"_total\" suffix",
    "non-counter metrics should not have \"_total\" suffix",
    "use base unit \"seconds\" instead of \"milliseconds\"",
    "metric names should not contain abbreviated units",
];

/// Metrics that need what this test has not: a second front end, a stream, spilling, a collector.
const NOT_HERE: [&str; 6] = [
    "append_stream_",
    "flight_do_put_",
    "view_load_errors",
    "upstream_errors",
    "upstream_retries",
    "upstream_reconnects",
];

#[test]
fn the_reference_is_what_the_code_says() {
    let (path, made) = (repository_file("docs/metrics.md"), sidewing::telemetry::reference());
    if std::env::var_os("SIDEWING_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/metrics.md is not what the catalogue says: SIDEWING_BLESS=1 cargo test --test it telemetry"
    );
}

/// All samples of a scrape, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// The names of the reference.
fn promised() -> BTreeSet<String> {
    let reference = sidewing::telemetry::reference();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
    reference.lines().filter_map(name).collect()
}

async fn upstream() -> Upstream {
    Upstream::builder().table("items", items()).table("kept", items()).api_key(KEY).start().await
}

async fn sidecar(upstream: &Upstream) -> Sidecar {
    let keyed = |name: &str| Dataset::of(name, upstream).param("spiceai_api_key", KEY);
    let kept = keyed("kept").accelerated("refresh_mode: full");
    let yaml = spicepod(&[keyed("items"), kept], "views:\n  - {name: v, sql: SELECT id FROM items}\n");
    let sidecar = Sidecar::builder().spicepod(&yaml).start().await;
    sidecar.wait_ready().await;
    sidecar
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_reference_exists_and_promtool_finds_no_fault() {
    let upstream = upstream().await;
    let sidecar = sidecar(&upstream).await;
    let begin = samples(&scrape(&sidecar).await);
    for (name, value) in [
        ("query_executions{protocol=\"http\"}", 0.0),
        ("query_failures{protocol=\"flightsql\",err_code=\"SyntaxError\"}", 0.0),
        ("query_failures_total{protocol=\"flightsql\",err_code=\"SyntaxError\"}", 0.0),
        ("query_processed_rows", 0.0),
        ("refresh_errors_total{dataset=\"kept\"}", 0.0),
        ("dataset_acceleration_rows{dataset=\"kept\"}", 10.0),
        ("dataset_active_count{engine=\"arrow\"}", 1.0),
        ("dataset_active_count{engine=\"None\"}", 1.0),
        ("runtime_http_server_started", 1.0),
    ] {
        assert_eq!(begin.get(name), Some(&value), "{name}");
    }
    work(&sidecar).await;
    let text = scrape(&sidecar).await;
    let after = samples(&text);
    let moved = |name: &str| {
        let value = |samples: &BTreeMap<String, f64>| samples.get(name).copied().unwrap_or_default();
        value(&after) - value(&begin)
    };
    for (name, least) in [
        ("query_executions{protocol=\"http\"}", 4.0),
        ("query_executions{protocol=\"flight\"}", 1.0),
        ("query_executions{protocol=\"flightsql\"}", 1.0),
        ("query_failures{protocol=\"http\",err_code=\"SyntaxError\"}", 1.0),
        ("query_failures_total{protocol=\"http\",err_code=\"QueryPlanningError\"}", 1.0),
        ("query_duration_ms_count{protocol=\"http\"}", 4.0),
        ("query_duration_ms_bucket{protocol=\"http\",le=\"+Inf\"}", 4.0),
        ("query_execution_duration_ms_count{protocol=\"flight\"}", 1.0),
        ("query_processed_rows", 20.0),
        ("query_processed_bytes", 100.0),
        ("query_returned_rows{protocol=\"http\"}", 10.0),
        ("query_returned_bytes{protocol=\"flight\"}", 80.0),
        ("query_forwarded", 2.0),
        ("http_requests{method=\"POST\",path=\"/v1/sql\",status=\"200\"}", 2.0),
        ("http_requests{method=\"GET\",path=\"other\",status=\"404\"}", 1.0),
        ("http_requests_duration_ms_count{method=\"POST\",path=\"/v1/sql\"}", 4.0),
        ("flight_requests{method=\"DoGet\",command=\"TicketStatementQuery\"}", 1.0),
        ("flight_requests{method=\"GetFlightInfo\",command=\"CommandStatementQuery\"}", 1.0),
        ("flight_request_duration_ms_count{method=\"DoGet\",command=\"TicketStatementQuery\"}", 1.0),
        ("results_cache_hit_ratio", 0.1),
    ] {
        assert!(moved(name) >= least, "{name} moved by {}\n{text}", moved(name));
    }
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in promised() {
        let is_here =
            families.contains(name.as_str()) || NOT_HERE.iter().any(|other| name.starts_with(other));
        let is_of_tls = name.starts_with("tls_");
        let needs_time = name.contains("_timestamp_")
            || name.ends_with("_lag_ms")
            || name == "flight_do_exchange_data_updates_sent";
        assert!(is_here || is_of_tls || needs_time, "{name} is not in\n{text}");
    }
    check_with_promtool(&text);
}

/// Some of everything.
async fn work(sidecar: &Sidecar) {
    sidecar.sql("SELECT * FROM items").await;
    for _ in 0..2 {
        sidecar.sql("SELECT count(*) FROM kept WHERE id > 3").await;
    }
    for (wrong, status) in [("SELEC 1", 400), ("SELECT nothing FROM items", 400)] {
        assert_eq!(sidecar.sql_as(wrong, "application/json").await.status, status, "{wrong}");
    }
    assert_eq!(sidecar.http("/no/such/path").await.status, 404);
    let mut client: Client = sidecar.flight_client().await;
    client.query("SELECT id FROM items").await.unwrap();
    client.flight_sql("SELECT name FROM items").await.unwrap();
}

/// Debian's `prometheus` has it.
fn check_with_promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Some(mut child) = required("promtool", child.map_err(|error| error.to_string())) else { return };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let faults: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !PROMISED.iter().any(|promised| line.contains(promised)))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_the_same_numbers() {
    let upstream = upstream().await;
    let sidecar = sidecar(&upstream).await;
    let sql = "SELECT name, unit, data_number['double_value'] AS value FROM runtime.metrics \
               WHERE name = 'dataset_acceleration_rows' AND attributes[1]['str'] = 'kept'";
    for sql in [sql.to_owned(), sql.replace("runtime.metrics", "spice.runtime.metrics")] {
        let expected = serde_json::json!([{"name": "dataset_acceleration_rows", "unit": "", "value": 10.0}]);
        assert_eq!(sidecar.sql(&sql).await, expected);
    }
    // A join of both worlds: the upstream is only asked for what is its own.
    upstream.clear();
    let joined = "SELECT count(*) AS n FROM items i JOIN runtime.metrics m ON m.name = 'query_waiting_count' WHERE i.id < 3";
    assert_eq!(sidecar.sql(joined).await, serde_json::json!([{"n": 3}]));
    assert!(upstream.statements().iter().all(|sql| !sql.contains("runtime")), "{:?}", upstream.statements());
}
