//! The HTTP front end over real sockets.

mod around;
mod document;
mod forms;
mod fuzz;
mod lists;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::*;

use arrow::datatypes::*;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::acceleration::{Phase, Progress, RefreshFailure, Refreshes, Status};
use crate::query::{DatasetState, QueryError};
use crate::serve::fake::{Fake, answer, http, upstream_error, watched};
use crate::serve::listen::ScopeExecutor;
use crate::upstream::ErrorKind;

fn numbers(rows: std::ops::Range<i64>) -> RecordBatch {
    let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
    RecordBatch::try_from_iter([("n", ints)]).unwrap()
}

async fn post(url: &str, sql: &str, accept: &str) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("{url}/v1/sql")).body(sql.to_owned());
    request.header("accept", accept).header("x-request-id", "r-1").send().await.unwrap()
}

/// One row of values and one of nulls, of every type that answers hold.
fn all_types() -> RecordBatch {
    let strings = StringViewArray::from(vec![Some("vïew \"quoted\""), None]);
    let dictionary: DictionaryArray<Int32Type> = vec![Some("d"), None].into_iter().collect();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let parent = StructArray::from(vec![
        (
            Arc::new(Field::new("x", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("y", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![None, Some("b")])) as ArrayRef,
        ),
    ]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    map.append(false).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("u64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(0.1)]))),
        ("inf", Arc::new(Float32Array::from(vec![Some(f32::INFINITY), None]))),
        (
            "dec",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123_456_789_012_345_678), None])
                    .with_precision_and_scale(38, 4)
                    .unwrap(),
            ),
        ),
        (
            "big",
            Arc::new(
                Decimal256Array::from(vec![Some(i256::from_i128(-5)), None])
                    .with_precision_and_scale(40, 2)
                    .unwrap(),
            ),
        ),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("a,b\n"), None]))),
        ("view", Arc::new(strings)),
        ("dict", Arc::new(dictionary)),
        ("bin", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None]))),
        ("date", Arc::new(Date32Array::from(vec![Some(19_000), None]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_600_000_000_000_001), None]))),
        ("tz", Arc::new(TimestampNanosecondArray::from(vec![Some(1), None]).with_timezone("+02:00"))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(1), None]))),
        (
            "span",
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                Some(IntervalMonthDayNano::new(1, 2, 3_000_000_000)),
                None,
            ])),
        ),
        ("took", Arc::new(DurationMillisecondArray::from(vec![Some(1500), None]))),
        ("list", Arc::new(list)),
        ("obj", Arc::new(parent)),
        ("map", Arc::new(map.finish())),
        ("null", Arc::new(NullArray::new(2))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn all_types_as(accept: &str) -> String {
    let batch = all_types();
    let (url, _scope) = http(Fake::default().answering("all", batch.schema(), vec![batch])).await;
    let response = post(&url, "all", accept).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with(accept));
    assert!(response.headers().contains_key("x-query-id"));
    assert_eq!(response.headers()["x-request-id"], "r-1");
    response.text().await.unwrap()
}

#[tokio::test]
async fn json_of_every_type() {
    let text = all_types_as("application/json").await;
    insta::assert_snapshot!(text.replace(",\"", ",\n\""));
}

#[tokio::test]
async fn csv_of_every_type() {
    insta::assert_snapshot!(all_types_as("text/csv").await);
}

#[tokio::test]
async fn table_of_every_type() {
    insta::assert_snapshot!(all_types_as("text/plain").await);
}

#[tokio::test]
async fn an_empty_answer_has_its_form() {
    let batch = numbers(0..0);
    let (url, _scope) = http(Fake::default().answering("none", batch.schema(), vec![])).await;
    assert_eq!(post(&url, "none", "application/json").await.text().await.unwrap(), "[]");
    assert_eq!(post(&url, "none", "text/csv").await.text().await.unwrap(), "n\n");
    assert_eq!(post(&url, "none", "text/plain").await.text().await.unwrap(), "+---+\n| n |\n+---+\n+---+\n");
}

