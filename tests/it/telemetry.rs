//! What sidewing tells of itself: metrics, the history of tasks, traces, a collector, the log.

mod collector;
mod history;
mod logs;
mod metrics;
mod traces;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{SPAN}-01")
}

fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let names: StringArray = (0..10).map(|id| Some(format!("item {id}"))).collect();
    batch([("id", ids), ("name", Arc::new(names))])
}

/// A statement with a header, over HTTP; it must succeed.
async fn sql_with(sidecar: &Sidecar, sql: &str, headers: &[(&str, &str)]) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}/v1/sql", sidecar.http_addr())).body(sql.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.unwrap();
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{sql}\n{body}");
    body
}
