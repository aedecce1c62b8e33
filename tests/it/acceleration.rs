//! Accelerated datasets in the real binary: answered from here, always whole, refreshed as the spicepod says.
//!
//! - [`fields`]: each setting does what it says; [`registry`] holds that none is forgotten.
//! - [`control`]: refreshes that are asked for, and how many run at a time.
//! - [`hammer`]: many readers through many refreshes.
//! - [`files`]: kills, full disks, damaged files, restarts.
//! - [`shapes`]: statements that differ in their literals.
//! - [`writes`]: rows that clients write.
//! - [`lives`]: random lives of a dataset against a model.

mod control;
mod fields;
mod files;
mod hammer;
mod lives;
mod registry;
mod shapes;
mod writes;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use tonic::Status;

use crate::support::client::{Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::tpch;
use crate::support::upstream::{Fault, Method, Upstream};

const REFRESH: &str = "/v1/datasets/t/acceleration/refresh";

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Ten thousand rows that all carry the number of their generation.
fn numbered(generation: i64) -> Vec<RecordBatch> {
    batch([("id", ints(0..10_000)), ("g", ints((0..10_000).map(|_| generation)))])
}

/// Events of a time in seconds.
fn events(rows: &[(i64, &str)]) -> Vec<RecordBatch> {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, name)| *name)));
    batch([("at", ints(rows.iter().map(|(at, _)| *at))), ("name", names)])
}

async fn start(datasets: &[Dataset], rest: &str) -> Sidecar {
    Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await
}

/// What `/v1/datasets?status=true` says of the first dataset.
async fn status(sidecar: &Sidecar) -> Value {
    let answer = sidecar.http("/v1/datasets?status=true").await;
    serde_json::from_str::<Value>(&answer.body).unwrap()[0].clone()
}

