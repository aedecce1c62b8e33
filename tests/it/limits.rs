//! How much queries may take: turns, memory, temporary files. What the application sees when there is no more.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::Value;
use tonic::Code;

use crate::support::client::{Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const COUNT: &str = "select count(*) as n from big";
const JSON: &str = "application/json";

/// Beyond what a test waits; nothing is measured by it.
const LATE: Duration = Duration::from_secs(30);

/// Rows of some hundred bytes in no order.
fn rows(count: i64) -> Vec<RecordBatch> {
    let mixed = |n: i64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64);
    let texts = (0..count).map(|n| format!("{:016x}-{n:0>64}", mixed(n)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    batch([("id", ids), ("text", Arc::new(StringArray::from_iter_values(texts)))])
}

/// Datasets `big` and `other` of one table that is scanned, so that the work is done here.
async fn world(count: i64, runtime: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("big", rows(count)).start().await;
    let datasets = ["big", "other"].map(|name| Dataset::flightsql(name, "big", &upstream));
    let pod = spicepod(&datasets, &format!("runtime:\n{runtime}"));
    let sidecar = Sidecar::builder().spicepod(&pod).env("RUST_LOG", "warn,sidewing=debug").start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

/// The value of a metric, labels included in its name.
async fn metric(sidecar: &Sidecar, name: &str) -> f64 {
    let text = sidecar.metrics().await;
    // All series of it: what is told apart by protocol is one number here.
    let series = |line: &str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    };
    let values: Vec<f64> = text.lines().filter_map(series).collect();
    assert!(!values.is_empty(), "no {name} in\n{text}");
    values.into_iter().sum()
}

/// Returns when a metric has this value, while `work` goes on and does not end.
async fn until(sidecar: &Sidecar, name: &str, value: f64, work: impl Future) {
    let reached = async {
        while metric(sidecar, name).await != value {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = work => panic!("the query ended before {name} was {value}"),
        reached = tokio::time::timeout(LATE, reached) => reached.unwrap_or_else(|_| panic!("{name} is never {value}")),
    }
}

fn entries(path: &Path) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

const ONE_AT_A_TIME: &str = "  query: {max_concurrent_queries: 1}\n  params: {query_queue_max: 1}\n";

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_queue_full_is_refused_and_who_waits_runs() {
    let (upstream, sidecar) = world(10, ONE_AT_A_TIME).await;
    upstream.inject(Method::DoGet, 1, Fault::Hang);
    let mut runs = Box::pin(sidecar.sql_as("select id from big where id > 1", JSON));
    until(&sidecar, "query_active_count", 1.0, &mut runs).await;
    let mut waits = Box::pin(sidecar.sql_as(COUNT, JSON));
    until(&sidecar, "query_waiting_count", 1.0, &mut waits).await;

    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let refused = client.post(url).header("accept", JSON).body(COUNT).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    let told: Value = refused.json().await.unwrap();
    assert_eq!(told["code"], "TooManyQueries", "{told}");
    let mut flight = sidecar.flight_client().await;
    assert_eq!(flight.query(COUNT).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(metric(&sidecar, "query_rejections{reason=\"queue_full\"}").await, 2.0);
    // Schemas have a queue of their own, and what watches the process has none.
    flight.schema_of_sql(COUNT).await.unwrap();
    assert_eq!(sidecar.http("/health").await.status, 200);
    assert_eq!(sidecar.http("/v1/ready").await.status, 200);

    // The client goes away, and its turn is free.
    drop(runs);
    let answer = waits.await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "[{\"n\":10}]"));
    sidecar.wait_until("nothing runs", async || metric(&sidecar, "query_active_count").await == 0.0).await;
    assert_eq!(metric(&sidecar, "query_waiting_count").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_still_read_has_its_turn() {
    let (_upstream, sidecar) = world(100_000, ONE_AT_A_TIME).await;
    let mut flight = sidecar.flight_client().await;
    let ticket = arrow_flight::Ticket::new("select * from big");
    let mut stream = flight.inner().do_get(ticket).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a first message");
    assert_eq!(metric(&sidecar, "query_active_count").await, 1.0);
    let mut waits = Box::pin(sidecar.sql_as(COUNT, JSON));
    until(&sidecar, "query_waiting_count", 1.0, &mut waits).await;
    while stream.message().await.unwrap().is_some() {}
    assert_eq!(waits.await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told() {
    let runtime = "  query: {max_concurrent_queries: 1}\n  params: {query_queue_timeout: 200ms}\n";
    let (upstream, sidecar) = world(10, runtime).await;
    upstream.inject(Method::DoGet, 1, Fault::Hang);
    let mut runs = Box::pin(sidecar.sql_as("select id from big where id > 1", JSON));
    until(&sidecar, "query_active_count", 1.0, &mut runs).await;
    let answer = sidecar.sql_as(COUNT, JSON).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.body.contains("QueryQueueTimeout"), "{}", answer.body);
    let mut flight = sidecar.flight_client().await;
    assert_eq!(flight.query(COUNT).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(metric(&sidecar, "query_rejections{reason=\"queue_timeout\"}").await, 2.0);
}

const SMALL: &str = "  query: {memory_limit: 16MiB, temp_directory: spill, spill_compression: lz4_frame, target_partitions: 2}\n";

/// Some forty MB, well above [`SMALL`].
const MANY: i64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_sort_that_does_not_fit_goes_to_disk_and_is_right() {
    let (upstream, sidecar) = world(MANY, SMALL).await;
    let spill = sidecar.dir().join("spill");
    assert_eq!(entries(&spill), 1, "a directory of its own");
    let mut flight = sidecar.flight_client().await;

    let sort = "select id, text from big order by text";
    let sorted = flight.query(sort).await.unwrap();
    assert_same(sort, &sorted.batches, &upstream.query(sort).await, Order::Kept);
    let explained = sidecar.sql(&format!("explain analyze {sort}")).await.to_string();
    let spills = explained.split("spill_count=").skip(1).any(|count| !count.starts_with("0"));
    assert!(spills, "{explained}");

    let groups =
        "select count(*) as n, sum(c) as c from (select text, count(*) as c from big group by text) as g";
    assert_eq!(sidecar.sql(groups).await, serde_json::json!([{"n": MANY, "c": MANY}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_does_not_fit_is_joined_by_sorting() {
    // Sorting both sides takes more at least than one sort does.
    let (_upstream, sidecar) = world(MANY, &SMALL.replace("16MiB", "32MiB")).await;
    let join = "select count(*) as n, sum(b.id) as s from big b join other o on b.text = o.text";
    let sum = MANY * (MANY - 1) / 2;
    assert_eq!(sidecar.sql(join).await, serde_json::json!([{"n": MANY, "s": sum}]));
    assert!(sidecar.stderr().contains("joining by sorting"), "the join was meant not to fit");
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_are_gone_at_the_end() {
    let spill = tempfile::tempdir().unwrap();
    let runtime = format!("  query: {{memory_limit: 16MiB, temp_directory: {:?}}}\n", spill.path());
    let (_upstream, sidecar) = world(10, &runtime).await;
    assert_eq!(entries(spill.path()), 1);
    let ended = sidecar.terminate().await;
    assert_eq!((ended.code, entries(spill.path())), (Some(0), 0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_to_disk_is_refused_and_the_rest_goes_on() {
    let (_upstream, sidecar) = world(MANY, SMALL).await;
    let answer = sidecar.sql_as("select array_length(array_agg(text)) as n from big", JSON).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["code"], "ResourcesExhausted", "{told}");
    let message = told["message"].as_str().unwrap();
    for part in ["runtime.query.memory_limit", "asked for", "16.0 MB"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(sidecar.sql(COUNT).await, serde_json::json!([{"n": MANY}]));
    assert_eq!(metric(&sidecar, "query_memory_limit_bytes").await, f64::from(16 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temp_directory_that_cannot_be_written_stops_the_start() {
    let runtime = "runtime:\n  query:\n    temp_directory: taken\n";
    let pod = format!("version: v1\nkind: Spicepod\nname: test\n{runtime}");
    let ended = Sidecar::builder().spicepod(&pod).file("taken", "").args(["--offline"]).finish("check").await;
    assert_ne!(ended.code, Some(0));
    assert!(
        ended.stderr.contains("UnusableTempDirectory") && ended.stderr.contains("taken"),
        "{}",
        ended.stderr
    );
}
