//! Crowds: many clients at once, clients that say nothing, clients that read slowly. The others notice nothing.
//!
//! How fast all this is stands in `bench/crowd.rs`; here everybody is answered, and memory is bounded.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::Ticket;
use futures::StreamExt;
use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::client::{Client, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

const MIB: usize = 1 << 20;
/// Beyond what a test waits.
const LATE: Duration = Duration::from_secs(60);
/// The start of HTTP/2: the preface and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const COUNT: &str = "select count(*) as n from items";

fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let texts = (0..10_000).map(|n| format!("{n:0>100}"));
    batch([("id", ids), ("text", Arc::new(StringArray::from_iter_values(texts)))])
}

/// `items` is kept here, `remote` is not.
async fn world(runtime: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let datasets =
        [Dataset::of("items", &upstream).accelerated(""), Dataset::of("remote", &upstream).table("items")];
    let pod = spicepod(&datasets, &format!("runtime:\n{runtime}"));
    let sidecar = Sidecar::builder().spicepod(&pod).start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

async fn say(address: &str, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words).await.unwrap();
    stream
}

async fn assert_answers(sidecar: &Sidecar) {
    assert_eq!(sidecar.sql(COUNT).await, json!([{"n": 10_000}]));
    let rows = sidecar.flight_client().await.query(COUNT).await.unwrap();
    assert_eq!(rows.num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_kept_and_cost_little() {
    const CONNECTIONS: usize = 5_000;
    let (_upstream, sidecar) = world("  {}\n").await;
    assert_answers(&sidecar).await;
    let before = sidecar.memory();
    let mut idle = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS / 250 {
        let some = join_all((0..250).map(|_| async {
            let mut stream = say(sidecar.flight_addr(), HTTP2).await;
            // The header of the server's SETTINGS: it has accepted, and speaks HTTP/2.
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.unwrap();
            assert_eq!(header[3], 4);
            stream
        }));
        idle.extend(tokio::time::timeout(LATE, some).await.expect("accepted"));
    }
    assert_answers(&sidecar).await;
    let each = sidecar.memory().saturating_sub(before) / CONNECTIONS;
    eprintln!("{CONNECTIONS} idle connections: {:.1} KiB each", each as f64 / 1024.0);
    // A debug build's; a release build has its own bound in the bench.
    assert!(each < 40 << 10, "{each} bytes each");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_say_what_it_wants_is_let_go() {
    let (_upstream, sidecar) = world("  {}\n").await;
    let openings: [(&str, &[u8]); 5] = [
        (sidecar.http_addr(), b"POST /v1/sql HTTP/1.1\r\nhost: x\r\ncontent-le"),
        (sidecar.http_addr(), b"P"),
        (sidecar.http_addr(), &HTTP2[..20]),
        (sidecar.flight_addr(), &HTTP2[..20]),
        (sidecar.flight_addr(), b""),
    ];
    let connections = (0..1_000).map(|n| openings[n % openings.len()]);
    let mut slow = join_all(connections.map(|(address, words)| say(address, words))).await;
    assert_answers(&sidecar).await;
    let ends = slow.iter_mut().map(|stream| async {
        let mut rest = Vec::new();
        // What is said before the end, if anything, is an error; a reset is an end too.
        let _ = stream.read_to_end(&mut rest).await;
    });
    tokio::time::timeout(LATE, join_all(ends)).await.expect("all of them are let go");
    assert_answers(&sidecar).await;
}

/// Reads a little of a very large answer, then nothing for a while, then a little more.
async fn assert_a_slow_reader_costs_little(sidecar: &Sidecar, sql: &str) {
    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut flight: Client = sidecar.flight_client().await;
    assert_answers(sidecar).await;
    let before = sidecar.memory();

    let mut http = client.post(url).body(sql.to_owned()).send().await.unwrap();
    let mut messages = flight.inner().do_get(Ticket::new(sql.to_owned())).await.unwrap().into_inner();
    let mut most = 0;
    for _ in 0..8 {
        assert!(http.chunk().await.unwrap().is_some());
        messages.next().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(sidecar.memory().saturating_sub(before));
    }
    eprintln!("two slow readers: {:.1} MiB at most", most as f64 / MIB as f64);
    assert!(most < 64 * MIB, "{most} bytes more for two slow readers of\n{sql}");
    assert_answers(sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_a_large_answer_costs_little() {
    // Ten gigabytes of text, of rows that are here.
    let (_upstream, sidecar) = world("  {}\n").await;
    assert_a_slow_reader_costs_little(&sidecar, "select a.id, b.text from items a cross join items b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_an_upstreams_answer_costs_little() {
    let (_upstream, sidecar) = world("  {}\n").await;
    assert_a_slow_reader_costs_little(&sidecar, "select a.id, b.text from remote a cross join remote b")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_gives_its_turn_back() {
    let (_upstream, sidecar) =
        world("  query: {max_concurrent_queries: 1}\n  params: {query_client_timeout: 1s}\n").await;
    let mut flight = sidecar.flight_client().await;
    let sql = "select a.id, b.text from items a cross join items b";
    let mut messages = flight.inner().do_get(Ticket::new(sql)).await.unwrap().into_inner();
    messages.next().await.unwrap().unwrap();
    // The only turn is taken; this one waits for it.
    assert_eq!(sidecar.sql(COUNT).await, json!([{"n": 10_000}]));
    let end = loop {
        if let Err(status) = messages.next().await.expect("an end in words") {
            break status;
        }
    };
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end}");
    assert!(end.message().contains("query_client_timeout"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_burst_everybody_is_answered_or_refused() {
    const EACH: usize = 500;
    let (_upstream, sidecar) = world("  params: {query_queue_max: 300}\n").await;
    let url = format!("http://{}/v1/sql", sidecar.http_addr());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let http = async |sql: &str| {
        let answer = client.post(&url).header("accept", "application/json").body(sql.to_owned());
        let answer = answer.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        match status {
            200 => assert_eq!(text, r#"[{"n":10000}]"#),
            429 => assert!(text.contains("TooManyQueries"), "{text}"),
            _ => panic!("{status}: {text}"),
        }
        status == 200
    };
    let flight = async |client: &mut Client, sql: String| match client.inner().do_get(Ticket::new(sql)).await
    {
        Ok(messages) => {
            assert!(messages.into_inner().all(async |message| message.is_ok()).await);
            true
        }
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            false
        }
    };
    let before = sidecar.memory();
    let mut answered = Vec::new();
    for round in 0..2 {
        // Distinct texts: nobody is answered by another's run.
        let sql = |n: usize| format!("select count(*) as n from items where id > -1 - {round} - {n}");
        let texts: Vec<String> = (0..EACH).map(sql).collect();
        let mut clients = join_all((0..EACH).map(|_| sidecar.flight_client())).await;
        let over_http = join_all(texts.iter().map(|text| http(text)));
        let over_flight = join_all(
            clients.iter_mut().zip(&texts).map(|(client, text)| flight(client, text.replace("-1", "-2"))),
        );
        let (over_http, over_flight) = tokio::join!(over_http, over_flight);
        answered.push(over_http.iter().chain(&over_flight).filter(|answered| **answered).count());
        assert_answers(&sidecar).await;
    }
    let grown = sidecar.memory().saturating_sub(before);
    eprintln!("of {} queries {answered:?} were answered, {} MiB more", EACH * 2, grown / MIB);
    assert!(answered.iter().all(|answered| *answered >= 300), "{answered:?}");
    assert!(grown < 256 * MIB, "{grown} bytes more");
}
