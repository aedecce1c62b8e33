//! The official MCP SDK for Python, in both eras of the protocol, over HTTP and standard streams.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::{HttpAnswer, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const ROWS: i64 = 1_500;
const KEY: &str = "an-agents-key";

fn items() -> Vec<RecordBatch> {
    let names: StringArray = (0..ROWS).map(|id| Some(format!("item {id}"))).collect();
    let prices = Decimal128Array::from_iter_values((0..ROWS).map(|_| 12_345_678_901_234_567_890_123_456_789));
    let prices = prices.with_precision_and_scale(38, 4).unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    batch([("id", ids), ("name", Arc::new(names)), ("price", Arc::new(prices))])
}

fn pod(upstream: &Upstream, rest: &str) -> String {
    let items = Dataset::of("items", upstream).field("description: What can be ordered.");
    spicepod(&[items], rest)
}

async fn upstream() -> Upstream {
    Upstream::builder().table("items", items()).start().await
}

async fn sidecar(upstream: &Upstream) -> Sidecar {
    let sidecar = Sidecar::builder().spicepod(&pod(upstream, "")).start().await;
    sidecar.wait_ready().await;
    sidecar
}

fn url(sidecar: &Sidecar) -> String {
    format!("http://{}/v1/mcp", sidecar.http_addr())
}

/// What every agent must have seen, whatever it spoke.
fn check(saw: &Value) {
    assert_eq!(saw["server"], "sidewing");
    assert!(saw["instructions"].as_str().is_some_and(|text| text.contains("There is items.")), "{saw}");
    let tools = ["sql", "list_datasets", "table_schema", "sample_data", "get_readiness"];
    assert_eq!(
        saw["tools"],
        Value::Object(tools.map(|tool| (tool.to_owned(), json!(true))).into_iter().collect())
    );
    assert_eq!(saw["resources"], json!(["sidewing://dataset/items"]));
    assert_eq!(saw["templates"], json!(["sidewing://dataset/{name}"]));
    assert_eq!(saw["resource"]["description"], "What can be ordered.", "{saw}");
    assert_eq!(saw["resource"]["columns"][0]["name"], "id", "{saw}");
    check_rows(saw);
    check_tables(saw);
}