#[tokio::test]
async fn a_long_table_says_where_it_ends() {
    let batches = (0..3).map(|part| numbers(part * 5000..(part + 1) * 5000)).collect::<Vec<_>>();
    let (url, _scope) = http(Fake::default().table("t", batches)).await;
    let text = post(&url, "select n from t", "text/plain").await.text().await.unwrap();
    assert!(
        text.ends_with("(the first 10000 rows; ask for application/json or text/csv to read all of them)\n")
    );
    let csv = post(&url, "select n from t", "text/csv").await.text().await.unwrap();
    assert_eq!(csv.lines().count(), 15_001);
}

#[tokio::test]
async fn equal_column_names_are_not_merged() {
    let fields = [Field::new("a", DataType::Int64, true), Field::new("a", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_new(schema, vec![Arc::clone(&column), column]).unwrap();
    let (url, _scope) = http(Fake::default().answering("two", batch.schema(), vec![batch])).await;
    let refused = post(&url, "two", "application/json").await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("two columns of the answer are named `a`"));
    assert_eq!(post(&url, "two", "text/csv").await.text().await.unwrap(), "a,a\n1,1\n");
}

#[tokio::test]
async fn a_time_too_far_away_is_refused_in_every_format() {
    let far: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]));
    let batch = RecordBatch::try_from_iter([("when", far)]).unwrap();
    let (url, _scope) = http(Fake::default().answering("far", batch.schema(), vec![batch])).await;
    for accept in ["application/json", "text/csv", "text/plain"] {
        let refused = post(&url, "far", accept).await;
        assert_eq!(refused.status(), 400, "{accept}");
        assert!(refused.text().await.unwrap().contains("column `when` holds a date or time"), "{accept}");
    }
}

fn every_error() -> Vec<QueryError> {
    let text = || "the reason".to_owned();
    let kinds = [
        ErrorKind::Dns,
        ErrorKind::Connect,
        ErrorKind::Tls,
        ErrorKind::Auth,
        ErrorKind::Unavailable,
        ErrorKind::Passing,
        ErrorKind::CircuitOpen,
        ErrorKind::Busy,
        ErrorKind::Timeout,
        ErrorKind::MessageTooLarge { found: Some(5), limit: 4 },
        ErrorKind::Refused,
        ErrorKind::NotFound,
        ErrorKind::Unimplemented,
        ErrorKind::Planning,
        ErrorKind::ResourceExhausted,
        ErrorKind::Cancelled,
        ErrorKind::Protocol,
        ErrorKind::Internal,
    ];
    let mut errors = vec![
        QueryError::Invalid { message: text() },
        QueryError::NotFound { message: text() },
        QueryError::ReadOnly { statement: "DROP TABLE".into() },
        QueryError::NotReady {
            dataset: "orders".into(),
            endpoint: Some("https://core:1".into()),
            reason: text(),
        },
        QueryError::Unsupported { message: text() },
        QueryError::ResourcesExhausted { message: text() },
        QueryError::Spill { message: text() },
        QueryError::QueueFull { running: 8, waiting: 1_000 },
        QueryError::QueueTimeout { seconds: 1.5, setting: "runtime.query.timeout", running: 8 },
        QueryError::Timeout { seconds: 1.5 },
        QueryError::Cancelled,
        QueryError::Internal { message: text() },
    ];
    errors.extend(kinds.into_iter().map(upstream_error));
    errors
}

