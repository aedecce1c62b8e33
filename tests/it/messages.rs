//! Message sizes: a large upstream message under the default limit, with a raised limit, and on its way to
//! a downstream client with a small limit of its own.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringViewArray};
use tonic::Code;

use crate::support::client::{Order, assert_same, batch};
use crate::support::sidecar::{Builder, Sidecar};
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

/// 24,000 rows of 1,000 bytes: 24 MB.
const ROWS: usize = 24_000;
const TEXT_BYTES: usize = 1_000;

const ALL: &str = "select id, text from wide";

fn wide() -> Vec<RecordBatch> {
    let text = |row: usize| format!("{row:0>TEXT_BYTES$}");
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    batch([("id", ids), ("text", Arc::new(StringArray::from_iter_values((0..ROWS).map(text))))])
}

async fn upstream() -> Upstream {
    Upstream::builder().table("wide", wide()).whole_messages().start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_default_limit_names_the_param_the_size_and_the_fix() {
    let upstream = upstream().await;
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[Dataset::of("wide", &upstream)], ""));
    let sidecar = sidecar.start().await;
    sidecar.wait_ready().await;
    let answer = sidecar.sql_as(ALL, "application/json").await;
    assert!((500..=504).contains(&answer.status), "{} {}", answer.status, answer.body);
    assert_names_the_limit(&answer.body);
    let error = sidecar.flight_client().await.query(ALL).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert_names_the_limit(error.message());
    // Small answers of the same dataset are not harmed.
    sidecar.sql("select count(*) from wide").await;
}

fn assert_names_the_limit(message: &str) {
    for word in ["max_message_size", "wide", "4"] {
        assert!(message.contains(word), "{word} in: {message}");
    }
    // The size met: 24 and some MB, in bytes or in megabytes.
    let numbers =
        message.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|n| n.parse::<f64>().ok());
    let mut sizes = numbers.filter(|n| (22.0..27.0).contains(n) || (22e6..27e6).contains(n));
    assert!(sizes.next().is_some(), "the size in: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_raised_limit_it_arrives_and_fits_a_small_client() {
    let upstream = upstream().await;
    let plain = || Dataset::of("wide", &upstream);
    let cases: [(&str, Builder); 3] = [
        (
            "dataset param",
            Sidecar::builder().spicepod(&spicepod(&[plain().param("max_message_size", "64MB")], "")),
        ),
        (
            "runtime",
            Sidecar::builder()
                .spicepod(&spicepod(&[plain()], "runtime:\n  flight:\n    max_message_size: 64MB\n")),
        ),
        (
            "environment",
            Sidecar::builder().spicepod(&spicepod(&[plain()], "")).env("SIDEWING_MAX_MESSAGE_SIZE", "64MB"),
        ),
    ];
    for (case, builder) in cases {
        let sidecar = builder.start().await;
        sidecar.wait_ready().await;
        // The client takes messages of 4 MiB at most.
        let answer =
            sidecar.flight_client().await.query(ALL).await.unwrap_or_else(|e| panic!("{case}: {e:?}"));
        assert_same(case, &answer.batches, &wide(), Order::Kept);
        let csv = sidecar.sql_as(ALL, "text/csv").await;
        assert_eq!(csv.body.lines().count(), ROWS + 1, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets_of_one_channel_keep_their_own_limits() {
    let upstream = upstream().await;
    let datasets = [
        Dataset::of("roomy", &upstream).table("wide").param("max_message_size", "64MB"),
        Dataset::of("wide", &upstream),
    ];
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    assert_eq!(client.query("select * from roomy").await.unwrap().num_rows(), ROWS);
    assert_names_the_limit(client.query("select * from wide").await.unwrap_err().message());
}

#[tokio::test(flavor = "multi_thread")]
async fn downstream_messages_stay_small_and_views_do_not_swell() {
    let text = |row: usize| format!("{row:0>40}");
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..200_000).map(text)));
    let upstream = Upstream::builder().table("views", batch([("v", views)])).start().await;
    let dataset = Dataset::of("views", &upstream).param("max_message_size", "64MB");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).start().await;
    sidecar.wait_ready().await;
    let sizes = message_sizes(&sidecar, "select v from views").await;
    let largest = sizes.iter().max().copied().unwrap_or_default();
    assert!(largest < 2 << 20, "a message of {largest} bytes");
    // Utf8: 40 bytes of text and 4 of offset a row.
    let (total, utf8) = (sizes.iter().sum::<usize>(), 200_000 * 44);
    assert!(total * 4 <= utf8 * 5, "{total} bytes on the wire, {utf8} as utf8");
}

/// Header and body bytes of every message of an answer.
async fn message_sizes(sidecar: &Sidecar, sql: &str) -> Vec<usize> {
    let mut client = sidecar.flight_client().await;
    let info = client.flight_info(sql).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut messages = client.inner().do_get(ticket).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    while let Some(message) = messages.message().await.unwrap() {
        sizes.push(message.data_header.len() + message.data_body.len());
    }
    sizes
}
