//! Tests of the harness itself, without sidewing: a fake that lies would make every other test worthless.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow_flight::sql::CommandGetTables;
use tonic::{Code, Status};

use crate::support::client::{Client, Order, assert_same, batch, command_descriptor};
use crate::support::pki::{Pki, Validity};
use crate::support::tpch;
use crate::support::upstream::{Fault, Method, Upstream};

fn numbers(rows: i64) -> Vec<arrow::array::RecordBatch> {
    let texts: StringArray = (0..rows).map(|n| Some(format!("row {n}"))).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    batch([("id", ids), ("text", Arc::new(texts))])
}

async fn upstream(rows: i64) -> (Upstream, Client) {
    let upstream = Upstream::builder().table("numbers", numbers(rows)).start().await;
    let client = Client::connect(upstream.addr()).await;
    (upstream, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_answers_both_dialects_and_remembers() {
    let (upstream, mut client) = upstream(3).await;
    let sql = "select id, text from numbers where id > 0";
    let expected = upstream.query(sql).await;
    let raw = client.query(sql).await.unwrap();
    assert_same("raw SQL", &raw.batches, &expected, Order::Kept);
    let flight_sql = client.flight_sql(sql).await.unwrap();
    assert_same("Flight SQL", &flight_sql.batches, &expected, Order::Kept);
    let calls: Vec<_> = upstream.received().into_iter().map(|call| (call.method, call.sql)).collect();
    let told = |method| (method, Some(sql.to_owned()));
    let both = [told(Method::GetFlightInfo), told(Method::DoGet)];
    assert_eq!(calls, [both.clone(), both].concat());

    let by_path = client.schema_of_table(&["numbers"]).await.unwrap();
    assert_eq!(&by_path, raw.schema.as_ref());
    assert_eq!(client.schema_of_table(&["nowhere"]).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.query("select nothing").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.query("drop table numbers").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_lists_its_tables_to_flight_sql() {
    let (_upstream, mut client) = upstream(1).await;
    let command = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let info = client.flight_info_of(command_descriptor(&command)).await.unwrap();
    let answer = client.fetch(info).await.unwrap();
    assert_eq!(answer.num_rows(), 1);
    assert!(answer.pretty().contains("numbers"), "{}", answer.pretty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_wants_its_key_and_forgets_old_tokens() {
    let upstream = Upstream::builder().table("numbers", numbers(1)).api_key("k1").start().await;
    let mut client = Client::connect(upstream.addr()).await;
    let sql = "select 1";
    assert_eq!(client.query(sql).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(client.login("", "wrong").await.unwrap_err().code(), Code::Unauthenticated);
    client.login("", "k1").await.unwrap();
    client.query(sql).await.unwrap();
    upstream.expire_tokens();
    assert_eq!(client.query(sql).await.unwrap_err().code(), Code::Unauthenticated);
    client.login("", "k1").await.unwrap();
    client.query(sql).await.unwrap();

    let silent = Upstream::builder().api_key("k1").without_token().start().await;
    let mut client = Client::connect(silent.addr()).await;
    client.login("", "k1").await.unwrap();
    assert_eq!(client.token(), None);
    client.query(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_happen_as_often_as_they_were_asked_for() {
    let (upstream, mut client) = upstream(20_000).await;
    let sql = "select id from numbers";
    upstream.inject(Method::DoGet, 2, Fault::Status(Status::unavailable("busy")));
    for _ in 0..2 {
        assert_eq!(client.query(sql).await.unwrap_err().code(), Code::Unavailable);
    }
    client.query(sql).await.unwrap();
    assert_eq!(upstream.count(Method::DoGet), 3);

    upstream.inject(Method::GetFlightInfo, 1, Fault::Http503);
    client.query(sql).await.unwrap_err();
    let status = Status::internal("broken in the middle");
    upstream.inject(Method::DoGet, 1, Fault::BreakAfter { batches: 1, status });
    let error = client.query(sql).await.unwrap_err();
    assert!(error.message().contains("broken in the middle"), "{error:?}");
    upstream.inject(Method::DoGet, 1, Fault::Reset);
    client.query(sql).await.unwrap_err();
    upstream.inject(Method::GetFlightInfo, 1, Fault::Hang);
    let hung = tokio::time::timeout(Duration::from_millis(200), client.query(sql)).await;
    assert!(hung.is_err(), "a hanging call ended: {hung:?}");
    assert_eq!(client.query(sql).await.unwrap().num_rows(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_die_and_say_goodbye_on_time() {
    let (upstream, mut client) = upstream(1).await;
    upstream.reset_every(4);
    let mut failed = 0;
    for _ in 0..10 {
        failed += usize::from(client.query("select 1").await.is_err());
    }
    assert!((2..=5).contains(&failed), "{failed} of 10 queries failed");
    upstream.heal();
    let before = upstream.connections();
    upstream.goaway_every(4);
    for _ in 0..20 {
        // This client does not retry, and may meet a connection that has just said goodbye.
        let _ = client.query("select 1").await;
    }
    assert!(upstream.connections() > before + 2, "{} connections", upstream.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_stops_and_comes_back_on_its_port() {
    let (mut upstream, mut client) = upstream(1).await;
    let addr = upstream.addr();
    client.query("select 1").await.unwrap();
    upstream.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    client.query("select 1").await.unwrap_err();
    upstream.restart().await;
    assert_eq!(upstream.addr(), addr);
    // A client of its own: the first one may still hold the dead connection.
    Client::connect(addr).await.query("select id from numbers").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_split_over_endpoints_or_sent_whole() {
    let (split, mut client) = upstream(1000).await;
    split.set_endpoints(vec![vec![], vec!["grpc://203.0.113.1:1".to_owned()], vec![]]);
    let info = client.flight_info("select * from numbers").await.unwrap();
    assert_eq!(info.endpoint.iter().map(|e| e.location.len()).collect::<Vec<_>>(), [0, 1, 0]);
    let answer = client.fetch(info).await.unwrap();
    assert_same("three endpoints", &answer.batches, &numbers(1000), Order::Kept);

    let whole = Upstream::builder().table("numbers", numbers(400_000)).whole_messages().start().await;
    let sql = "select * from numbers";
    let mut client = Client::connect(whole.addr()).await;
    let error = client.query(sql).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
    let mut client = Client::connect(whole.addr()).await.max_message_size(64 << 20);
    let answer = client.query(sql).await.unwrap();
    assert_eq!((answer.batches.len(), answer.num_rows()), (1, 400_000));
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "an unexpected call of DoAction")]
async fn a_call_that_nobody_should_make_fails_the_test() {
    let (_upstream, mut client) = upstream(1).await;
    let action = arrow_flight::Action::new("x", "");
    client.inner().do_action(action).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_real() {
    let pki = Pki::new();
    let name = "localhost";
    let tls = |validity| {
        let upstream = Upstream::builder().tls(pki.server_with(name, validity));
        async move { upstream.start().await }
    };
    let good = tls(Validity::Current).await;
    assert_eq!(tls_handshake(&good, &pki, name).await, Ok(()));
    assert!(
        tls_handshake(&good, &Pki::named("another CA"), name).await.unwrap_err().contains("UnknownIssuer")
    );
    assert!(tls_handshake(&good, &pki, "other.test").await.unwrap_err().contains("NotValidForName"));
    let expired = tls(Validity::Expired).await;
    assert!(tls_handshake(&expired, &pki, name).await.unwrap_err().contains("Expired"));
    let early = tls(Validity::NotYet).await;
    assert!(tls_handshake(&early, &pki, name).await.unwrap_err().contains("NotValidYet"));
}

/// The verdict of rustls, in its own words.
async fn tls_handshake(upstream: &Upstream, pki: &Pki, name: &str) -> Result<(), String> {
    let ca = std::fs::read_to_string(pki.ca_file()).expect("ca.pem");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("default protocol versions")
        .with_root_certificates(crate::support::pki::roots(&ca))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(upstream.addr()).await.expect("a TCP connection");
    let name = name.to_owned().try_into().expect("a server name");
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    connected.map(drop).map_err(|error| format!("{error:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_22_tpch_queries_run_on_the_reference_engine() {
    let upstream = Upstream::builder().tables(tpch::tables()).start().await;
    let mut rows = Vec::new();
    for (_, sql) in tpch::queries() {
        let answer = upstream.query(sql).await;
        rows.push(answer.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>());
    }
    // The data are deterministic, so are the answers.
    let expected = [4, 4, 10, 5, 5, 1, 4, 2, 173, 20, 359, 2, 33, 1, 1, 296, 1, 2, 1, 1, 1, 7];
    assert_eq!(rows, expected);
}

#[test]
fn the_comparison_sees_differences() {
    let same = |order, a: &[&str], b: &[&str]| {
        let table = |texts: &[&str]| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            batch([("t", texts)])
        };
        std::panic::catch_unwind(|| assert_same("test", &table(a), &table(b), order)).is_ok()
    };
    assert!(same(Order::Kept, &["a", "b"], &["a", "b"]));
    assert!(!same(Order::Kept, &["b", "a"], &["a", "b"]));
    assert!(same(Order::Any, &["b", "a"], &["a", "b"]));
    assert!(!same(Order::Any, &["a"], &["a", "a"]));
    assert!(!same(Order::Any, &["a", "c"], &["a", "b"]));
}
