//! Refreshes that are asked for, and how many run at a time.

use std::time::Duration;

use super::*;

const LATE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_during_a_refresh_follows_it_and_equals_are_one() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated("")], "").await;
    sidecar.wait_ready().await;
    upstream.clear();
    upstream.inject(Method::DoGet, 1, Fault::Delay(LATE));
    assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    let runs = async || upstream.count(Method::DoGet) == 1;
    sidecar.wait_until("the first refresh asks the upstream", runs).await;
    // The one that runs reads the table as it is now; what is asked for from here on must see what comes next.
    upstream.swap("t", numbered(2)).await;
    for _ in 0..5 {
        assert_eq!(sidecar.post(REFRESH, "").await.status, 201);
    }
    assert_eq!(sidecar.post(REFRESH, r#"{"refresh_mode": "full"}"#).await.status, 201);
    let all = async || upstream.count(Method::DoGet) == 3 && status(&sidecar).await["status"] == "Ready";
    sidecar.wait_until("all have ended", all).await;
    assert_eq!(sidecar.sql("select min(g) as a, max(g) as b from t").await, json!([{"a": 2, "b": 2}]));
    assert_eq!(status(&sidecar).await["acceleration"]["generation"], 4);
    assert_eq!(upstream.most_at_once(Method::DoGet), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_failed_is_not_tried_after_a_newer_one() {
    let upstream = Upstream::builder().table("t", numbered(1)).start().await;
    let settings = "refresh_check_interval: 300ms, refresh_retry_enabled: false";
    let sidecar = start(&[Dataset::of("t", &upstream).accelerated(settings)], "").await;
    sidecar.wait_ready().await;
    let fault = Fault::BreakAfter { batches: 0, status: Status::internal("the disk broke") };
    upstream.inject(Method::DoGet, 1, fault);
    assert_eq!(
        sidecar.post(REFRESH, r#"{"refresh_sql": "select id, g from t where id < 10"}"#).await.status,
        201
    );
    // Whoever met the fault: in the end the spicepod's whole table is here, and stays.
    upstream.swap("t", numbered(2)).await;
    let is_whole = async || {
        sidecar.sql("select count(*) as n, min(g) as g from t").await == json!([{"n": 10_000, "g": 2}])
    };
    sidecar.wait_until("the next refresh is the spicepod's", is_whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_at_start_are_bounded_also_of_what_was_restored() {
    const DATASETS: usize = 6;
    let mut builder = Upstream::builder();
    for at in 0..DATASETS {
        builder = builder.table(&format!("t{at}"), numbered(1));
    }
    let upstream = builder.start().await;
    let folder = tempfile::tempdir().unwrap();
    let dataset = |at: usize| {
        let path = folder.path().join(format!("t{at}"));
        let settings = format!("mode: file, params: {{file_path: {}}}", path.display());
        Dataset::of(&format!("t{at}"), &upstream).accelerated(&settings)
    };
    let datasets: Vec<Dataset> = (0..DATASETS).map(dataset).collect();
    for life in 1..=2 {
        upstream.clear();
        upstream.inject(Method::DoGet, DATASETS, Fault::Delay(LATE));
        let sidecar = start(&datasets, "runtime:\n  dataset_load_parallelism: 2\n").await;
        let all = async || {
            let answer = sidecar.http("/v1/datasets?status=true").await;
            let all: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
            all.iter().all(|one| one["status"] == "Ready" && !one["acceleration"]["last_refresh"].is_null())
        };
        sidecar.wait_until("all are loaded", all).await;
        assert_eq!(upstream.count(Method::DoGet), DATASETS, "life {life}");
        // Two of them overlap, or they would take turns one by one.
        assert_eq!(upstream.most_at_once(Method::DoGet), 2, "life {life}");
        sidecar.terminate().await;
    }
}