fn check_rows(saw: &Value) {
    let rows = json!([{ "id": 0, "name": "item 0" }, { "id": 1, "name": "item 1" }]);
    assert_eq!(saw["sql"]["structured"]["rows"], rows, "{}", saw["sql"]);
    let text = saw["digits"]["text"].as_str().unwrap_or_default();
    assert!(text.contains(r#""price":1234567890123456789012345.6789"#), "{text}");
    assert_eq!(saw["cut"]["structured"]["row_count"], 1_000);
    let note = saw["cut"]["structured"]["note"].as_str().unwrap_or_default();
    assert!(note.starts_with("these are the first 1000 rows, there are more"), "{note}");
    assert_eq!(saw["limited"]["structured"]["row_count"], 3);
    for (call, code) in [("unknown", "TableNotFound: "), ("write", "ReadOnly: ")] {
        let failed = &saw[call];
        assert_eq!(failed["is_error"], true, "{failed}");
        assert!(failed["text"].as_str().is_some_and(|text| text.starts_with(code)), "{failed}");
    }
}

fn check_tables(saw: &Value) {
    let dataset = &saw["datasets"]["structured"]["datasets"][0];
    assert_eq!((&dataset["name"], &dataset["kind"]), (&json!("items"), &json!("dataset")));
    let columns = &saw["schema"]["structured"]["tables"][0]["columns"];
    assert_eq!((&columns[2]["name"], &columns[2]["type"]), (&json!("price"), &json!("Decimal128(38, 4)")));
    assert_eq!(saw["sample"]["structured"]["row_count"], 10);
    assert_eq!(saw["ready"]["structured"]["ready"], true, "{}", saw["ready"]);
    assert_eq!(saw["ready"]["text"], "[+] items ok\nready\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_both_eras_use_every_tool() {
    let Some(python) = tools::python() else { return };
    let upstream = upstream().await;
    let sidecar = sidecar(&upstream).await;
    for (mode, version) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        let saw = tools::script(&python, "mcp/agent.py", &[mode, &url(&sidecar)]).await;
        assert_eq!(saw["version"], version, "{saw}");
        check(&saw);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn desktop_agents_start_it_themselves() {
    let Some(python) = tools::python() else { return };
    let upstream = upstream().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spicepod.yaml"), pod(&upstream, "")).unwrap();
    let path = dir.path().to_str().unwrap();
    for mode in ["legacy", "auto"] {
        let command = ["--", env!("CARGO_BIN_EXE_sidewing"), "mcp", path];
        let saw = tools::script(&python, "mcp/agent.py", &[&[mode], &command[..]].concat()).await;
        check(&saw);
    }
}

/// Gives up a query that the upstream never answers.
async fn give_up(python: &Path, mode: &str) {
    let upstream = upstream().await;
    let sidecar = sidecar(&upstream).await;
    upstream.inject(Method::DoGet, 1, Fault::Hang);
    let sql = "SELECT count(*) FROM items";
    let url = url(&sidecar);
    let args = [mode, &url, sql];
    let script = tools::script(python, "mcp/give_up.py", &args);
    let mut is_under_way = false;
    let watch = async {
        // While the agent still waits, and then after it gave up, its connection open.
        sidecar.wait_until("the upstream is asked", async || upstream.open(Method::DoGet) == 1).await;
        is_under_way = true;
        sidecar.wait_until("the upstream is asked no more", async || upstream.open(Method::DoGet) == 0).await;
    };
    let (saw, ()) = tokio::join!(script, watch);
    assert_eq!((saw, is_under_way), (json!({ "gave_up": true, "tools": 5 }), true), "{mode}");
    assert!(sidecar.metrics().await.contains("query_active_count{protocol=\"mcp\"} 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_ends_upstream() {
    let Some(python) = tools::python() else { return };
    for mode in ["legacy", "auto"] {
        give_up(&python, mode).await;
    }
}

/// POST of `tools/list` with these headers; without a session it goes no further than 400.
async fn post(sidecar: &Sidecar, headers: &[(&str, &str)]) -> HttpAnswer {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client
        .post(url(sidecar))
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    HttpAnswer::of(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_names_of_elsewhere_are_refused() {
    let upstream = upstream().await;
    let rest = "runtime:\n  mcp: {allowed_hosts: [sidewing.pod]}\n  \
                cors: {enabled: true, allowed_origins: ['https://app.example']}\n";
    let sidecar = Sidecar::builder().spicepod(&pod(&upstream, rest)).start().await;
    let own = format!("http://{}", sidecar.http_addr());
    for (headers, status) in [
        (vec![], 400),
        (vec![("host", "sidewing.pod")], 400),
        (vec![("origin", &*own)], 400),
        (vec![("origin", "https://app.example")], 400),
        (vec![("host", "evil.example")], 403),
        (vec![("origin", "https://evil.example")], 403),
        (vec![("mcp-session-id", "nobody's")], 404),
    ] {
        let answer = post(&sidecar, &headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_shows_its_key() {
    let Some(python) = tools::python() else { return };
    let upstream = upstream().await;
    let rest = "runtime:\n  auth: {api-key: {enabled: true, keys: ['${secrets:AGENT_KEY}']}}\n";
    let sidecar = Sidecar::builder().spicepod(&pod(&upstream, rest)).secret("AGENT_KEY", KEY).start().await;
    sidecar.wait_ready().await;
    for mode in ["legacy", "auto"] {
        check(&tools::script(&python, "mcp/agent.py", &[mode, &url(&sidecar), KEY]).await);
    }
    for headers in [&[][..], &[("x-api-key", "another")], &[("authorization", "Bearer ")]] {
        assert_eq!(post(&sidecar, headers).await.status, 401, "{headers:?}");
    }
}

/// The lines of a conversation without a client: each is answered, and the end of the input is the end.
#[tokio::test(flavor = "multi_thread")]
async fn standard_output_holds_nothing_but_the_protocol() {
    let upstream = upstream().await;
    let params = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    let lines = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let talk = Sidecar::builder().spicepod(&pod(&upstream, "")).env("RUST_LOG", "debug").stdin(&input);
    let finished = talk.finish("mcp").await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let said: Vec<Value> = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&Value> = said.iter().map(|message| &message["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2)], "{}", finished.stdout);
    assert!(!finished.stderr.is_empty(), "the log is on standard error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_spicepod_and_a_client_that_speaks_otherwise_are_told() {
    let bad = Sidecar::builder().spicepod("version: v1\nkind: Spicepod\n").finish("mcp").await;
    assert_eq!((bad.code, &*bad.stdout), (Some(2), ""), "{}", bad.stderr);
    let upstream = upstream().await;
    let talk = Sidecar::builder().spicepod(&pod(&upstream, ""));
    let lost = talk.stdin("{\"jsonrpc\":\"2.0\",\"method\":\"hello\"}\n").finish("mcp").await;
    assert_eq!((lost.code, &*lost.stdout), (Some(1), ""), "{}", lost.stderr);
    assert!(lost.stderr.contains("begin with `initialize`"), "{}", lost.stderr);
}
