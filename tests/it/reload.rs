//! A spicepod that changes while it is served: what is new is answered, what stays keeps its rows, and what is wrong
//! changes nothing.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use serde_json::{Value, json};

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Method, Upstream};

fn numbers(count: i64) -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    batch([("id", ids)])
}

async fn upstream(tables: &[(&str, i64)]) -> Upstream {
    let tables = tables.iter().map(|(name, rows)| (*name, numbers(*rows)));
    Upstream::builder().tables(tables).start().await
}

async fn start(datasets: &[Dataset], rest: &str) -> Sidecar {
    let sidecar = Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await;
    sidecar.wait_ready().await;
    sidecar
}

fn write(sidecar: &Sidecar, text: &str) {
    std::fs::write(sidecar.dir().join("spicepod.yaml"), text).unwrap();
}

/// The same by a file that takes the place of the former one, as editors and ConfigMaps do.
fn replace(dir: &Path, text: &str) {
    std::fs::write(dir.join("next.yaml"), text).unwrap();
    std::fs::rename(dir.join("next.yaml"), dir.join("spicepod.yaml")).unwrap();
}

async fn counted(sidecar: &Sidecar, table: &str) -> Option<Value> {
    let sql = format!("select count(*) as n from {table}");
    let answer = sidecar.sql_as(&sql, "application/json").await;
    let rows: Value = serde_json::from_str(&answer.body).ok()?;
    (answer.status == 200).then(|| rows[0]["n"].clone())
}

