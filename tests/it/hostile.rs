//! Requests that no client sends by accident: too deep, too long, too many. Each gets an answer or a refusal, on every
//! front end, and the process lives.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, Ticket};
use futures::StreamExt;
use serde_json::json;
use sidewing::task::Scope;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;

async fn world() -> (Upstream, Sidecar) {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let upstream = Upstream::builder().table("t", batch([("id", ids)])).start().await;
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::of("t", &upstream)], "")).start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

/// Statements that are too much for somebody, each with a name.
fn statements() -> Vec<(&'static str, String)> {
    let nested = |n: usize| format!("{}SELECT id FROM t{}", "SELECT id FROM (".repeat(n), ") AS x".repeat(n));
    let within =
        |n: usize| format!("SELECT id FROM t{}{}", " WHERE id IN (SELECT id FROM t".repeat(n), ")".repeat(n));
    vec![
        ("20,000 terms", format!("SELECT id FROM t WHERE id = 0{}", " OR id = 1".repeat(20_000))),
        ("20,000 sums", format!("SELECT 1{}", " + 1".repeat(20_000))),
        ("20,000 columns", format!("SELECT 1{}", ", 1".repeat(20_000))),
        ("a list of 20,000", format!("SELECT id FROM t WHERE id IN (0{})", ", 1".repeat(20_000))),
        ("50 nested subqueries", nested(50)),
        ("500 nested subqueries", nested(500)),
        ("50 subqueries in conditions", within(50)),
        ("500 subqueries in conditions", within(500)),
        ("500 unions", format!("SELECT id FROM t{}", " UNION SELECT id FROM t".repeat(500))),
        ("300 joins", format!("SELECT a.id FROM t a{}", " JOIN t b USING (id)".repeat(300))),
        ("an identifier of 1 MB", format!("SELECT {} FROM t", "a".repeat(MIB))),
        ("a quoted identifier of 1 MB", format!("SELECT \"{}\" FROM t", "a".repeat(MIB))),
        ("a table of 1 MB", format!("SELECT 1 FROM {}", "a".repeat(MIB))),
        ("a text of 1 MB", format!("SELECT '{}' AS a", "a".repeat(MIB))),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000))),
        ("brackets", format!("SELECT {}1{}", "[".repeat(50_000), "]".repeat(50_000))),
        ("minus", format!("SELECT {}1", "- ".repeat(50_000))),
        ("CASE", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(5_000), " END".repeat(5_000))),
        ("functions", format!("SELECT {}1{}", "abs(".repeat(5_000), ")".repeat(5_000))),
        ("casts", format!("SELECT {}1{}", "CAST(".repeat(5_000), " AS INT)".repeat(5_000))),
        (
            "WITH",
            format!("WITH a0 AS (SELECT 1 AS n){} SELECT n FROM a400", {
                (1..=400).map(|n| format!(", a{n} AS (SELECT n FROM a{})", n - 1)).collect::<String>()
            }),
        ),
        ("comments", format!("SELECT {}1", "/*".repeat(50_000))),
        ("nothing but spaces", " ".repeat(MIB)),
        ("20,000 statements", "SELECT 1;".repeat(20_000)),
        ("a NUL", "SELECT '\0' AS a".to_owned()),
        ("types", format!("SELECT arrow_cast(NULL, '{}Int8{}')", "List(".repeat(5_000), ")".repeat(5_000))),
        ("placeholders", format!("SELECT $1{}", ", $2".repeat(20_000))),
    ]
}

