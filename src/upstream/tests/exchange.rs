//! Append streams: what is asked for, what comes back, and how it ends.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow_flight::FlightData;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tonic::Code;

use super::super::testing::{Asked, Script, Sent, Server, connect, spice};
use super::super::{ErrorKind, ExchangeMessage, RemoteTableName, Subscription, Upstream, UpstreamError};
use super::text;
use super::trouble::freezer;
use crate::config::Connector;

fn table(parts: &[&str]) -> RemoteTableName {
    RemoteTableName { parts: parts.iter().map(|part| (*part).to_owned()).collect() }
}

/// Rows as stock upstreams send them: an operation, no keys, and the row itself.
pub(in crate::upstream) fn changes(ids: &[i64]) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    let kind: ArrayRef = Arc::new(
        ids.iter().map(|id| ["even", "odd"][(*id & 1) as usize]).collect::<DictionaryArray<Int32Type>>(),
    );
    let data = StructArray::from(vec![
        (Arc::new(Field::new("id", DataType::Int64, false)), id),
        (Arc::new(Field::new("kind", kind.data_type().clone(), true)), kind),
    ]);
    let keys = ListArray::new_null(Arc::new(Field::new("item", DataType::Utf8, false)), ids.len());
    let schema = Schema::new(vec![
        Field::new("op", DataType::Utf8, false),
        Field::new("primary_keys", keys.data_type().clone(), true),
        Field::new("data", data.data_type().clone(), true),
    ]);
    let op = StringArray::from(vec!["c"; ids.len()]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(op), Arc::new(keys), Arc::new(data)]).unwrap()
}

/// The messages of one batch: its schema, its dictionaries, its rows.
pub(in crate::upstream) fn messages(batch: RecordBatch) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new()
        .with_dictionary_handling(DictionaryHandling::Resend)
        .with_max_flight_data_size(usize::MAX)
        .build(futures::stream::iter([Ok(batch)]));
    futures::executor::block_on(encoder.try_collect()).unwrap()
}

fn sent(messages: impl IntoIterator<Item = FlightData>) -> Vec<Sent> {
    messages.into_iter().map(Sent::Message).collect()
}

/// A server that sends this to each subscriber, and then ends the stream.
async fn server(exchange: Vec<Sent>) -> Server {
    Server::plain(Script { exchange: Mutex::new(exchange), ..Script::default() }).await
}

async fn subscribe(upstream: &Upstream) -> Result<Subscription, UpstreamError> {
    upstream.subscribe(&table(&["t"]), Bytes::from_static(b"hello")).await
}

async fn read(server: &Server) -> Result<Vec<ExchangeMessage>, UpstreamError> {
    subscribe(&spice(&server.http(), &[])).await?.messages.try_collect().await
}

fn batches(messages: &[ExchangeMessage]) -> Vec<RecordBatch> {
    messages.iter().filter_map(|message| message.batch.clone()).collect()
}

#[tokio::test]
async fn one_message_names_the_table_and_ends_the_request() {
    let server = server(Vec::new()).await;
    let upstream = spice(&server.http(), &[]);
    for parts in [&["t"][..], &["public", "t"], &["Sales.2024", "a\"b"]] {
        let hello = Bytes::from_static(b"hello");
        let subscription = upstream.subscribe(&table(parts), hello).await.unwrap();
        assert_eq!(subscription.messages.count().await, 0, "a clean end is the end");
    }
    let asked = |path: &str| Asked { path: vec![path.to_owned()], hello: "hello".into(), messages: 1 };
    let expected = [asked("t"), asked("public.t"), asked(r#""Sales.2024"."a""b""#)];
    assert_eq!(*server.script.asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn every_message_leaves_with_its_metadata_and_size() {
    let mut script = messages(changes(&[1, 2, 3]));
    assert_eq!(script.len(), 3, "schema, dictionary, rows");
    let schema = script[0].clone();
    // Metadata alone, before any schema and after it.
    script.insert(0, FlightData::new().with_app_metadata("alive"));
    script.push(FlightData::new().with_app_metadata("still alive"));
    // The same schema again, and then another one.
    script.push(schema);
    script.extend(messages(changes(&[4])).into_iter().skip(1));
    let other = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![7])) as ArrayRef)]).unwrap();
    script.extend(messages(other.clone()));
    for (at, message) in script.iter_mut().enumerate().filter(|(_, message)| !message.data_header.is_empty())
    {
        message.app_metadata = format!("frame {at}").into();
    }
    let sizes: Vec<_> = script
        .iter()
        .map(|message| message.data_header.len() + message.data_body.len() + message.app_metadata.len())
        .collect();
    let metadata: Vec<_> = script.iter().map(|message| message.app_metadata.clone()).collect();

    let server = server(sent(script)).await;
    let found = read(&server).await.unwrap();
    assert_eq!(batches(&found), [changes(&[1, 2, 3]), changes(&[4]), other]);
    assert_eq!(found.iter().map(|message| message.bytes).collect::<Vec<_>>(), sizes);
    assert_eq!(found.iter().map(|message| message.app_metadata.clone()).collect::<Vec<_>>(), metadata);
    let with_batch: Vec<_> = (0..found.len()).filter(|at| found[*at].batch.is_some()).collect();
    assert_eq!(with_batch, [3, 7, 9]);
}