async fn detailed(sidecar: &Sidecar) -> Value {
    let answer = sidecar.http("/health/detailed").await;
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

/// The version that answered.
async fn version(sidecar: &Sidecar) -> String {
    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let answer = reqwest::Client::new().post(url).body("select 1").send().await.unwrap();
    answer.headers()["x-sidewing-config"].to_str().unwrap().to_owned()
}

async fn metric(sidecar: &Sidecar, line: &str) -> Option<f64> {
    sidecar.metrics().await.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

async fn rejected(sidecar: &Sidecar) -> Option<String> {
    detailed(sidecar).await["config"]["rejected"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn datasets_and_views_come_change_and_go() {
    let (one, other) = (upstream(&[("items", 3), ("more", 4)]).await, upstream(&[("items", 5)]).await);
    let items = Dataset::of("items", &one);
    let sidecar = start(std::slice::from_ref(&items), "").await;
    let first = version(&sidecar).await;
    assert_eq!(detailed(&sidecar).await["config"]["version"], json!(first));
    assert_eq!(counted(&sidecar, "more").await, None);

    let view = "views: [{name: both, sql: 'select id from items union all select id from more'}]\n";
    write(&sidecar, &spicepod(&[items, Dataset::of("more", &one)], view));
    sidecar.wait_until("the view", async || counted(&sidecar, "both").await == Some(json!(7))).await;
    let second = version(&sidecar).await;
    assert_ne!(first, second);
    let rows = sidecar.flight_client().await.query("select count(*) from both").await.unwrap();
    assert_eq!(rows.num_rows(), 1);

    replace(sidecar.dir(), &spicepod(&[Dataset::of("items", &other)], ""));
    sidecar
        .wait_until("the other upstream", async || counted(&sidecar, "items").await == Some(json!(5)))
        .await;
    assert_eq!((counted(&sidecar, "both").await, counted(&sidecar, "more").await), (None, None));
    assert_eq!(metric(&sidecar, "config_reloads{outcome=\"taken\"}").await, Some(2.0));
    let known: Value = serde_json::from_str(&sidecar.http("/v1/datasets").await.body).unwrap();
    assert_eq!(known.as_array().unwrap().len(), 1, "{known}");
}

/// Rows that are held stay, with their upstream gone, while all around them changes.
#[tokio::test]
async fn what_is_held_keeps_its_rows() {
    let (mut gone, other) = (upstream(&[("items", 3)]).await, upstream(&[("more", 4)]).await);
    let items = |settings: &str| Dataset::of("items", &gone).accelerated(settings);
    let (before, after) = (
        items("refresh_check_interval: 1h"),
        items("refresh_check_interval: 1s, refresh_jitter_enabled: false"),
    );
    let more = Dataset::of("more", &other);
    let sidecar = start(&[before], "").await;
    let loads = gone.count(Method::DoGet);
    let generation = async || {
        let all: Value = serde_json::from_str(&sidecar.http("/v1/datasets?status=true").await.body).unwrap();
        let items =
            all.as_array().unwrap().iter().find(|dataset| dataset["name"] == "items").unwrap().clone();
        items["acceleration"]["generation"].as_u64()
    };
    let held = generation().await;

    write(&sidecar, &spicepod(&[after.clone(), more.clone()], ""));
    sidecar.wait_until("the new dataset", async || counted(&sidecar, "more").await == Some(json!(4))).await;
    assert_eq!(counted(&sidecar, "items").await, Some(json!(3)));
    // It goes by its new interval.
    sidecar.wait_until("a refresh", async || gone.count(Method::DoGet) > loads).await;
    assert!(generation().await >= held);

    gone.stop().await;
    let version_before = version(&sidecar).await;
    write(&sidecar, &spicepod(&[after, more], "views: [{name: v, sql: 'select id from items'}]\n"));
    sidecar.wait_until("another version", async || version(&sidecar).await != version_before).await;
    assert_eq!(counted(&sidecar, "v").await, Some(json!(3)));
    assert_eq!(counted(&sidecar, "items").await, Some(json!(3)));
}

/// What is held in another way is loaded beside what is there, which answers until then.
#[tokio::test]
async fn what_is_held_otherwise_is_loaded_first() {
    let core = upstream(&[("items", 3)]).await;
    let plain = Dataset::of("items", &core).accelerated("");
    let filtered =
        Dataset::of("items", &core).accelerated("refresh_sql: 'select id from items where id > 0'");
    let sidecar = start(&[plain], "").await;
    write(&sidecar, &spicepod(&[filtered], ""));
    let mut seen = Vec::new();
    while seen.last() != Some(&json!(2)) {
        let now = counted(&sidecar, "items").await;
        seen.push(now.unwrap_or_else(|| panic!("not answered\n{}", sidecar.stderr())));
    }
    assert!(seen.iter().all(|rows| *rows == json!(3) || *rows == json!(2)), "{seen:?}");
    // Files are let go by who had them.
    let filed = Dataset::of("items", &core).accelerated("mode: file");
    write(&sidecar, &spicepod(std::slice::from_ref(&filed), "runtime: {params: {data_dir: data}}\n"));
    sidecar.wait_until("files", async || sidecar.dir().join("data").exists()).await;
    sidecar.wait_until("all rows", async || counted(&sidecar, "items").await == Some(json!(3))).await;
    let other = filed.field("time_column: id").field("time_format: unix_seconds");
    write(&sidecar, &spicepod(&[other], "runtime: {params: {data_dir: data}}\n"));
    let taken = "config_reloads{outcome=\"taken\"}";
    sidecar.wait_until("it is taken", async || metric(&sidecar, taken).await == Some(3.0)).await;
    sidecar.wait_until("its rows", async || counted(&sidecar, "items").await == Some(json!(3))).await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told() {
    let core = upstream(&[("items", 3)]).await;
    let good = spicepod(&[Dataset::of("items", &core)], "");
    let sidecar = start(&[Dataset::of("items", &core)], "").await;
    let held = version(&sidecar).await;
    write(&sidecar, &good.replace("from:", "form:"));
    sidecar.wait_until("it is told", async || rejected(&sidecar).await.is_some()).await;
    let words = rejected(&sidecar).await.unwrap();
    assert!(words.contains("form") && words.contains("spicepod.yaml:6"), "{words}");
    assert_eq!(detailed(&sidecar).await["status"], "degraded");
    assert_eq!((counted(&sidecar, "items").await, version(&sidecar).await), (Some(json!(3)), held));
    assert!(metric(&sidecar, "config_reloads{outcome=\"rejected\"}").await >= Some(1.0));
    assert!(sidecar.stderr().contains("the former one holds"), "{}", sidecar.stderr());
    let status = sidecar.http("/v1/status?verbose=true").await;
    assert!(status.body.contains("spicepod.yaml"), "{}", status.body);

    std::fs::remove_file(sidecar.dir().join("spicepod.yaml")).unwrap();
    sidecar
        .wait_until("no file", async || {
            rejected(&sidecar)
                .await
                .is_some_and(|words| words.contains("spicepod.yaml") && !words.contains("form"))
        })
        .await;
    // The very file that answers.
    write(&sidecar, &good);
    sidecar.wait_until("it is as it was", async || rejected(&sidecar).await.is_none()).await;
    // A view in a file of its own, which comes later and then changes.
    let view = "views: [{name: v, sql_ref: v.sql}]\n";
    write(&sidecar, &spicepod(&[Dataset::of("items", &core)], view));
    sidecar.wait_until("no view", async || rejected(&sidecar).await.is_some()).await;
    std::fs::write(sidecar.dir().join("v.sql"), "select 2 as n").unwrap();
    sidecar.wait_until("it heals", async || rejected(&sidecar).await.is_none()).await;
    std::fs::write(sidecar.dir().join("v.sql"), "select 1 as n").unwrap();
    let first = async || sidecar.sql("select n from v").await;
    sidecar.wait_until("its file", async || first().await == json!([{"n": 1}])).await;
    assert_eq!(counted(&sidecar, "v").await, Some(json!(1)));
}

/// An upstream that cannot be reached does not take the place of one that answers, until it can.
#[tokio::test]
async fn an_upstream_that_does_not_answer_is_not_moved_to() {
    let core = upstream(&[("items", 3)]).await;
    let mut other = upstream(&[("items", 5)]).await;
    other.stop().await;
    let sidecar = start(&[Dataset::of("items", &core)], "").await;
    write(&sidecar, &spicepod(&[Dataset::of("items", &other)], ""));
    sidecar.wait_until("it is told", async || rejected(&sidecar).await.is_some()).await;
    let words = rejected(&sidecar).await.unwrap();
    assert!(words.contains("items") && words.contains(&other.addr().port().to_string()), "{words}");
    assert_eq!(counted(&sidecar, "items").await, Some(json!(3)));
    other.restart().await;
    sidecar.wait_until("the other one", async || counted(&sidecar, "items").await == Some(json!(5))).await;
    assert_eq!(rejected(&sidecar).await, None);
}

#[tokio::test]
async fn what_holds_from_the_next_start_on_is_named() {
    let core = upstream(&[("items", 3)]).await;
    let items = [Dataset::of("items", &core)];
    let sidecar = start(&items, "").await;
    let rest = "runtime: {query: {memory_limit: 1GiB, timeout: 5s}, cors: {enabled: true}}\n";
    write(&sidecar, &spicepod(&items, rest));
    let settings = async || detailed(&sidecar).await["config"]["needs_restart"].clone();
    sidecar.wait_until("it is told", async || settings().await != json!([])).await;
    assert_eq!(settings().await, json!(["runtime.cors", "runtime.query.memory_limit"]));
    write(&sidecar, &spicepod(&items, ""));
    sidecar.wait_until("nothing more", async || settings().await == json!([])).await;
}
