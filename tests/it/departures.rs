//! Clients that go away: their queries end, and so do the calls upstream that were made for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::{FlightDescriptor, Ticket};
use futures::StreamExt;
use serde_json::Value;
use sidewing::task::Scope;

use crate::support::client::{Client, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

/// How long a query may outlive its client.
const AFTER: Duration = Duration::from_secs(1);
/// Beyond what a test waits for a query to get going.
const LATE: Duration = Duration::from_secs(20);

/// Sent whole.
const FORWARDED: &str = "select id from items";
/// Read by two scans and joined here.
const SCANNED: &str = "select a.id from items a join others b on a.id = b.id";

fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
    batch([("id", ids)])
}

/// Datasets of two upstreams of one table each, so that a join of both runs here.
async fn world() -> (Upstream, Upstream, Sidecar) {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let other = Upstream::builder().table("others", items()).start().await;
    let datasets = [Dataset::of("items", &upstream), Dataset::of("others", &other)];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    // Tables of a join are counted once, in the background and for nobody in particular: that is over.
    sidecar.sql(SCANNED).await;
    until("no call upstream", LATE, async || upstream.open(Method::DoGet) + other.open(Method::DoGet) == 0)
        .await;
    (upstream, other, sidecar)
}

async fn until(what: &str, limit: Duration, done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < limit, "{what} within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn active(sidecar: &Sidecar) -> usize {
    let answer = sidecar.http("/v1/sql/active").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let listed: Value = serde_json::from_str(&answer.body).unwrap();
    listed["queries"].as_array().unwrap().len()
}

/// Waits until the query is at work upstream, lets `leave` drop its client, and expects the end of both.
async fn expect_end(
    case: &str,
    upstream: &Upstream,
    other: &Upstream,
    sidecar: &Sidecar,
    leave: impl FnOnce(),
) {
    until("a call upstream", LATE, async || upstream.open(Method::DoGet) > 0).await;
    until("a running query", LATE, async || active(sidecar).await == 1).await;
    leave();
    until(&format!("{case}: no call upstream"), AFTER, async || {
        upstream.open(Method::DoGet) + other.open(Method::DoGet) == 0
    })
    .await;
    until(&format!("{case}: no running query"), AFTER, async || active(sidecar).await == 0).await;
}

/// The faults that keep a call at work: before its first batch, and after it.
fn faults() -> [Fault; 2] {
    [Fault::Hang, Fault::StallAfter { batches: 1 }]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_client_that_goes_away_ends_its_query() {
    let (upstream, other, sidecar) = world().await;
    let scope = Scope::new();
    for (sql, fault) in [FORWARDED, SCANNED].into_iter().flat_map(|sql| faults().map(|fault| (sql, fault))) {
        let case = format!("{sql}, {fault:?}");
        upstream.inject(Method::DoGet, 1, fault);
        // One connection for this query alone: HTTP/1.1 has no other way to leave.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://{}/v1/sql", sidecar.http_addr())).body(sql);
        let asking = scope.spawn_owned("client", async move {
            let mut answer = request.send().await.unwrap();
            while answer.chunk().await.unwrap().is_some() {}
        });
        expect_end(&case, &upstream, &other, &sidecar, || drop(asking)).await;
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_client_that_goes_away_ends_its_query() {
    let (upstream, other, sidecar) = world().await;
    let scope = Scope::new();
    for (sql, fault) in [FORWARDED, SCANNED].into_iter().flat_map(|sql| faults().map(|fault| (sql, fault))) {
        let case = format!("{sql}, {fault:?}");
        upstream.inject(Method::DoGet, 1, fault);
        let mut client: Client = sidecar.flight_client().await;
        let asking = scope.spawn_owned("client", async move {
            let answer = client.inner().do_get(Ticket::new(sql)).await.unwrap();
            let mut messages = answer.into_inner();
            while messages.next().await.is_some() {}
        });
        // The connection lives on: only the call is dropped.
        expect_end(&case, &upstream, &other, &sidecar, || drop(asking)).await;
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_end_the_query_of_another() {
    let (upstream, _other, sidecar) = world().await;
    upstream.inject(Method::DoGet, 2, Fault::Delay(Duration::from_secs(2)));
    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let ask = || {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(&url).body("select count(*) as n from items").send()
    };
    let (scope, leaving, staying) = (Scope::new(), ask(), ask());
    let first = scope.spawn_owned("client", async move {
        let _ = leaving.await;
    });
    let leave = async {
        until("two running queries", LATE, async || active(&sidecar).await == 2).await;
        drop(first);
    };
    let (answer, ()) = tokio::join!(staying, leave);
    assert_eq!(answer.unwrap().text().await.unwrap(), r#"[{"n":30000}]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_only_for_a_schema_and_leaves_is_forgotten() {
    let (upstream, _other, sidecar) = world().await;
    upstream.inject(Method::GetFlightInfo, 1, Fault::Hang);
    let mut client = sidecar.flight_client().await;
    let scope = Scope::new();
    let asking = scope.spawn_owned("client", async move {
        let descriptor = FlightDescriptor::new_cmd(FORWARDED);
        client.inner().get_flight_info(descriptor).await.unwrap();
    });
    until("a call upstream", LATE, async || upstream.open(Method::GetFlightInfo) > 0).await;
    drop(asking);
    until("no call upstream", AFTER, async || upstream.open(Method::GetFlightInfo) == 0).await;
}
