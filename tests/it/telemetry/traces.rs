//! One trace id through application, sidecar and upstream: over every front end, in every tier, and of refreshes.

use std::collections::BTreeSet;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightDescriptor, Ticket};
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::{SPAN, TRACE, items, sql_with, traceparent};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Method, Upstream};

const HISTORY: &str = "SELECT task, span_id, parent_span_id, input, error_message, labels['method'] AS method, \
                       labels['rows'] AS rows, labels['bytes'] AS bytes, labels['protocol'] AS protocol \
                       FROM runtime.task_history WHERE trace_id = '";

/// The tasks of a trace, once there are so many; they end a moment after the answer.
async fn tasks(sidecar: &Sidecar, trace: &str, least: usize) -> Vec<Value> {
    let sql = format!("{HISTORY}{trace}' ORDER BY start_time, end_time DESC");
    let found = async || sidecar.sql(&sql).await.as_array().unwrap().clone();
    sidecar.wait_until("the tasks of the trace", async || found().await.len() >= least).await;
    found().await
}

/// Trace and span of what an upstream was told, by method.
fn told(upstream: &Upstream) -> Vec<(Method, String, String)> {
    let calls = upstream.received().into_iter().filter(|call| call.method != Method::Handshake);
    let read = |header: &str| {
        let parts: Vec<&str> = header.split('-').collect();
        (parts[1].to_owned(), parts[2].to_owned())
    };
    calls
        .filter_map(|call| {
            let (trace, span) = read(call.metadata.get("traceparent")?);
            Some((call.method, trace, span))
        })
        .collect()
}

async fn world() -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], "")).start().await;
    sidecar.wait_ready().await;
    upstream.clear();
    (upstream, sidecar)
}