/// Asks for a refresh and returns when another generation answers.
async fn refresh(sidecar: &Sidecar, body: &str) {
    let before = status(sidecar).await["acceleration"]["last_refresh"].clone();
    let answer = sidecar.post(REFRESH, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let is_done = async || {
        let now = status(sidecar).await;
        now["acceleration"]["last_refresh"] != before && now["status"] == "Ready"
    };
    sidecar.wait_until("the refresh has ended", is_done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accelerated_table_is_answered_without_its_upstream() {
    let mut upstream = Upstream::builder().tables(tpch::tables()).start().await;
    let sidecar = start(&[Dataset::of("lineitem", &upstream).accelerated("")], "").await;
    sidecar.wait_ready().await;
    upstream.clear();
    let sql = "select l_returnflag, count(*) as n, sum(l_quantity) as q from lineitem \
               where l_shipdate < date '1998-01-01' group by l_returnflag order by l_returnflag";
    let expected = upstream.query(sql).await;
    let mut client = sidecar.flight_client().await;
    let answer = client.query(sql).await.unwrap();
    assert_same(sql, &answer.batches, &expected, Order::Kept);
    assert_eq!(upstream.statements(), Vec::<String>::new());

    upstream.stop().await;
    let answer = client.query(sql).await.unwrap();
    assert_same("the upstream is gone", &answer.batches, &expected, Order::Kept);
    let told = status(&sidecar).await;
    assert_eq!((&told["acceleration_enabled"], &told["status"]), (&json!(true), &json!("Ready")), "{told}");
    assert_eq!(told["acceleration"]["generation"], 1, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_load_queries_are_refused_or_fall_through() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    upstream.inject(Method::DoGet, 1_000, Fault::Status(Status::resource_exhausted("busy")));
    let waits = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let answer = waits.sql_as("select count(*) as n from t", "application/json").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("Acceleration not ready; loading initial data for t"), "{}", answer.body);
    assert_eq!(waits.http("/v1/ready").await.status, 503);
    upstream.heal();
    waits.wait_ready().await;
    assert_eq!(waits.sql("select count(*) as n from t").await, json!([{"n": 10_000}]));

    upstream.inject(Method::DoGet, 1_000, Fault::Status(Status::resource_exhausted("busy")));
    let dataset = Dataset::of("t", &upstream).accelerated("").field("ready_state: on_registration");
    let falls = start(&[dataset], "").await;
    falls.wait_ready().await;
    let answer = falls.sql_as("select count(*) as n from t", "application/json").await;
    assert!(answer.body.contains("busy"), "{} {}", answer.status, answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_refresh_keeps_the_old_generation_and_says_why() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let settings = "refresh_retry_enabled: false";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(settings)], "").await;
    sidecar.wait_ready().await;
    upstream.replace("t", numbered(2));
    let fault = Fault::BreakAfter { batches: 1, status: Status::internal("the disk broke") };
    upstream.inject(Method::DoGet, 1, fault);
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    sidecar.wait_until("the refresh failed", async || status(&sidecar).await["status"] == "Error").await;
    let told = status(&sidecar).await;
    assert!(told["error_message"].as_str().unwrap().contains("the disk broke"), "{told}");
    assert_eq!(sidecar.sql("select min(g) as a, max(g) as b from t").await, json!([{"a": 1, "b": 1}]));
    let ready = sidecar.http("/v1/ready?verbose=true").await;
    assert_eq!(ready.status, 200);
    assert!(ready.body.contains("t ok, stale: ") && ready.body.contains("the disk broke"), "{}", ready.body);

    refresh(&sidecar, r#"{"refresh_mode": "full"}"#).await;
    assert_eq!(sidecar.sql("select min(g) as a, max(g) as b from t").await, json!([{"a": 2, "b": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_takes_what_is_new_and_nothing_twice() {
    let mut rows = vec![(10, "a"), (10, "a"), (20, "b")];
    let upstream = Upstream::builder().table("t", events(&rows)).start().await;
    let dataset = Dataset::of("t", &upstream)
        .accelerated("refresh_mode: append, refresh_append_overlap: 5s")
        .field("time_column: at")
        .field("time_format: unix_seconds");
    let sidecar = start(&[dataset], "").await;
    sidecar.wait_ready().await;
    // Late rows of the watermark's own time, one within the overlap, one of an earlier row's words.
    for news in [vec![(20, "b"), (20, "c")], vec![(17, "late")], vec![(30, "b"), (30, "b")], vec![]] {
        rows.extend(news);
        upstream.replace("t", events(&rows));
        upstream.clear();
        refresh(&sidecar, "").await;
        let sql = "select * from t";
        let answer = sidecar.flight_client().await.query(sql).await.unwrap();
        assert_same(&format!("{rows:?}"), &answer.batches, &upstream.query(sql).await, Order::Any);
        let sent = upstream.statements();
        assert!(sent.iter().all(|sql| sql.contains("WHERE")), "{sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_are_asked_for_over_http() {
    let upstream = Upstream::builder().table("t", numbered(1)).table("u", numbered(1)).start().await;
    let datasets = [Dataset::of("t", &upstream).accelerated(""), Dataset::of("u", &upstream)];
    let sidecar = start(&datasets, "").await;
    sidecar.wait_ready().await;
    let answer = sidecar.post(REFRESH, r#"{"refresh_sql": "select id, g from t where id < 10"}"#).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (201, r#"{"message":"Dataset refresh triggered for t.","refresh":1}"#)
    );
    let is_small = async || sidecar.sql("select count(*) as n from t").await == json!([{"n": 10}]);
    sidecar.wait_until("the part is loaded", is_small).await;

    let mut told = Vec::new();
    for (path, body) in [
        ("/v1/datasets/nobody/acceleration/refresh", ""),
        ("/v1/datasets/u/acceleration/refresh", ""),
        (REFRESH, "{"),
        (REFRESH, r#"{"refresh_mode": "sideways"}"#),
        (REFRESH, r#"{"refresh_mode": "append"}"#),
        (REFRESH, r#"{"refresh_sql": "drop table t"}"#),
        (REFRESH, r#"{"refresh_jitter_max": "soon"}"#),
    ] {
        let answer = sidecar.post(path, body).await;
        told.push(format!("{path} {body}\n  {} {}", answer.status, answer.body.trim_end()));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_not_there_are_named() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let dataset = Dataset::of("t", &upstream).accelerated("primary_key: nothing").field("time_column: never");
    let sidecar = start(&[dataset], "").await;
    sidecar.wait_until("the state is Error", async || status(&sidecar).await["status"] == "Error").await;
    let told = status(&sidecar).await["error_message"].as_str().unwrap().to_owned();
    assert!(told.contains("does not have: never, nothing; it has id, g"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_blocked_or_taken() {
    let wider = || batch([("id", ints([1])), ("g", ints([2])), ("new", ints([3]))]);
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let blocks = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    let takes = Dataset::of("t", &upstream).accelerated("").field("on_schema_change: append_new_columns");
    let takes = start(&[takes], "").await;
    blocks.wait_ready().await;
    takes.wait_ready().await;
    upstream.replace("t", wider());
    refresh(&takes, "").await;
    assert_eq!(takes.sql("select * from t").await, json!([{"id": 1, "g": 2, "new": 3}]));

    assert_eq!(blocks.post(REFRESH, "").await.status, 201);
    blocks.wait_until("the state is Error", async || status(&blocks).await["status"] == "Error").await;
    let told = status(&blocks).await["error_message"].as_str().unwrap().to_owned();
    assert!(told.contains("`new` (Int64) is new") && told.contains("block"), "{told}");
    assert_eq!(blocks.sql("select count(*) as n from t").await, json!([{"n": 10_000}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_with_a_remote_table_sends_the_kept_sides_keys() {
    let few = batch([("id", ints([3, 5, 7]))]);
    let upstream = Upstream::builder().table("t", numbered(1)).table("few", few).start().await;
    let datasets = [Dataset::of("few", &upstream).accelerated(""), Dataset::of("t", &upstream)];
    let sidecar = start(&datasets, "").await;
    sidecar.wait_ready().await;
    upstream.clear();
    let rows = sidecar.sql("select sum(t.id) as s from few join t on few.id = t.id").await;
    assert_eq!(rows, json!([{"s": 15}]));
    let sent: Vec<String> =
        upstream.statements().into_iter().filter(|sql| !sql.to_lowercase().contains("count(*)")).collect();
    assert_eq!(sent.len(), 1, "{sent:#?}");
    assert!(["3", "5", "7"].iter().all(|key| sent[0].contains(key)), "{sent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_files_is_served_after_a_restart_without_its_upstream() {
    let mut upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let dataset = Dataset::of("t", &upstream)
        .accelerated(&format!("mode: file, params: {{file_path: {}}}", path.display()));
    let first = start(std::slice::from_ref(&dataset), "").await;
    // What is shown is on disk; Ready is said when the refresh has ended.
    first.wait_until("it is on disk", async || status(&first).await["status"] == "Ready").await;
    first.terminate().await;
    upstream.stop().await;
    let second = start(&[dataset], "").await;
    second.wait_ready().await;
    assert_eq!(second.sql("select count(*) as n, max(g) as g from t").await, json!([{"n": 10_000, "g": 1}]));
    upstream.replace("t", numbered(2));
    upstream.restart().await;
    let is_new = async || second.sql("select max(g) as g from t").await == json!([{"g": 2}]);
    second.wait_until("it is refreshed", is_new).await;
}

/// Rows that take far more memory than [`TIGHT`] leaves.
fn wide(rows: std::ops::Range<i64>) -> Vec<RecordBatch> {
    let text: ArrayRef =
        Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("{row:0100}"))));
    batch([("at", ints(rows.clone())), ("id", ints(rows)), ("text", text)])
}

const TIGHT: &str = "runtime:\n  query: {memory_limit: 48MiB, target_partitions: 2}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_larger_than_memory_is_refused_or_read_from_its_files() {
    let mut upstream = Upstream::builder().table("t", wide(0..600_000)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = |more: &str| {
        let path = folder.path().join("t");
        let params = format!("mode: file, params: {{file_path: {}{more}}}", path.display());
        let settings = format!("refresh_mode: append, refresh_append_overlap: 10s, {params}");
        Dataset::of("t", &upstream)
            .accelerated(&settings)
            .field("time_column: at")
            .field("time_format: unix_seconds")
    };
    let (resident, filed) = (dataset(""), dataset(", resident: false"));
    let refused = start(&[resident], TIGHT).await;
    refused.wait_until("it is refused", async || status(&refused).await["status"] == "Error").await;
    let told = status(&refused).await["error_message"].as_str().unwrap().to_owned();
    assert!(told.contains("dataset `t` does not fit") && told.contains("of 48.0 MB"), "{told}");
    assert_eq!(refused.sql("select 1 as one").await, json!([{"one": 1}]), "the rest goes on");
    refused.terminate().await;

    let sidecar = start(std::slice::from_ref(&filed), TIGHT).await;
    sidecar.wait_until("it is loaded", async || status(&sidecar).await["status"] == "Ready").await;
    upstream.clear();
    let sql = "select count(*) as n, sum(id) as s, max(text) as t from t where at >= 300000";
    let expected = json!([{"n": 300_000, "s": 134_999_850_000_i64, "t": format!("{:0100}", 599_999)}]);
    assert_eq!(sidecar.sql(sql).await, expected);
    assert_eq!(upstream.statements(), Vec::<String>::new());

    // Rows of the overlap are counted out, what is new is added, once.
    upstream.replace("t", wide(0..600_005));
    refresh(&sidecar, "").await;
    refresh(&sidecar, "").await;
    let told = status(&sidecar).await["acceleration"].clone();
    assert_eq!((&told["rows"], &told["generation"]), (&json!(600_005), &json!(2)), "{told}");
    sidecar.kill().await;
    upstream.stop().await;

    let again = start(&[filed], TIGHT).await;
    again.wait_ready().await;
    assert_eq!(
        again.sql("select count(*) as n, max(id) as m from t").await,
        json!([{"n": 600_005, "m": 600_004}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_files_grow_old_too() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let settings = "mode: file, params: {resident: false}, retention_check_enabled: true, \
                    retention_check_interval: 100ms, retention_sql: 'DELETE FROM t WHERE id < 9000'";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(settings)], "").await;
    sidecar.wait_ready().await;
    assert_eq!(
        sidecar.sql("select count(*) as n, min(id) as m from t").await,
        json!([{"n": 1_000, "m": 9_000}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_datasets_cannot_have_one_folder() {
    let settings = "mode: file, params: {file_path: both}";
    let both = ["t", "u"].map(|name| Dataset::at(name, "http://127.0.0.1:9").accelerated(settings));
    let pod = spicepod(&both, "");
    let ended = Sidecar::builder().spicepod(&pod).args(["--offline"]).finish("check").await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("dataset `u`: its folder"), "{}", ended.stderr);
    assert!(ended.stderr.contains("is that of dataset `t`"), "{}", ended.stderr);
}
