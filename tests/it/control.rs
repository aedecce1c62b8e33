//! States of datasets and what can be done about them: readiness, progress, `sidewing status` and `refresh`, metrics.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::{Value, json};
use tonic::Status;

use crate::support::client::batch;
use crate::support::port::ClosedPort;
use crate::support::sidecar::{Finished, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

/// Rows enough for two batches.
const ROWS: i64 = 10_000;

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn numbers(rows: i64) -> Vec<RecordBatch> {
    batch([("id", ints(0..rows))])
}

async fn start(datasets: &[Dataset], rest: &str) -> Sidecar {
    Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await
}

/// What `/v1/datasets?status=true` says of the dataset at this place.
async fn status(sidecar: &Sidecar, at: usize) -> Value {
    let answer = sidecar.http("/v1/datasets?status=true").await;
    serde_json::from_str::<Value>(&answer.body).unwrap()[at].clone()
}

/// `sidewing COMMAND ARGS --http` of this sidecar, to its end.
async fn command<const N: usize>(sidecar: &Sidecar, command: &str, args: [&str; N]) -> Finished {
    Sidecar::builder().args(args).args(["--http", sidecar.http_addr()]).finish(command).await
}

/// Words of numbers that differ from run to run: digits before a unit of time or speed become `N`.
fn masked(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let units = ["ms", "s", "min", "MB/s"];
    let is_measured = |at: usize| {
        let unit = words.get(at + 1).map(|unit| unit.trim_end_matches([',', '\n']));
        words[at].starts_with(|first: char| first.is_ascii_digit())
            && unit.is_some_and(|unit| units.contains(&unit))
    };
    let shown = (0..words.len()).map(|at| if is_measured(at) { "N" } else { words[at] });
    shown.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_unreadies_nothing_and_is_told() {
    let mut upstream = Upstream::builder().table("far", numbers(3)).table("near", numbers(3)).start().await;
    let datasets = [Dataset::of("far", &upstream), Dataset::of("near", &upstream).accelerated("")];
    let views = "views:\n  - name: both\n    sql: SELECT far.id FROM far JOIN near ON far.id = near.id\n  \
                 - name: here\n    sql: SELECT id FROM near\n";
    let sidecar = start(&datasets, views).await;
    sidecar.wait_ready().await;
    upstream.stop().await;
    assert_eq!(sidecar.sql_as("select count(*) from far", "application/json").await.status, 503);
    let is_away = async || status(&sidecar, 0).await["status"] == "Error";
    sidecar.wait_until("the upstream's absence is known", is_away).await;
    assert!(status(&sidecar, 0).await["since"].is_string(), "{}", status(&sidecar, 0).await);

    let ready = sidecar.http("/v1/ready").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready"));
    let verbose = async || sidecar.http("/v1/ready?verbose=true").await;
    // Views are looked at a moment after the datasets that they read.
    let is_told = async || verbose().await.body.contains("[+] both ok, away for ");
    sidecar.wait_until("the view is away too", is_told).await;
    let told = verbose().await;
    let port = format!(":{}", upstream.addr().port());
    let lines: Vec<&str> = told.body.lines().collect();
    let [far, near, both, here, verdict] = lines.as_slice() else { panic!("{}", told.body) };
    assert!(far.starts_with("[+] far ok, away for ") && far.contains(&port), "{}", told.body);
    assert!(both.starts_with("[+] both ok, away for ") && both.contains(&port), "{}", told.body);
    assert_eq!([*near, *here, *verdict], ["[+] near ok", "[+] here ok", "ready"]);
    assert_eq!(sidecar.sql("select count(*) as n from here").await, json!([{"n": 3}]));

    upstream.restart().await;
    let is_well = async || verbose().await.body.contains("[+] far ok\n[+] near ok\n[+] both ok\n");
    sidecar.wait_until("the first success heals it", is_well).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_load_tells_how_far_it_is() {
    let mut upstream = Upstream::builder().table("t", numbers(ROWS)).start().await;
    upstream.inject(Method::DoGet, 1, Fault::StallAfter { batches: 1 });
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let rows =
        async || status(&sidecar, 0).await["acceleration"]["progress"]["rows"].as_i64().unwrap_or_default();
    sidecar.wait_until("rows have come", async || rows().await > 0).await;
    assert!(rows().await < ROWS, "one batch of two came");
    let told = status(&sidecar, 0).await;
    assert_eq!((&told["status"], &told["acceleration"]["rows"]), (&json!("Refreshing"), &json!(0)), "{told}");
    let progress = &told["acceleration"]["progress"];
    assert!(progress["bytes"].as_i64() >= Some(8 * rows().await), "{told}");
    assert!(progress["elapsed_seconds"].as_f64() > Some(0.0), "{told}");
    assert_eq!(sidecar.http("/v1/ready").await.body, "not ready\n[-] t is being loaded\n");
    let page = command(&sidecar, "status", []).await;
    assert_eq!(page.code, Some(1), "{page:?}");
    assert!(page.stdout.contains("t is being loaded: 8,192 rows, "), "{}", page.stdout);
    assert!(page.stdout.ends_with("not ready\n[-] t is being loaded\n"), "{}", page.stdout);

    let on_screen = async || sidecar.stdout().contains("  t  loading     8,192 rows, ");
    sidecar.wait_until("the start screen tells it", on_screen).await;
    let on_stderr = async || sidecar.stderr().contains("  t  8,192 rows, ");
    sidecar.wait_until("and goes on to", on_stderr).await;
    // What stalled is never sent: only a new connection helps.
    upstream.restart().await;
    sidecar.wait_ready().await;
    let is_over = async || status(&sidecar, 0).await["acceleration"]["progress"].is_null();
    sidecar.wait_until("nothing runs any more", is_over).await;
    assert_eq!(status(&sidecar, 0).await["acceleration"]["rows"], ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_screen_says_what_is_held() {
    let upstream = Upstream::builder().table("here", numbers(ROWS)).table("far", numbers(1)).start().await;
    let datasets = [Dataset::of("here", &upstream).accelerated(""), Dataset::of("far", &upstream)];
    let sidecar = start(&datasets, "views:\n  - name: v\n    sql: SELECT * FROM far\n").await;
    sidecar.wait_until("all lines are there", async || sidecar.stdout().contains("  v     ready")).await;
    let screen = sidecar.stdout().replace(&upstream.url(), "http://UPSTREAM");
    let states: Vec<&str> = screen.lines().filter(|line| line.contains("ready")).collect();
    insta::assert_snapshot!(masked(&states.join("\n")), @"
    here  ready       10,000 rows, 80 kB, loaded in N ms  from spice.ai:http://UPSTREAM
    far   ready       spice.ai:http://UPSTREAM
    v     ready       view
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_screen_says_what_was_found_on_disk() {
    let mut upstream = Upstream::builder().table("t", numbers(ROWS)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("mode: file, params: {{file_path: {}}}", folder.path().join("t").display());
    let dataset = Dataset::of("t", &upstream).accelerated(&settings);
    let first = start(std::slice::from_ref(&dataset), "").await;
    first.wait_until("it is on disk", async || status(&first, 0).await["status"] == "Ready").await;
    first.terminate().await;
    upstream.stop().await;
    let second = start(&[dataset], "").await;
    let told = "  t  ready       10,000 rows, 80 kB, found on disk  from spice.ai:http://";
    second.wait_until("the screen says so", async || second.stdout().contains(told)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_is_a_table_and_an_exit_code() {
    let upstream = Upstream::builder().table("here", numbers(ROWS)).table("far", numbers(1)).start().await;
    let here = Dataset::of("here", &upstream).accelerated("").field("time_column: id");
    let here = here.field("time_format: unix_seconds");
    let sidecar = start(&[here, Dataset::of("far", &upstream)], "").await;
    sidecar.wait_ready().await;
    sidecar.wait_until("it is loaded", async || status(&sidecar, 0).await["status"] == "Ready").await;
    let page = command(&sidecar, "status", []).await;
    assert_eq!((page.code, page.stderr.as_str()), (Some(0), ""), "{page:?}");
    for word in
        ["DATASET  STATE", "here     Ready  10,000", " ago", " d ", "far      Ready       -", "\n\nready\n"]
    {
        assert!(page.stdout.contains(word), "{word} is not in\n{}", page.stdout);
    }
    let json = command(&sidecar, "status", ["--json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["acceleration"]["rows"]), (&json!("here"), &json!(ROWS)));

    let closed = ClosedPort::any();
    let address = format!("127.0.0.1:{}", closed.number());
    let nobody = Sidecar::builder().args(["--http", &address]).finish("status").await;
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!(nobody.stderr.replace(&address, "ADDRESS"), @"sidewing: no sidecar answers at http://ADDRESS: cannot connect: Connection refused (os error 111); start one with `sidewing run`, or name its address with --http ADDR");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_followed_to_its_own_end() {
    let upstream = Upstream::builder().table("t", numbers(1)).table("u", numbers(1)).start().await;
    let kept = Dataset::of("t", &upstream).accelerated("refresh_retry_enabled: false");
    let sidecar = start(&[kept, Dataset::of("u", &upstream)], "").await;
    sidecar.wait_ready().await;
    upstream.replace("t", numbers(ROWS));
    let mut told = Vec::new();
    let mut tell = |shown: &str, finished: Finished| {
        let Finished { code, stdout, stderr } = finished;
        let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        told.push(format!("$ sidewing refresh {shown}\n{}{}-> {code}\n", masked(&stdout), masked(&stderr)));
    };
    tell("t", command(&sidecar, "refresh", ["t"]).await);
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": ROWS}]));
    let part = "select id from t where id < 7";
    tell(
        "T --mode full --sql ...",
        command(&sidecar, "refresh", ["T", "--mode", "full", "--sql", part]).await,
    );
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 7}]));

    let fault = Fault::BreakAfter { batches: 1, status: Status::internal("the disk broke") };
    upstream.inject(Method::DoGet, 1, fault);
    let failed = command(&sidecar, "refresh", ["t"]).await;
    assert!(
        failed.stderr.contains("refresh of `t`: ") && failed.stderr.contains("the disk broke"),
        "{failed:?}"
    );
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": 7}]), "what was there stays");
    let failures = status(&sidecar, 0).await["acceleration"]["refreshes"].clone();
    assert_eq!(
        (&failures["asked"], &failures["failures"][0]["refresh"]),
        (&json!(3), &json!(3)),
        "{failures}"
    );

    tell("t --no-wait", command(&sidecar, "refresh", ["t", "--no-wait"]).await);
    let is_done = async || status(&sidecar, 0).await["acceleration"]["refreshes"]["ended"] == 4;
    sidecar.wait_until("it ends all the same", is_done).await;
    assert_eq!(sidecar.sql("select count(*) as n from t").await, json!([{"n": ROWS}]));
    tell("u", command(&sidecar, "refresh", ["u"]).await);
    tell("nobody", command(&sidecar, "refresh", ["nobody"]).await);
    tell("t --sql 'drop table t'", command(&sidecar, "refresh", ["t", "--sql", "drop table t"]).await);
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_datasets_have_the_public_names() {
    let times = |rows: &[i64]| batch([("at", ints(rows.iter().copied()))]);
    let upstream = Upstream::builder().table("t", times(&[10, 20])).table("far", numbers(1)).start().await;
    let kept = Dataset::of("t", &upstream).accelerated("refresh_retry_enabled: false");
    let kept = kept.field("time_column: at").field("time_format: unix_seconds");
    let datasets = [kept, Dataset::of("far", &upstream)];
    let sidecar = start(&datasets, "views:\n  - name: v\n    sql: SELECT * FROM far\n").await;
    assert!(sidecar.metrics().await.contains("dataset_acceleration_refresh_errors{dataset=\"t\"} 0"));
    sidecar.wait_ready().await;
    sidecar.wait_until("it is loaded", async || status(&sidecar, 0).await["status"] == "Ready").await;
    let text = sidecar.metrics().await;
    for line in [
        "dataset_load_state{dataset=\"t\"} 1",
        "dataset_load_state{dataset=\"far\"} 1",
        "view_load_state{view=\"v\"} 1",
        "dataset_acceleration_rows{dataset=\"t\"} 2",
        "dataset_acceleration_max_timestamp_after_refresh_ms{dataset=\"t\"} 20000",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("max_timestamp_before_refresh_ms{"), "nothing was held before\n{text}");
    let value = |text: &str, name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{dataset=\"t\"}} ")));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    };
    assert!(value(&text, "dataset_acceleration_size_bytes") >= 16.0);
    let first_refresh = value(&text, "dataset_acceleration_last_refresh_time_ms");
    assert!(first_refresh > 1.6e12, "milliseconds since the epoch");

    upstream.replace("t", times(&[10, 20, 25]));
    assert_eq!(command(&sidecar, "refresh", ["t"]).await.code, Some(0));
    let text = sidecar.metrics().await;
    assert_eq!(value(&text, "dataset_acceleration_max_timestamp_before_refresh_ms"), 20_000.0);
    assert_eq!(value(&text, "dataset_acceleration_max_timestamp_after_refresh_ms"), 25_000.0);
    assert_eq!(value(&text, "dataset_acceleration_refresh_lag_ms"), 5_000.0);
    assert!(value(&text, "dataset_acceleration_ingestion_lag_ms") > 1.6e12);
    assert!(value(&text, "dataset_acceleration_last_refresh_time_ms") >= first_refresh);

    upstream.inject(Method::DoGet, 1, Fault::Status(Status::permission_denied("no")));
    assert_eq!(command(&sidecar, "refresh", ["t"]).await.code, Some(1));
    let text = sidecar.metrics().await;
    assert_eq!(value(&text, "dataset_acceleration_refresh_errors"), 1.0);
    let is_error = async || sidecar.metrics().await.contains("dataset_load_state{dataset=\"t\"} 3");
    sidecar.wait_until("the state is Error", is_error).await;
}