#[tokio::test]
async fn every_error_has_its_status_and_body() {
    use std::fmt::Write as _;
    let mut told = String::new();
    for error in every_error() {
        let grpc = crate::serve::status::grpc(&error);
        let (url, _scope) = http(Fake::default().failing("bad", error)).await;
        let response = post(&url, "bad", "application/json").await;
        let retry = response.headers().get("retry-after").map_or("", |_| " Retry-After");
        writeln!(told, "{}{retry} {:?}", response.status().as_u16(), grpc.code()).unwrap();
        writeln!(told, "  {}", response.text().await.unwrap()).unwrap();
        let text = post(&url, "bad", "*/*").await.text().await.unwrap();
        assert_eq!(text.trim_end(), grpc.message());
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn requests_are_decoded_strictly() {
    let (url, _scope) = http(Fake::default().table("t", vec![numbers(0..2)])).await;
    let json = async |body: &str| {
        let request = reqwest::Client::new().post(format!("{url}/v1/sql")).body(body.to_owned());
        let response =
            request.header("content-type", "application/json; charset=utf-8").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(json(r#"{"sql":"select n from t"}"#).await, (200, r#"[{"n":0},{"n":1}]"#.into()));
    for bad in [
        r#"{"sql":"select 1","limit":3}"#,
        "{}",
        "[]",
        "select 1",
        r#"{"sql":"x","parameters":3}"#,
        r#"{"sql":" "}"#,
    ] {
        let (status, text) = json(bad).await;
        assert_eq!(status, 400, "{bad}: {text}");
    }
    assert_eq!(json("\u{feff}{\"sql\":\"select n from t\"}").await.0, 200);
    assert_eq!(post(&url, "\u{feff}select n from t", "*/*").await.status(), 200);
    assert_eq!(post(&url, "", "*/*").await.status(), 400);
    assert_eq!(post(&url, "select 1", "image/png").await.status(), 406);
    assert_eq!(post(&url, "select 1", "application/vnd.spiceai.nsql.v1+json").await.status(), 406);
    let many = format!(r#"{{"sql":"x","parameters":[{}0]}}"#, "0,".repeat(super::asked::PARAMETERS_MAX));
    let (status, text) = json(&many).await;
    assert_eq!(status, 400);
    assert!(text.contains("65536 parameters are more than 65535"), "{text}");
    let deep = format!(r#"{{"sql":"x","parameters":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let (status, text) = json(&deep).await;
    assert!(status == 400 && text.contains("recursion limit exceeded"), "{text}");
    assert_eq!(post(&url, &" ".repeat(super::sql::BODY_BYTES_MAX + 1), "*/*").await.status(), 413);
    let client = reqwest::Client::new();
    let lost = client.get(format!("{url}/v2/sql")).send().await.unwrap();
    assert_eq!(lost.status(), 404);
    assert!(lost.text().await.unwrap().contains("POST /v1/sql"));
    let wrong = client.get(format!("{url}/v1/sql")).send().await.unwrap();
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"POST".parse().unwrap()));
}

/// One good batch, then an error.
fn breaking() -> Fake {
    Fake::default().on("break", || {
        let batch = numbers(0..3);
        let late = stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(QueryError::Internal { message: "half way".into() })
        });
        Ok(answer(batch.schema(), stream::iter([Ok(batch)]).chain(late)))
    })
}

#[tokio::test]
async fn a_late_error_breaks_http1_off_without_a_last_chunk() {
    let (url, _scope) = http(breaking()).await;
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"POST /v1/sql HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nbreak").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200 OK") && all.contains(r#"{"n":2}"#), "{all}");
    assert!(!all.contains("\r\n0\r\n"), "{all}");
}

#[tokio::test]
async fn a_late_error_resets_the_http2_stream() {
    let (url, scope) = http(breaking()).await;
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(ScopeExecutor(scope.clone()), TokioIo::new(stream))
            .await
            .unwrap();
    scope.spawn("client", async move {
        let _ = connection.await;
    });
    let request = ::http::Request::post(format!("{url}/v1/sql")).body("break".to_owned()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, ::http::Version::HTTP_2));
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_error_before_the_first_row_is_a_status() {
    let fake = Fake::default().on("break", || {
        let schema = numbers(0..0).schema();
        Ok(answer(schema, stream::iter([Err(upstream_error(ErrorKind::Unavailable))])))
    });
    let (url, _scope) = http(fake).await;
    assert_eq!(post(&url, "break", "text/csv").await.status(), 503);
}

/// An answer that never ends, watched for its drop.
fn endless(token: &CancellationToken) -> Fake {
    let token = token.clone();
    Fake::default().on("endless", move || {
        let batch = numbers(0..1000);
        let schema = batch.schema();
        Ok(watched(answer(schema, stream::repeat_with(move || Ok(batch.clone()))), &token))
    })
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query() {
    let dropped = CancellationToken::new();
    let (url, _scope) = http(endless(&dropped)).await;
    let mut body = post(&url, "endless", "text/csv").await.bytes_stream();
    body.next().await.unwrap().unwrap();
    assert!(!dropped.is_cancelled());
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), dropped.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_a_silent_query_ends_it() {
    let dropped = CancellationToken::new();
    let token = dropped.clone();
    let fake = Fake::default().on("silent", move || {
        let batch = numbers(0..1);
        let schema = batch.schema();
        let items = stream::iter([Ok(batch)]).chain(stream::pending());
        Ok(watched(answer(schema, items), &token))
    });
    let (url, _scope) = http(fake).await;
    let mut body = post(&url, "silent", "text/csv").await.bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), dropped.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_query_back() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let fake = Fake::default().on("endless", move || {
        let (batch, count) = (numbers(0..4096), Arc::clone(&count));
        let schema = batch.schema();
        Ok(answer(
            schema,
            stream::repeat_with(move || {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(batch.clone())
            }),
        ))
    });
    let (url, _scope) = http(fake).await;
    let _unread = post(&url, "endless", "application/json").await;
    let settled = async {
        loop {
            let before = made.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
            if made.load(Ordering::Relaxed) == before {
                return before;
            }
        }
    };
    let batches = tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
    // 45 KB each: what sockets and hyper hold, and no more.
    assert!(batches < 1000, "{batches} batches were made for a client that reads nothing");
}

#[tokio::test]
async fn a_shutdown_lets_answers_finish() {
    let (more, wait) = tokio::sync::watch::channel(false);
    let fake = Fake::default().on("slow", move || {
        let (batch, mut wait) = (numbers(0..1), wait.clone());
        let last = batch.clone();
        let late = stream::once(async move {
            wait.wait_for(|go| *go).await.unwrap();
            Ok(last)
        });
        Ok(answer(batch.schema(), stream::iter([Ok(batch)]).chain(late)))
    });
    let (url, scope) = http(fake).await;
    let response = post(&url, "slow", "text/csv").await;
    scope.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(url.trim_start_matches("http://")).await.is_err());
    more.send(true).unwrap();
    assert_eq!(response.text().await.unwrap(), "n\n0\n0\n");
    assert_eq!(scope.shutdown(Duration::from_secs(5)).await, Ok(()));
}

#[tokio::test]
async fn states_are_told() {
    let mut fake = Fake::default().table("t", vec![numbers(0..1)]).table("u", vec![numbers(0..1)]);
    let (url, _scope) = http(fake.clone()).await;
    let get = async |url: String| {
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get(format!("{url}/health")).await, (200, "ok\n".into()));
    assert_eq!(get(format!("{url}/v1/ready")).await, (200, "ready".into()));
    assert_eq!(
        get(format!("{url}/v1/ready?verbose=true")).await,
        (200, "[+] t ok\n[+] u ok\nready\n".into())
    );
    fake.datasets[0].state = DatasetState::Error {
        reason: Arc::new(upstream_error(ErrorKind::Connect)),
        since: SystemTime::UNIX_EPOCH,
        was_ready: true,
    };
    fake.datasets[1].state = DatasetState::Initializing;
    let (url, _scope) = http(fake).await;
    assert_eq!(get(format!("{url}/health")).await.0, 200);
    let (status, text) = get(format!("{url}/v1/ready")).await;
    assert_eq!(status, 503);
    insta::assert_snapshot!(text, @"
    not ready
    [-] dataset `orders`: upstream https://core:50051: it went wrong (try this)
    [-] u is being loaded
    ");
    let (_, text) = get(format!("{url}/v1/datasets?status=true")).await;
    insta::assert_snapshot!(text, @r#"[{"from":"spice.ai:https://core:1/t","name":"t","replication_enabled":false,"acceleration_enabled":false,"status":"Error","error":{"category":"dataset","type":"transient","code":"UpstreamConnect"},"error_message":"dataset `orders`: upstream https://core:50051: it went wrong (try this)","since":"1970-01-01T00:00:00.000Z"},{"from":"spice.ai:https://core:1/u","name":"u","replication_enabled":false,"acceleration_enabled":false,"status":"Initializing"}]"#);
    let (_, text) = get(format!("{url}/v1/datasets?status=true&format=csv&source=spice.ai")).await;
    insta::assert_snapshot!(text, @"
    from,name,replication_enabled,acceleration_enabled,status,error_message
    spice.ai:https://core:1/t,t,false,false,Error,dataset `orders`: upstream https://core:50051: it went wrong (try this)
    spice.ai:https://core:1/u,u,false,false,Initializing,
    ");
    assert_eq!(get(format!("{url}/v1/datasets?source=postgres")).await, (200, "[]".into()));
    assert_eq!(get(format!("{url}/v1/datasets?format=xml")).await.0, 400);
}

#[tokio::test]
async fn what_is_kept_is_told_with_its_refreshes() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut fake = Fake::default().table("t", vec![numbers(0..1)]).table("u", vec![numbers(0..1)]);
    let failures = vec![RefreshFailure { refresh: 2, reason: "the upstream was away".into() }];
    fake.datasets[0].acceleration = Some(Status {
        phase: Phase::Refreshing,
        reason: Some("the upstream was away".into()),
        rows: 3,
        bytes: 70,
        generation: Some(4),
        last_refresh: Some(at(60)),
        last_refresh_took: Some(Duration::from_millis(1_500)),
        progress: Some(Progress { rows: 2, bytes: 50, elapsed: Duration::from_millis(250) }),
        refreshes: Refreshes { asked: 3, ended: 2, failures },
        ..Status::new(at(61))
    });
    let reason = Arc::new(upstream_error(ErrorKind::Connect));
    let since = SystemTime::now();
    fake.datasets[1].state = DatasetState::Error { reason, since, was_ready: true };
    let (url, _scope) = http(fake).await;
    let text = reqwest::get(format!("{url}/v1/datasets?status=true")).await.unwrap().text().await.unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&told[0]).unwrap());
    let ready = reqwest::get(format!("{url}/v1/ready?verbose=true")).await.unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    let (stale, away) = ("[+] t ok, stale: the upstream was away\n", "[+] u ok, away for ");
    let text = ready.text().await.unwrap();
    assert!(text.starts_with(stale) && text[stale.len()..].starts_with(away), "{text}");
    assert!(
        text.ends_with(
            " s: dataset `orders`: upstream https://core:50051: it went wrong (try this)\nready\n"
        ),
        "{text}"
    );
}

/// Encodes batches as one JSON answer, without a socket.
fn json(batches: &[RecordBatch]) -> String {
    let mut encoder = super::RowWriter::try_new(super::Format::Json, &batches[0].schema()).unwrap();
    let mut text = Vec::new();
    for batch in batches {
        super::RowWriter::chunks(batch).iter().for_each(|chunk| text.extend(encoder.encode(chunk).unwrap()));
    }
    text.extend(encoder.finish().unwrap());
    String::from_utf8(text).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn json_rows_are_the_values(
        rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<u64>>(), any::<Option<String>>(), any::<Option<f64>>(), prop::option::of(prop::collection::vec(any::<i64>(), 0..4))), 1..40),
        decimals in prop::collection::vec(-10i128.pow(37)..10i128.pow(37), 40),
    ) {
        let decimals = &decimals[..rows.len()];
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.4.clone().map(|list| list.into_iter().map(Some).collect::<Vec<_>>())));
        let batch = RecordBatch::try_from_iter_with_nullable::<_, &str>([
            ("i", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()) as ArrayRef, true),
            ("u", Arc::new(rows.iter().map(|row| row.1).collect::<UInt64Array>()), true),
            ("s", Arc::new(rows.iter().map(|row| row.2.clone()).collect::<StringArray>()), true),
            ("f", Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>()), true),
            ("d", Arc::new(Decimal128Array::from_iter_values(decimals.iter().copied()).with_precision_and_scale(38, 0).unwrap()), true),
            ("l", Arc::new(lists), true),
        ]).unwrap();
        let text = json(&[batch.slice(0, 1), batch.slice(1, rows.len() - 1)]);
        let parsed: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(parsed.len(), rows.len());
        for ((row, decimal), parsed) in rows.iter().zip(decimals).zip(&parsed) {
            prop_assert_eq!(parsed["i"].as_i64(), row.0);
            prop_assert_eq!(parsed["u"].as_u64(), row.1);
            prop_assert_eq!(parsed["s"].as_str(), row.2.as_deref());
            prop_assert_eq!(parsed["f"].as_f64(), row.3.filter(|f| f.is_finite()));
            prop_assert_eq!(parsed["d"].to_string(), decimal.to_string());
            prop_assert_eq!(&parsed["l"], &serde_json::json!(row.4));
        }
    }
}

#[test]
fn nested_equal_names_are_found() {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let inner = DataType::Struct(vec![field("x", DataType::Int32), field("x", DataType::Int32)].into());
    let schema = Arc::new(Schema::new(vec![field("l", DataType::List(field("item", inner)))]));
    assert!(super::RowWriter::try_new(super::Format::Json, &schema).is_err());
}
