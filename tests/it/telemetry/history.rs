//! `runtime.task_history`: what is in it, what is not, and who sees it.

use serde_json::json;

use super::{items, sql_with};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const TASKS: &str = "SELECT input, captured_output, error_message IS NULL AS is_well, labels['error_code'] AS code, \
                     labels['rows_produced'] AS rows, labels['datasets'] AS datasets, labels['outcome'] AS outcome \
                     FROM runtime.task_history WHERE task = 'sql_query' ORDER BY start_time";

async fn sidecar(upstream: &Upstream, runtime: &str) -> Sidecar {
    let yaml = spicepod(&[Dataset::of("items", upstream)], runtime);
    let sidecar =
        Sidecar::builder().spicepod(&yaml).secret("OWN_KEY", "key-one").secret("OTHER_KEY", "key-two");
    let sidecar = sidecar.secret("ADMIN_KEY", "key-all").start().await;
    sidecar.wait_ready().await;
    sidecar
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_told_and_those_about_the_history_are_not() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let runtime = "runtime:\n  task_history: {captured_output: truncated}\n";
    let sidecar = sidecar(&upstream, runtime).await;
    sidecar.sql("SELECT id FROM items ORDER BY id").await;
    assert_eq!(sidecar.sql_as("SELEC 1", "application/json").await.status, 400);
    for _ in 0..3 {
        sidecar.sql("SELECT count(*) FROM spice.runtime.task_history").await;
        sidecar.sql("SELECT count(*) FROM runtime.metrics").await;
    }
    sidecar
        .wait_until("both are told", async || sidecar.sql(TASKS).await.as_array().unwrap().len() == 2)
        .await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&sidecar.sql(TASKS).await).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_only_their_own() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let keys = "runtime:\n  auth:\n    api-key:\n      keys: ['${secrets:OWN_KEY}', '${secrets:OTHER_KEY}', \
                '${secrets:ADMIN_KEY}:rw']\n";
    let sidecar = sidecar(&upstream, keys).await;
    let ask = async |key: &str, sql: &str| sql_with(&sidecar, sql, &[("x-api-key", key)]).await;
    ask("key-one", "SELECT 1 AS mine").await;
    ask("key-two", "SELECT 2 AS theirs").await;
    let inputs = "SELECT input FROM runtime.task_history WHERE task = 'sql_query' ORDER BY input";
    let seen = async |key: &str| serde_json::from_str::<serde_json::Value>(&ask(key, inputs).await).unwrap();
    sidecar.wait_until("both are told", async || seen("key-all").await.as_array().unwrap().len() == 2).await;
    assert_eq!(seen("key-one").await, json!([{"input": "SELECT 1 AS mine"}]));
    assert_eq!(seen("key-two").await, json!([{"input": "SELECT 2 AS theirs"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_off_is_empty_and_short_statements_can_be_left_out() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    for settings in ["enabled: false", "min_sql_duration: 1h"] {
        let sidecar = sidecar(&upstream, &format!("runtime:\n  task_history: {{{settings}}}\n")).await;
        sidecar.sql("SELECT * FROM items").await;
        assert_eq!(sidecar.sql(TASKS).await, json!([]), "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_of_the_process_own_schema_is_refused() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let yaml = spicepod(&[Dataset::of("runtime.items", &upstream)], "");
    let finished = Sidecar::builder().spicepod(&yaml).finish("run").await;
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("the schema `runtime` is sidewing's own"), "{}", finished.stderr);
    assert!(finished.stderr.contains("spicepod.yaml:5"), "{}", finished.stderr);
}