/// Whether the upstream was told of the caller's trace, and the history has it from the caller down to the call.
async fn check(upstream: &Upstream, sidecar: &Sidecar, protocol: &str) {
    let tasks = tasks(sidecar, TRACE, 2).await;
    let of = |kind: &str| tasks.iter().filter(|task| task["task"] == kind).cloned().collect::<Vec<_>>();
    let (queries, calls) = (of("sql_query"), of("flight_request"));
    let [query] = &queries[..] else { panic!("{tasks:#?}") };
    assert_eq!((&query["parent_span_id"], &query["protocol"]), (&json!(SPAN), &json!(protocol)));
    let call = calls.iter().find(|call| call["method"] == "DoGet").unwrap();
    assert_eq!((&call["parent_span_id"], &call["rows"]), (&query["span_id"], &json!("10")), "{tasks:#?}");
    assert!(call["bytes"].as_str().unwrap().parse::<u64>().unwrap() > 100);
    let told = told(upstream);
    assert!(told.iter().all(|(_, trace, _)| trace == TRACE), "{told:?}");
    let gets: Vec<&String> = told.iter().filter(|told| told.0 == Method::DoGet).map(|told| &told.2).collect();
    assert_eq!(gets, [call["span_id"].as_str().unwrap()]);
    let calls = upstream.received();
    let get = calls.iter().find(|call| call.method == Method::DoGet).unwrap();
    assert_eq!(get.metadata.get("tracestate").map(String::as_str), Some("vendor=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_http_to_the_upstream() {
    let (upstream, sidecar) = world().await;
    sql_with(&sidecar, "SELECT * FROM items", &[("traceparent", &traceparent()), ("tracestate", "vendor=1")])
        .await;
    check(&upstream, &sidecar, "http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_flight_to_the_upstream() {
    fn traced<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("traceparent", traceparent().parse().unwrap());
        request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
        request
    }
    let (upstream, sidecar) = world().await;
    let url = format!("http://{}", sidecar.flight_addr());
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = FlightServiceClient::new(channel);
    let info =
        client.get_flight_info(traced(FlightDescriptor::new_cmd("SELECT * FROM items"))).await.unwrap();
    let ticket: Ticket = info.into_inner().endpoint[0].ticket.clone().unwrap();
    let messages = client.do_get(traced(ticket)).await.unwrap().into_inner();
    let _: Vec<_> = messages.try_collect().await.unwrap();
    check(&upstream, &sidecar, "flight").await;
    // GetFlightInfo asked the upstream too, on the caller's own behalf.
    let tasks = tasks(&sidecar, TRACE, 3).await;
    let plans = tasks.iter().filter(|task| task["method"] == "GetFlightInfo");
    assert!(
        plans.clone().count() > 0 && plans.clone().all(|task| task["parent_span_id"] == SPAN),
        "{tasks:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_an_agent_to_the_upstream() {
    let (upstream, sidecar) = world().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "sql", "arguments": {"query": "SELECT * FROM items"},
            "_meta": {
                "traceparent": traceparent(), "tracestate": "vendor=1",
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let answer = client
        .post(format!("http://{}/v1/mcp", sidecar.http_addr()))
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "sql")
        .body(call.to_string());
    let answer = answer.send().await.unwrap().text().await.unwrap();
    assert!(answer.contains("item 9"), "{answer}");
    check(&upstream, &sidecar, "mcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_none_begins_a_trace() {
    let (upstream, sidecar) = world().await;
    sql_with(&sidecar, "SELECT * FROM items", &[("traceparent", "nonsense")]).await;
    let told = told(&upstream);
    let traces: BTreeSet<&String> = told.iter().map(|(_, trace, _)| trace).collect();
    assert_eq!(traces.len(), 1, "{told:?}");
    let trace = traces.first().unwrap();
    assert!(trace.len() == 32 && *trace != TRACE);
    assert_eq!(tasks(&sidecar, trace, 2).await[0]["parent_span_id"], Value::Null);
}

/// Partitions of a plan run in tasks of their own, retries make further requests, and a failure is told.
#[tokio::test(flavor = "multi_thread")]
async fn all_scans_of_a_join_hang_on_its_query() {
    let left = Upstream::builder().table("items", items()).start().await;
    let right = Upstream::builder().table("others", items()).start().await;
    let datasets = [Dataset::of("items", &left), Dataset::of("others", &right)];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    left.clear();
    right.clear();
    let sql = "SELECT i.name FROM items i JOIN others o ON i.id = o.id WHERE o.id > 2";
    sql_with(&sidecar, sql, &[("traceparent", &traceparent())]).await;
    let tasks = tasks(&sidecar, TRACE, 3).await;
    let spans: BTreeSet<&str> = tasks.iter().filter_map(|task| task["span_id"].as_str()).collect();
    for upstream in [&left, &right] {
        let told = told(upstream);
        let asked: Vec<_> = told.iter().filter(|(method, ..)| *method == Method::DoGet).collect();
        assert!(!asked.is_empty(), "{told:?}");
        assert!(
            asked.iter().all(|(_, trace, span)| trace == TRACE && spans.contains(span.as_str())),
            "{told:?}\n{tasks:#?}"
        );
        assert_eq!(
            told.len(),
            upstream.received().iter().filter(|call| call.method != Method::Handshake).count()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_a_task_with_its_calls() {
    let upstream = Upstream::builder().table("kept", items()).start().await;
    let kept =
        Dataset::of("kept", &upstream).accelerated("refresh_mode: full, refresh_sql: 'SELECT * FROM kept'");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[kept], "")).start().await;
    sidecar.wait_ready().await;
    let sql = "SELECT c.trace_id, c.span_id, r.input, r.labels['task_alias'] AS alias, r.labels['sql'] AS sql, \
               r.labels['mode'] AS mode, c.labels['rows'] AS rows FROM runtime.task_history r JOIN runtime.task_history c \
               ON c.parent_span_id = r.span_id WHERE r.task = 'accelerated_refresh' AND c.labels['method'] = 'DoGet'";
    sidecar.wait_until("the refresh is told", async || sidecar.sql(sql).await != json!([])).await;
    let rows = sidecar.sql(sql).await;
    let row = &rows[0];
    assert_eq!(
        (&row["input"], &row["alias"], &row["sql"], &row["mode"], &row["rows"]),
        (
            &json!("kept"),
            &json!("accelerated_table_refresh"),
            &json!("SELECT * FROM kept"),
            &json!("full"),
            &json!("10")
        )
    );
    let expected =
        (row["trace_id"].as_str().unwrap().to_owned(), row["span_id"].as_str().unwrap().to_owned());
    let told = told(&upstream);
    assert!(told.iter().any(|(_, trace, span)| (trace, span) == (&expected.0, &expected.1)), "{told:?}");
}
