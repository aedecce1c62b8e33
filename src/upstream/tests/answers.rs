//! What comes back: schemas, plans, batches, endpoints, message sizes.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::super::testing::{Script, Server, connect, rows_schema, spice};
use super::super::{ErrorKind, RemoteTableName};
use super::{collect, count, text};
use crate::config::Connector;

fn table(parts: &[&str]) -> RemoteTableName {
    RemoteTableName { parts: parts.iter().map(|part| (*part).to_owned()).collect() }
}

async fn ids(script: Script, sql: &str) -> Vec<i64> {
    let server = Server::plain(script).await;
    let batches = collect(&spice(&server.http(), &[]), sql).await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn a_query_answers_its_batches_and_its_schema() {
    let server = Server::plain(Script::default()).await;
    let upstream = spice(&server.http(), &[]);
    assert_eq!(upstream.query("all").await.unwrap().schema, rows_schema());
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    let empty = upstream.query("empty").await.unwrap();
    assert_eq!(empty.schema, rows_schema());
    assert_eq!(count(&upstream, "empty").await.unwrap(), 0);
    let planned = upstream.plan("all").await.unwrap();
    assert_eq!((planned.schema, planned.total_records), (rows_schema(), None));
    assert_eq!(server.script.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn schemas_come_by_get_schema_or_else_by_get_flight_info() {
    for get_schema in [true, false] {
        let server = Server::plain(Script { get_schema, ..Script::default() }).await;
        let upstream = spice(&server.http(), &[]);
        assert_eq!(upstream.table_schema(&table(&["t"]), "all").await.unwrap(), rows_schema());
        let error = upstream.table_schema(&table(&["t"]), "missing").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn flight_sql_finds_the_exact_table_and_runs_statements() {
    let server = Server::plain(Script::default()).await;
    let upstream = connect(Connector::FlightSql, "t_x", &[("endpoint", &server.http())]);
    for name in [&["t_x"][..], &["s", "t_x"], &["c", "s", "t_x"]] {
        assert_eq!(upstream.table_schema(&table(name), "empty").await.unwrap(), rows_schema());
    }
    // Not in the catalog's answer: the statement itself is asked for.
    let error = upstream.table_schema(&table(&["d", "t_x"]), "missing").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
}

#[tokio::test]
async fn all_endpoints_are_read_in_order_wherever_they_are() {
    let other = Server::plain(Script::default()).await;
    let here = "arrow-flight-reuse-connection://?".to_owned();
    let there = other.http().replace("http://", "grpc+tcp://");
    let nowhere = "grpc+tcp://127.0.0.1:1".to_owned();
    let endpoints = vec![
        (vec![], "one 0".to_owned()),
        (vec![here], "one 10".to_owned()),
        (vec![there], "one 20".to_owned()),
        (vec![nowhere.clone(), "grpc+unix:///tmp/s".to_owned()], "one 30".to_owned()),
    ];
    let script = Script { endpoints: Mutex::new(Some(endpoints)), ..Script::default() };
    assert_eq!(ids(script, "all").await, [0, 1, 10, 11, 20, 21, 30, 31]);
    assert_eq!(other.script.calls.load(Ordering::SeqCst), 1);

    let none = Script { endpoints: Mutex::new(Some(Vec::new())), ..Script::default() };
    assert_eq!(ids(none, "all").await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_repeated_schema_message_is_taken() {
    let script = Script { repeat_schema: true, ..Script::default() };
    assert_eq!(ids(script, "all").await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn another_schema_than_promised_is_an_error() {
    let server = Server::plain(Script { lies: true, ..Script::default() }).await;
    let error = collect(&spice(&server.http(), &[]), "all").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    insta::assert_snapshot!(text(&error, server.address.port()), @"upstream http://127.0.0.1:PORT: the stream is not what GetFlightInfo promised: 1 columns were promised, 2 arrived");
}

#[tokio::test]
async fn a_message_above_the_limit_names_param_size_and_fix() {
    let server = Server::plain(Script::default()).await;
    let port = server.address.port();
    let upstream = spice(&server.http(), &[]);
    assert_eq!(count(&upstream, "big 4000000").await.unwrap(), 1);
    let error = collect(&upstream, "big 5000000").await.unwrap_err();
    let ErrorKind::MessageTooLarge { found: Some(found), limit: 4_194_304 } = error.kind else {
        panic!("{error:?}")
    };
    let shown = text(&error, port).replace(&found.to_string(), "FOUND");
    insta::assert_snapshot!(shown, @"upstream http://127.0.0.1:PORT: a message of FOUND bytes is larger than max_message_size (4194304 bytes) (set `max_message_size: 5MiB` in the dataset's params or `runtime.flight.max_message_size`, or select fewer columns)");
    // What the help says suffices, on the same channel.
    let larger = spice(&server.http(), &[("max_message_size", "5MiB")]);
    assert_eq!(count(&larger, "big 5000000").await.unwrap(), 1);
}

#[tokio::test]
async fn org_and_app_travel_with_each_call() {
    let server = Server::plain(Script::default()).await;
    let params = [("endpoint", server.http())];
    let params: Vec<_> = params.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let upstream = connect(Connector::SpiceAi, "acme/shop/datasets/orders", &params);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    assert_eq!(*server.script.metadata.lock().unwrap(), ["acme shop", "acme shop"]);
}

#[tokio::test]
async fn dropping_a_stream_cancels_the_call() {
    let script = Script { waits: true.into(), ..Script::default() };
    let server = Server::plain(script).await;
    let upstream = spice(&server.http(), &[]);
    let stream = upstream.query("all").await.unwrap();
    assert_eq!(server.script.open.load(Ordering::SeqCst), 1);
    drop(stream);
    for _ in 0..200 {
        if server.script.open.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the upstream still works on a dropped query");
}
