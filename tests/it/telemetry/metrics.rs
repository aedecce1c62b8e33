//! The metrics address and `runtime.metrics`: names, words, promtool's opinion, and that the numbers move.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow_flight::FlightDescriptor;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::TryStreamExt;

use super::items;
use crate::clients::tools::required;
use crate::support::client::{Client, batch};
use crate::support::moved;
use crate::support::pki::Pki;
use crate::support::sidecar::{Sidecar, repository_file};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const KEY: &str = "an-upstream-key";

/// What promtool holds against names that the public runtime and the deployment guide give: dashboards know them so.
const PROMISED: [&str; 5] = [
    "non-histogram and non-summary metrics should not have \"_count\" suffix",
    "counter metrics should have \"_total\" suffix",
    "non-counter metrics should not have \"_total\" suffix",
    "use base unit \"seconds\" instead of \"milliseconds\"",
    "metric names should not contain abbreviated units",
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

/// All samples of a page, by name and labels.
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

/// Moved by unit tests: of `telemetry::metrics::registry`, `app::pulse` and `telemetry::trace::ring`.
const MOVED_ELSEWHERE: [&str; 3] = ["metrics_series_refused", "runtime_stalled_ms", "task_history_dropped"];

#[test]
#[ignore = "looks at what the other tests left: .ci/run asks for it after them"]
fn every_metric_has_moved() {
    let seen = std::fs::read_to_string(moved::file()).expect("the tests have run");
    let seen: BTreeSet<&str> = seen.lines().collect();
    let has_moved = |name: &str| {
        MOVED_ELSEWHERE.contains(&name)
            || seen.contains(name)
            || seen.contains(format!("{name}_count").as_str())
    };
    let still: Vec<String> = promised().into_iter().filter(|name| !has_moved(name)).collect();
    assert!(still.is_empty(), "no test moves {still:?}");
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
    let begin = samples(&sidecar.metrics().await);
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
    let text = sidecar.metrics().await;
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
    let [core, edge] = chain().await;
    let others = [timed().await, core, edge, encrypted().await, troubled().await];
    let all = [text.as_str()].into_iter().chain(others.iter().map(String::as_str));
    let families: BTreeSet<&str> = all.clone().flat_map(families).collect();
    for name in promised() {
        assert!(families.contains(name.as_str()), "{name} exists nowhere");
    }
    all.for_each(check_with_promtool);
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

fn families(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Waits until a metric of `sidecar` is at least so much; all of them then.
async fn reached(sidecar: &Sidecar, name: &str, least: f64) -> String {
    let value = async || samples(&sidecar.metrics().await).get(name).copied().unwrap_or_default();
    sidecar.wait_until(&format!("{name} is {least}"), async || value().await >= least).await;
    sidecar.metrics().await
}

/// A dataset with a time column: how new its rows are.
async fn timed() -> String {
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]));
    let upstream = Upstream::builder().table("timed", batch([("at", at)])).start().await;
    let timed = Dataset::of("timed", &upstream)
        .field("time_column: at")
        .accelerated("refresh_mode: append, refresh_check_interval: 100ms");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[timed], "")).start().await;
    sidecar.wait_ready().await;
    let name = "dataset_acceleration_max_timestamp_before_refresh_ms{dataset=\"timed\"}";
    let text = reached(&sidecar, name, 1_700_000_000_000.0).await;
    let after = samples(&text);
    assert!(after["dataset_acceleration_ingestion_lag_ms{dataset=\"timed\"}"] > 1e9);
    assert!(after["refresh_last_duration_ms{dataset=\"timed\"}"] > 0.0);
    assert!(
        after["dataset_acceleration_refresh_duration_ms_count{dataset=\"timed\",mode=\"append\"}"] >= 1.0
    );
    text
}

/// Rows that are written to one sidecar and followed by another: what both tell.
async fn chain() -> [String; 2] {
    let upstream = Upstream::builder().table("t", items()).start().await;
    let written =
        Dataset::of("t", &upstream).accelerated("refresh_mode: disabled").field("access: read_write");
    let core = Sidecar::builder().spicepod(&spicepod(&[written], "")).start().await;
    core.wait_ready().await;
    let url = format!("http://{}", core.flight_addr());
    let followed = Dataset::at("t", &url).accelerated("refresh_mode: append");
    let edge = Sidecar::builder().spicepod(&spicepod(&[followed], "")).start().await;
    edge.wait_ready().await;
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let to = FlightDescriptor::new_path(vec!["t".to_owned()]);
    let rows = futures::stream::iter(items().into_iter().map(Ok));
    let messages = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(to)).build(rows);
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let mut client = FlightServiceClient::new(channel);
    let put = client.do_put(futures::stream::iter(messages)).await.unwrap().into_inner();
    let _: Vec<_> = put.try_collect().await.unwrap();
    let there = reached(&edge, "append_stream_received_rows{dataset=\"t\"}", 10.0).await;
    assert_eq!(samples(&there)["append_stream_connected{dataset=\"t\"}"], 1.0);
    let here = reached(&core, "append_stream_sent_rows{dataset=\"t\"}", 10.0).await;
    let told = samples(&here);
    assert_eq!(told["flight_do_put_rows{dataset=\"t\"}"], 10.0);
    assert_eq!(told["append_stream_subscribers{dataset=\"t\"}"], 1.0);
    assert!(told["flight_do_exchange_data_updates_sent{dataset=\"t\"}"] >= 1.0);
    [here, there]
}

/// Listeners with a certificate; the metrics themselves stay plain.
async fn encrypted() -> String {
    let runtime = "runtime:\n  tls: {certificate_file: server.pem, key_file: server.key}\n";
    let identity = Pki::new().server("localhost").identity;
    let sidecar = Sidecar::builder()
        .spicepod(&spicepod(&[], runtime))
        .file("server.pem", &identity.certificate_pem)
        .file("server.key", &identity.key_pem)
        .start()
        .await;
    let text = sidecar.metrics().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(samples(&text)["tls_certificate_not_after_seconds{section=\"runtime.tls\"}"] > now, "{text}");
    text
}

/// An upstream that fails, comes back, and loses its connection.
async fn troubled() -> String {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], "")).start().await;
    sidecar.wait_ready().await;
    upstream.inject(Method::GetFlightInfo, 1, Fault::Http503);
    sidecar.sql("SELECT * FROM items").await;
    for method in [Method::GetFlightInfo, Method::DoGet] {
        upstream.inject(method, usize::MAX, Fault::Http503);
    }
    assert_eq!(sidecar.sql_as("SELECT id FROM items", "application/json").await.status, 503);
    upstream.heal();
    upstream.cut();
    sidecar
        .wait_until("it heals", async || {
            sidecar.sql_as("SELECT id FROM items", "text/csv").await.status == 200
        })
        .await;
    let text = sidecar.metrics().await;
    let (told, endpoint) = (samples(&text), upstream.url());
    for name in ["upstream_retries", "upstream_errors", "upstream_reconnects"] {
        let is_of = |key: &str| key.starts_with(&format!("{name}{{")) && key.contains(&endpoint);
        let has_moved = told.iter().any(|(key, value)| is_of(key) && *value >= 1.0);
        assert!(has_moved, "{name}\n{text}");
    }
    text
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
