//! The log: JSON lines, what it tells changed while it runs, and who may do that.

use serde_json::Value;

use super::items;
use crate::support::sidecar::{HttpAnswer, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

async fn put_log(sidecar: &Sidecar, key: &str, directives: &str) -> HttpAnswer {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/log", sidecar.http_addr());
    HttpAnswer::of(client.put(url).header("x-api-key", key).body(directives.to_owned())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_json_and_levels_change_while_it_runs() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let keys = "runtime:\n  params: {log_format: json}\n  auth:\n    api-key:\n      keys: ['${secrets:RO}', '${secrets:RW}:rw']\n";
    let yaml = spicepod(&[Dataset::of("items", &upstream)], keys);
    let sidecar = Sidecar::builder().spicepod(&yaml).secret("RO", "reader-key").secret("RW", "writer-key");
    let sidecar = sidecar.start().await;
    sidecar.wait_ready().await;
    let lines = |text: String| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    };
    let is_ready = |line: &Value| line["message"] == "dataset ready" && line["dataset"] == "items";
    assert!(lines(sidecar.stderr()).iter().any(is_ready), "{}", sidecar.stderr());

    assert_eq!(put_log(&sidecar, "reader-key", "debug").await.status, 403);
    let wrong = put_log(&sidecar, "writer-key", "sidewing=loud").await;
    assert!(wrong.status == 400 && wrong.body.contains("write for example"), "{wrong:?}");
    let set = put_log(&sidecar, "writer-key", "warn,sidewing=debug").await;
    assert_eq!((set.status, set.body.as_str()), (200, r#"{"directives":"warn,sidewing=debug"}"#));

    super::sql_with(&sidecar, "SELECT 1", &[("x-api-key", "reader-key")]).await;
    let is_told = |line: &Value| line["message"] == "query answers";
    sidecar.wait_until("debug lines", async || lines(sidecar.stderr()).iter().any(is_told)).await;
    put_log(&sidecar, "writer-key", "warn").await;
    let before = lines(sidecar.stderr()).iter().filter(|line| is_told(line)).count();
    super::sql_with(&sidecar, "SELECT 1", &[("x-api-key", "reader-key")]).await;
    assert_eq!(lines(sidecar.stderr()).iter().filter(|line| is_told(line)).count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_is_none_is_refused() {
    let yaml = spicepod(&[], "");
    let finished = Sidecar::builder().spicepod(&yaml).env("SIDEWING_LOG_FORMAT", "xml").finish("run").await;
    assert!(finished.code != Some(0) && finished.stderr.contains("write `human` or `json`"), "{finished:?}");
}
