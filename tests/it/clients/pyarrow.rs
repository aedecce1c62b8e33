//! pyarrow.flight, the C++ client behind Python: reads, writes, follows.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};
use serde_json::{Value, json};

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_reads_a_query_and_a_schema_by_path() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a rather long name")]));
    let prices: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5]));
    let items = batch([("id", ids), ("name", names), ("price", prices)]);
    let upstream = Upstream::builder().table("items", items).start().await;
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], ""));
    let sidecar = sidecar.start().await;
    sidecar.wait_ready().await;

    let sql = "select id, name, price * 2 as twice from items order by id";
    let direct = read(&python, &upstream.addr().to_string(), sql).await;
    let answer = read(&python, sidecar.flight_addr(), sql).await;
    assert_eq!(answer["promised"], json!(["id", "name", "twice"]));
    assert_eq!(answer["rows"], expected_rows());
    assert_eq!(answer["rows"], direct["rows"], "the upstream's own answer");
    let paths = &answer["path_schema"];
    assert_eq!((&paths["id"], &paths["price"]), (&json!("int64"), &json!("double")), "{paths}");
    assert!(paths["name"].as_str().is_some_and(|text| text.contains("string")), "{paths}");
    assert_eq!(answer["same_without_token"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_writes_and_is_told_what_is_stored() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec!["not fetched"]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let dataset =
        Dataset::of("items", &upstream).accelerated("refresh_mode: disabled").field("access: read_write");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).start().await;
    sidecar.wait_ready().await;
    let told =
        tools::script(&python, "pyarrow/write.py", &[&format!("grpc://{}", sidecar.flight_addr()), "items"])
            .await;
    assert_eq!((&told["first"], &told["last"]), (&json!({"rows": 3}), &json!({"rows": 9})), "{told}");
    let refused = told["refused"].as_str().unwrap_or_default();
    assert!(refused.contains("`id` is Int64 and was sent as Utf8, `name`"), "{told}");
    assert_eq!(told["held"], json!([{"n": 309}]));
    let rows = sidecar.sql("select name, count(*) as n from items group by name order by name").await;
    assert_eq!(rows, json!([{"name": "a", "n": 206}, {"name": "b", "n": 103}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_follows_a_dataset() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a rather long name"), None]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let dataset = Dataset::of("items", &upstream).accelerated("primary_key: id");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).start().await;
    sidecar.wait_ready().await;
    let location = format!("grpc://{}", sidecar.flight_addr());
    let answer = tools::script(&python, "pyarrow/follow.py", &[&location, "items", "3"]).await;
    assert_eq!(
        answer["schema"],
        json!({
            "op": "string",
            "primary_keys": "list<item: string not null>",
            "data": "struct<id: int64, name: string>",
        })
    );
    assert_eq!(
        answer["changes"],
        json!([
            {"op": "t", "primary_keys": null, "data": null},
            {"op": "r", "primary_keys": ["id"], "data": {"id": 1, "name": "a rather long name"}},
            {"op": "r", "primary_keys": ["id"], "data": {"id": 2, "name": null}},
        ])
    );
}

fn expected_rows() -> Value {
    json!([
        {"id": 1, "name": "a", "twice": 1.0},
        {"id": 2, "name": null, "twice": 3.0},
        {"id": 3, "name": "a rather long name", "twice": 5.0},
    ])
}

/// What the script prints about the Flight server at `addr`.
async fn read(python: &Path, addr: &str, sql: &str) -> Value {
    tools::script(python, "pyarrow/read.py", &[&format!("grpc://{addr}"), "items", sql]).await
}