async fn assert_lives(sidecar: &Sidecar, after: &str) {
    assert_eq!(sidecar.sql("SELECT count(*) AS n FROM t").await, json!([{"n": 3}]), "after {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_ends_the_process_over_http() {
    let (_upstream, sidecar) = world().await;
    for (name, sql) in statements() {
        let answer = sidecar.sql_as(&sql, "application/json").await;
        assert!([200, 400].contains(&answer.status), "{name}: {} {:.300}", answer.status, answer.body);
        assert_lives(&sidecar, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_ends_the_process_over_flight() {
    let (_upstream, sidecar) = world().await;
    let mut client = sidecar.flight_client().await;
    let refusals = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::Unimplemented,
        // Above the size of a message.
        Code::ResourceExhausted,
        Code::OutOfRange,
    ];
    for (name, sql) in statements() {
        let descriptor = FlightDescriptor::new_cmd(sql.clone());
        if let Err(status) = client.inner().get_flight_info(descriptor).await {
            assert!(refusals.contains(&status.code()), "{name}: {:.300}", status.to_string());
        }
        match client.inner().do_get(Ticket::new(sql)).await {
            Ok(messages) => {
                let messages: Vec<_> = messages.into_inner().collect().await;
                assert!(messages.iter().all(Result::is_ok), "{name}");
            }
            Err(status) => assert!(refusals.contains(&status.code()), "{name}: {:.300}", status.to_string()),
        }
        assert_lives(&sidecar, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_ends_the_process_when_it_is_prepared() {
    let (_upstream, sidecar) = world().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", sidecar.flight_addr())).unwrap();
    let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());
    for (name, sql) in statements() {
        if let Ok(mut prepared) = client.prepare(sql, None).await {
            // What was accepted can be asked, or is refused in words.
            let _ = prepared.execute().await;
            let _ = prepared.close().await;
        }
        assert_lives(&sidecar, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_json_ends_the_process() {
    let (_upstream, sidecar) = world().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let bodies = [
        deep("[", "]", 100_000),
        deep("{\"a\":", "}", 100_000),
        format!("{{\"sql\": \"SELECT $1\", \"parameters\": [{}]}}", deep("[", "]", 100_000)),
        format!("{{\"sql\": \"SELECT $1\", \"parameters\": [{}]}}", deep("[", "]", 100)),
        format!("{{\"sql\": \"SELECT 1\", \"parameters\": [1{}]}}", ", 1".repeat(500_000)),
        format!("{{\"sql\": \"SELECT $1 AS a\", \"parameters\": [{}]}}", "9".repeat(MIB)),
        format!("{{\"{}\": 1}}", "k".repeat(MIB)),
        "{\"sql\": \"SELECT 1\", ".repeat(50_000),
    ];
    for path in ["/v1/sql", "/v1/mcp", "/v1/datasets/t/acceleration/refresh"] {
        for body in &bodies {
            let answer = client
                .post(format!("http://{}{path}", sidecar.http_addr()))
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .body(body.clone());
            match answer.send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let said = answer.text().await.unwrap_or_default();
                    assert!((200..500).contains(&status), "{path}: {status} {said:.300} for {body:.60}");
                }
                // It was refused before it was read, and the connection closed.
                Err(error) => assert!(body.len() > 128 << 10, "{path}: {error:?} for {body:.60}"),
            }
        }
        assert_lives(&sidecar, path).await;
    }
}

/// A hundred joins take seconds to plan.
#[tokio::test(flavor = "multi_thread")]
async fn while_long_statements_are_planned_others_are_answered_and_signals_heard() {
    let (_upstream, sidecar) = world().await;
    let joins: String = (0..120).map(|n| format!(" JOIN t t{n} ON t{n}.id = a.id")).collect();
    let joins = format!("SELECT a.id FROM t a{joins}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}", sidecar.http_addr());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let planned = (0..cores + 1).map(|_| client.post(format!("{url}/v1/sql")).body(joins.clone()).send());
    let (planning, planned) = (Scope::new(), futures::future::join_all(planned));
    planning.spawn("long statements", async move {
        planned.await;
    });
    while !sidecar.http("/v1/sql/active").await.body.contains("JOIN") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_lives(&sidecar, "or rather during planning").await;
    let active = sidecar.http("/v1/sql/active").await.body;
    assert!(active.contains("JOIN"), "planning ended before anything was shown: {active}");
    sidecar.signal();
    // Two signals at once are one.
    while !sidecar.stderr().contains("a second signal ends at once") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.signal();
    let (code, said) = tokio::time::timeout(Duration::from_secs(5), sidecar.end())
        .await
        .map(|end| (end.code, end.stderr))
        .unwrap();
    assert_eq!(code, Some(1), "{said}");
    planning.cancel();
}