#[tokio::test]
async fn an_error_is_the_last_word() {
    let mut script = sent(messages(changes(&[1])));
    script.push(Sent::Status(Code::DataLoss, "subscriber fell behind; resubscribe and reconcile state"));
    let server = server(script).await;
    let upstream = spice(&server.http(), &[]);
    let mut messages = subscribe(&upstream).await.unwrap().messages;
    for _ in 0..3 {
        messages.next().await.unwrap().unwrap();
    }
    let error = messages.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: DoExchange failed: subscriber fell behind; resubscribe and reconcile state");
    assert!(messages.next().await.is_none());
    assert_eq!(server.script.asked.lock().unwrap().len(), 1, "nothing is retried");
}

#[tokio::test]
async fn an_upstream_that_is_away_is_asked_once() {
    let server = Server::plain(Script { unavailable: 1.into(), ..Script::default() }).await;
    let error = subscribe(&spice(&server.http(), &[])).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn flight_sql_is_refused_in_words() {
    let server = Server::plain(Script::default()).await;
    let upstream = connect(Connector::FlightSql, "t", &[("endpoint", &server.http())]);
    let error = subscribe(&upstream).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unimplemented);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: Flight SQL has no append streams (name a time_column, so that new rows are asked for)");
    assert_eq!(server.script.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_before_and_after_the_start() {
    let script = Script { key: Some("key".to_owned()), ..Script::default() };
    let server = Server::plain(script).await;
    let upstream = spice(&server.http(), &[("api_key", "key")]);
    let handshakes = || server.script.handshakes.load(Ordering::SeqCst);
    assert_eq!(subscribe(&upstream).await.unwrap().messages.count().await, 0);
    assert_eq!(handshakes(), 1);
    "expired".clone_into(&mut server.script.token.lock().unwrap());
    assert_eq!(subscribe(&upstream).await.unwrap().messages.count().await, 0);
    assert_eq!(handshakes(), 2);
    // Forgotten in the middle of a stream: this one ends, the next call has a new token.
    *server.script.exchange.lock().unwrap() = vec![Sent::Status(Code::Unauthenticated, "session ended")];
    let mut messages = subscribe(&upstream).await.unwrap().messages;
    assert_eq!(messages.next().await.unwrap().unwrap_err().kind, ErrorKind::Auth);
    assert_eq!(handshakes(), 2);
    subscribe(&upstream).await.unwrap();
    assert_eq!(handshakes(), 3);
}

#[tokio::test]
async fn a_complaint_about_pings_is_heard() {
    let words = "Too many pings";
    let script = Script { unavailable: 1.into(), unavailable_words: words, ..Script::default() };
    let server = Server::plain(script).await;
    let upstream = spice(&server.http(), &[]);
    subscribe(&upstream).await.unwrap();
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 2);
    *server.script.exchange.lock().unwrap() = vec![Sent::Status(Code::Unavailable, words)];
    let mut messages = subscribe(&upstream).await.unwrap().messages;
    assert_eq!(messages.next().await.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
    subscribe(&upstream).await.unwrap();
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn the_message_limit_holds() {
    let cell = StringArray::from(vec!["x".repeat(5_000_000)]);
    let large = RecordBatch::try_from_iter([("cell", Arc::new(cell) as ArrayRef)]).unwrap();
    let server = server(sent(messages(large))).await;
    let error = read(&server).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::MessageTooLarge { limit: 4_194_304, .. }), "{error:?}");
    let larger = spice(&server.http(), &[("max_message_size", "6MiB")]);
    let found: Vec<_> = subscribe(&larger).await.unwrap().messages.try_collect().await.unwrap();
    assert_eq!(batches(&found).len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_stream() {
    let rows_without_schema = messages(changes(&[1])).split_off(2);
    let garbage = FlightData::new().with_data_header("no flatbuffer at all").with_app_metadata("x");
    for script in [rows_without_schema, vec![garbage]] {
        let server = server(sent(script)).await;
        let error = read(&server).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(error.message.contains("the data of DoExchange cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn dropping_a_subscription_cancels_the_call() {
    let server = server(vec![Sent::Message(FlightData::new().with_app_metadata("a")), Sent::Silence]).await;
    let upstream = spice(&server.http(), &[]);
    let mut subscription = subscribe(&upstream).await.unwrap();
    subscription.messages.next().await.unwrap().unwrap();
    assert_eq!(server.script.open.load(Ordering::SeqCst), 1);
    drop(subscription);
    for _ in 0..500 {
        if server.script.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the upstream still works for a subscriber that has gone");
}

#[tokio::test]
async fn an_idle_stream_lives_on_and_a_dead_connection_under_it_is_found() {
    let server = server(vec![Sent::Message(FlightData::new().with_app_metadata("a")), Sent::Silence]).await;
    let (address, freeze, _scope) = freezer(server.address).await;
    let upstream = spice(&format!("http://{address}"), &[]);
    let mut messages = subscribe(&upstream).await.unwrap().messages;
    messages.next().await.unwrap().unwrap();
    // Longer than a ping and the wait for its answer: nobody has ended it.
    let more = tokio::time::timeout(Duration::from_secs(11), messages.next()).await;
    assert!(more.is_err(), "{more:?}");
    freeze.send(true).unwrap();
    let begun = Instant::now();
    let error = messages.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(messages.next().await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(60), "found by pings, not by TCP");
    // The next call finds another connection.
    subscribe(&upstream).await.unwrap().messages.next().await.unwrap().unwrap();
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 2);
}
