//! The `spiceai` crate, Spice.ai's SDK for Rust: SQL with and without parameters, readiness.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use serde_json::json;

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_works_unmodified() {
    let Some(program) = tools::cargo_program("spice-rs") else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("c")]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], "")).start().await;
    sidecar.wait_ready().await;
    let [flight, http] =
        [sidecar.flight_addr(), sidecar.http_addr()].map(|address| format!("http://{address}"));
    let told = tools::program(&program, &[&flight, &http]).await;
    assert_eq!(told["all"], json!([{"id": 1, "name": "a"}, {"id": 2}, {"id": 3, "name": "c"}]));
    assert_eq!(told["bound"], json!([{"id": 3, "name": "c"}]));
    assert_eq!(told["batch"], json!([{"id": 1, "name": "a"}]));
    assert_eq!(told["with_key"], told["all"]);
    assert_eq!(told["ready"], json!(true));
    assert!(told["refused"].as_str().is_some_and(|said| said.contains("nowhere")), "{told}");
}
