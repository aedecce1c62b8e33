//! @spiceai/spice, Spice.ai's SDK for JavaScript: SQL with and without parameters over both transports, refresh, ready.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use serde_json::json;

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_works_unmodified() {
    let Some((node, folder)) = tools::node("spice-js") else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("c")]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let datasets =
        [Dataset::of("items", &upstream), Dataset::of("kept", &upstream).table("items").accelerated("")];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    let script = folder.join("session.js").to_string_lossy().into_owned();
    let http = format!("http://{}", sidecar.http_addr());
    let told = tools::program(&node, &[&script, sidecar.flight_addr(), &http]).await;
    for transport in ["flight", "http"] {
        let told = &told[transport];
        assert_eq!(
            told["all"],
            json!([{"id": 1, "name": "a"}, {"id": 2, "name": null}, {"id": 3, "name": "c"}]),
            "{transport}"
        );
        assert_eq!(told["positional"], json!([{"id": 3, "name": "c"}]), "{transport}");
        assert_eq!(told["named"], json!([{"id": 1, "name": "a"}]), "{transport}");
        assert!(told["refused"].as_str().is_some_and(|said| said.contains("nowhere")), "{transport}: {told}");
    }
    let types = json!([{"a": "Int32", "b": "Float32", "c": "Timestamp(ms)", "d": "Boolean"}]);
    assert_eq!(told["typed"], types);
    assert_eq!((&told["ready"], &told["healthy"]), (&json!(true), &json!(true)));
    assert!(told["refresh"].is_string(), "{told}");
}
