//! The front ends as clients see them: routes, formats, handshakes, schemas, parameters, metrics.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use arrow_flight::{Criteria, FlightData, HandshakeRequest};
use futures::{TryStreamExt, stream};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::client::{Client, Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    batch([("id", ids), ("name", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])))])
}

async fn world() -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let datasets = [Dataset::of("items", &upstream), Dataset::of("shop.goods", &upstream).table("items")];
    let view = "views:\n  - name: named\n    sql: select * from items where name is not null\n";
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, view)).start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_are_words() {
    let (_upstream, sidecar) = world().await;
    let health = sidecar.http("/health").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let ready = sidecar.http("/v1/ready").await;
    assert_eq!((ready.status, ready.body.trim().to_lowercase().as_str()), (200, "ready"));
    assert_eq!(sidecar.http("/v1/no-such-route").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets_are_listed_with_their_states() {
    let (_upstream, sidecar) = world().await;
    let answer = sidecar.http("/v1/datasets?status=true").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let listed: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let of =
        |name: &str| listed.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{listed:?}"));
    for name in ["items", "shop.goods"] {
        let item = of(name);
        assert_eq!(item["status"], "Ready", "{item}");
        assert!(item["from"].as_str().is_some_and(|from| from.starts_with("spice.ai:")), "{item}");
        assert_eq!(item["acceleration_enabled"], false, "{item}");
    }
    let without = sidecar.http("/v1/datasets").await;
    assert!(!without.body.contains("\"status\""), "{}", without.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_over_http_takes_parameters() {
    let (_upstream, sidecar) = world().await;
    for (sql, parameters) in [
        ("select name from items where id = $1 and name = $2", json!([3, "c"])),
        ("select name from items where id = $id and name = $name", json!({"id": 3, "name": "c"})),
    ] {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request.post(format!("http://{}/v1/sql", sidecar.http_addr()));
        let response = request.json(&json!({"sql": sql, "parameters": parameters})).send().await.unwrap();
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!((status.as_u16(), body.as_str()), (200, r#"[{"name":"c"}]"#), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_nulls_are_explicit_and_no_rows_are_an_empty_array() {
    let (_upstream, sidecar) = world().await;
    let rows = sidecar.sql_as("select id, name from items where id = 2", "application/json").await;
    assert_eq!(rows.body, r#"[{"id":2,"name":null}]"#);
    let none = sidecar.sql_as("select id from items where id > 9", "application/json").await;
    assert_eq!((none.status, none.body.as_str()), (200, "[]"));
    let none = sidecar.sql_as("select id from items where id > 9", "text/csv").await;
    assert_eq!((none.status, none.body.as_str()), (200, "id\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_always_gives_a_bearer() {
    let (_upstream, sidecar) = world().await;
    let mut client = sidecar.flight_client().await;
    for (username, password) in [("", ""), ("", "any-key"), ("ann", "pw")] {
        client.login(username, password).await.unwrap();
        let token = client.token().unwrap_or_default().to_owned();
        assert!(token.starts_with("Bearer ") && token.len() > "Bearer ".len(), "{token}");
        client.query("select id from items").await.unwrap();
    }
    let bare = stream::iter([HandshakeRequest::default()]);
    let response = client.inner().handshake(bare).await.unwrap();
    assert!(response.metadata().get("authorization").is_some(), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_the_same_by_path_by_command_and_in_the_stream() {
    let (_upstream, sidecar) = world().await;
    let mut client = sidecar.flight_client().await;
    for (path, sql) in [
        (&["items"][..], "select * from items"),
        (&["shop", "goods"], "select * from shop.goods"),
        (&["shop.goods"], "select * from shop.goods"),
        (&["named"], "select * from named"),
    ] {
        let by_path = client.schema_of_table(path).await.unwrap();
        let by_command = client.schema_of_sql(sql).await.unwrap();
        let promised = Schema::try_from(client.flight_info(sql).await.unwrap()).unwrap();
        let sent = client.query(sql).await.unwrap().schema;
        assert_eq!(by_path, by_command, "{path:?}");
        assert_eq!(by_command, promised, "{sql}");
        assert_eq!(&promised, sent.as_ref(), "{sql}");
    }
    let error = client.schema_of_table(&["nowhere"]).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error:?}");
    let error = client.flight_info("select nothing from items").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_flights_can_be_read() {
    let (upstream, sidecar) = world().await;
    let mut client = sidecar.flight_client().await;
    let flights = client.inner().list_flights(Criteria::default()).await.unwrap().into_inner();
    let flights: Vec<_> = flights.try_collect().await.unwrap();
    assert!(flights.len() >= 2, "{flights:#?}");
    let expected = upstream.query("select * from items").await;
    for flight in flights {
        let descriptor = flight.flight_descriptor.clone().expect("a descriptor");
        let info = match flight.endpoint.is_empty() {
            true => client.flight_info_of(descriptor).await.unwrap(),
            false => flight,
        };
        let answer = client.fetch(info).await.unwrap();
        assert!((2..=3).contains(&answer.num_rows()), "{}", answer.pretty());
        if answer.num_rows() == 3 {
            assert_same("a listed flight", &answer.batches, &expected, Order::Any);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_write_are_refused() {
    let (_upstream, sidecar) = world().await;
    let mut client: Client = sidecar.flight_client().await;
    let error = client.inner().do_put(stream::iter([FlightData::default()])).await.unwrap_err();
    assert!([Code::Unimplemented, Code::InvalidArgument, Code::PermissionDenied].contains(&error.code()));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text() {
    let (_upstream, sidecar) = world().await;
    sidecar.sql("select count(*) from items").await;
    let text = sidecar.metrics().await;
    assert!(text.lines().any(|line| line.starts_with("# TYPE ")), "{text}");
    let received = text.lines().find(|line| line.starts_with("upstream_received_bytes{endpoint=\"http://"));
    let bytes = received.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    // One row of a count, its schema and both headers.
    assert!(bytes.is_some_and(|bytes| (100..10_000).contains(&bytes)), "{text}");
}
