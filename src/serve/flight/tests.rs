//! The Flight front end over real sockets, read by arrow-flight's own client.

mod exchange;
mod sql;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::builder::StringDictionaryBuilder;
use arrow::array::*;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::*;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, HandshakeRequest, Ticket};
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::{FlightOptions, serve};
use crate::query::QueryError;
use crate::secrets::Secret;
use crate::serve::fake::{Fake, answer, bind, upstream_error, watched};
use crate::serve::{Access, ApiKey};
use crate::task::Scope;
use crate::upstream::ErrorKind;
use crate::wire::{Encoder, MESSAGE_BYTES_MAX};

type Client = FlightServiceClient<Channel>;

/// So many cases of a property about bytes from outside, or a million (`SIDEWING_LONG`).
pub(super) fn fuzz(cases: u32) -> ProptestConfig {
    let cases = if std::env::var_os("SIDEWING_LONG").is_some() { 1_000_000 } else { cases };
    eprintln!("{cases} cases");
    ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(cases) }
}

async fn flight_with(door: Fake, options: FlightOptions) -> (Client, Scope) {
    let (listener, address) = bind().await;
    let scope = Scope::new();
    let serving = scope.clone();
    scope.spawn_draining("flight", async move { serve(listener, door, options, &serving).await });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (FlightServiceClient::new(channel), scope)
}

async fn flight(door: Fake) -> (Client, Scope) {
    flight_with(door, FlightOptions::default()).await
}

/// The batches of an answer as a client sees them.
async fn read(client: &mut Client, sql: &str) -> (SchemaRef, Vec<RecordBatch>) {
    fetch(client, Ticket::new(sql.to_owned())).await
}

/// The same for any ticket.
async fn fetch(client: &mut Client, ticket: Ticket) -> (SchemaRef, Vec<RecordBatch>) {
    let response = client.do_get(ticket).await.unwrap();
    assert!(response.metadata().contains_key("x-query-id"));
    let messages = response.into_inner().map_err(Into::into);
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut read = Vec::new();
    while let Some(batch) = batches.next().await {
        read.push(batch.unwrap());
    }
    (batches.schema().cloned().unwrap(), read)
}

/// Encodes batches and returns the messages.
fn encoded(batches: &[RecordBatch]) -> Vec<FlightData> {
    let mut encoder = Encoder::new(batches[0].schema());
    let mut messages = vec![encoder.take().unwrap().unwrap()];
    for batch in batches {
        encoder.feed(batch.clone()).unwrap();
        while let Some(message) = encoder.take().unwrap() {
            messages.push(message);
        }
    }
    messages
}

async fn decoded(messages: Vec<FlightData>) -> RecordBatch {
    let messages = stream::iter(messages.into_iter().map(Ok));
    let batches: Vec<_> =
        FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn bytes(messages: &[FlightData]) -> usize {
    messages.iter().map(Message::encoded_len).sum()
}

fn column(array: impl Array + 'static) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("c", Arc::new(array) as ArrayRef, true)]).unwrap()
}

/// `rows` texts, all different, of about `len` bytes.
fn texts(rows: usize, len: usize) -> impl Iterator<Item = String> {
    (0..rows).map(move |row| {
        let number = row.to_string();
        format!("{number}{}", "x".repeat(len - number.len()))
    })
}

#[tokio::test]
async fn a_large_answer_reaches_a_client_with_the_default_limit_whole() {
    let batch = column(StringViewArray::from_iter_values(texts(24_000, 1000)));
    let (mut client, _scope) = flight(Fake::default().table("t", vec![batch.clone()])).await;
    let (schema, read) = read(&mut client, "select c from t").await;
    let plain = column(StringArray::from_iter_values(texts(24_000, 1000)));
    assert_eq!(schema, plain.schema());
    assert_eq!(concat_batches(&schema, &read).unwrap(), plain);
}

#[tokio::test]
async fn messages_are_below_the_limit_whatever_the_rows_are() {
    // A thousand short rows, then long ones: no row tells the size of the next.
    let uneven = texts(1000, 10).chain(texts(300, 50_000)).chain(texts(100_000, 30));
    let batch = column(StringArray::from_iter_values(uneven));
    let messages = encoded(std::slice::from_ref(&batch));
    assert!(messages.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
    assert_eq!(decoded(messages).await, batch);
    let wide = column(StringArray::from_iter_values(texts(3, MESSAGE_BYTES_MAX + 1)));
    let messages = encoded(std::slice::from_ref(&wide));
    assert_eq!(messages.len(), 4, "one row each, behind the schema");
    assert_eq!(decoded(messages).await, wide);
}

fn dictionary(values: impl IntoIterator<Item = Option<String>>) -> RecordBatch {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    values.into_iter().for_each(|value| builder.append_option(value));
    column(builder.finish())
}

#[tokio::test]
async fn dictionaries_keep_their_type_and_may_differ_by_batch() {
    let batches = vec![
        dictionary(["a", "b", "a"].map(|v| Some(v.to_owned()))),
        dictionary([Some("c".to_owned()), None, Some("a".to_owned())]),
        dictionary((0..3).map(|_| None)),
        dictionary(["a", "b", "c", "d"].map(|v| Some(v.to_owned()))),
    ];
    let door = Fake::default().answering("d", batches[0].schema(), batches.clone());
    let (mut client, _scope) = flight(door).await;
    let (schema, read) = read(&mut client, "d").await;
    assert_eq!(schema, batches[0].schema());
    for (read, sent) in read.iter().zip(&batches) {
        let plain = |batch: &RecordBatch| cast(batch.column(0), &DataType::Utf8).unwrap();
        assert_eq!(&plain(read), &plain(sent));
    }
    assert_eq!(read.len(), batches.len());
}

#[tokio::test]
async fn a_large_dictionary_is_split_with_its_rows() {
    let values = (0..3000).map(|row| Some(format!("{:02000}", row % 2900)));
    let batch = dictionary(values);
    let slices = [batch.slice(0, 10), batch.slice(10, 2990)];
    let messages = encoded(&slices);
    assert!(messages.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
    assert!(messages[1].encoded_len() < 30_000, "ten values, not all of them");
    let messages = stream::iter(messages.into_iter().map(Ok));
    let read: Vec<RecordBatch> =
        FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap();
    let plain = |batch: &RecordBatch| cast(batch.column(0), &DataType::Utf8).unwrap();
    let read: Vec<_> = read.iter().map(plain).collect();
    let read: Vec<&dyn Array> = read.iter().map(AsRef::as_ref).collect();
    assert_eq!(&arrow::compute::concat(&read).unwrap(), &plain(&batch));
}

#[tokio::test]
async fn an_empty_answer_and_one_without_columns_have_their_schema_and_rows() {
    let empty = column(Int64Array::from(Vec::<i64>::new()));
    let options = RecordBatchOptions::new().with_row_count(Some(70_000));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    let door = Fake::default().answering("empty", empty.schema(), vec![empty.clone()]).answering(
        "bare",
        bare.schema(),
        vec![bare.clone()],
    );
    let (mut client, _scope) = flight(door).await;
    let (schema, batches) = read(&mut client, "empty").await;
    assert_eq!((schema, batches.len()), (empty.schema(), 0));
    let (_, batches) = read(&mut client, "bare").await;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 70_000);
}

#[tokio::test]
async fn a_batch_that_breaks_the_promise_is_an_error() {
    let promised = column(Int64Array::from(vec![1])).schema();
    let door = Fake::default().answering("lie", promised, vec![column(StringArray::from(vec!["x"]))]);
    let (mut client, _scope) = flight(door).await;
    let answer = client.do_get(Ticket::new("lie")).await.unwrap().into_inner();
    let error = answer.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn the_calls_that_clients_make() {
    let views = column(StringViewArray::from(vec!["a", "b"]));
    let (mut client, _scope) = flight(Fake::default().table("orders", vec![views])).await;
    // What every one of them promises and sends.
    let batch = column(StringArray::from(vec!["a", "b"]));
    let shaken = client.handshake(stream::empty::<HandshakeRequest>()).await.unwrap();
    assert!(shaken.metadata().get("authorization").unwrap().to_str().unwrap().starts_with("Bearer "));

    let command = CommandStatementQuery { query: "select c from orders".into(), transaction_id: None };
    for descriptor in [
        FlightDescriptor::new_cmd("select c from orders"),
        FlightDescriptor::new_cmd(command.as_any().encode_to_vec()),
        FlightDescriptor::new_path(vec!["orders".into()]),
    ] {
        let info = client.get_flight_info(descriptor.clone()).await.unwrap().into_inner();
        assert_eq!(info.clone().try_decode_schema().unwrap(), *batch.schema());
        assert_eq!((info.endpoint.len(), info.endpoint[0].location.len()), (1, 0));
        let (schema, read) = fetch(&mut client, info.endpoint[0].ticket.clone().unwrap()).await;
        let poll = client.poll_flight_info(descriptor.clone()).await.unwrap().into_inner();
        assert_eq!((poll.progress, poll.flight_descriptor), (Some(1.0), None));
        assert_eq!(poll.info.unwrap().schema, info.schema);
        assert_eq!((schema, read), (batch.schema(), vec![batch.clone()]));
        let schema = client.get_schema(descriptor).await.unwrap().into_inner();
        assert_eq!(Schema::try_from(schema).unwrap(), *batch.schema());
    }

    let listed: Vec<_> =
        client.list_flights(Criteria::default()).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].flight_descriptor.as_ref().unwrap().path, ["orders"]);
    assert_eq!(listed[0].clone().try_decode_schema().unwrap(), *batch.schema());
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_words() {
    let (mut client, _scope) = flight(Fake::default()).await;
    let unknown = client.get_schema(FlightDescriptor::new_path(vec!["nope".into()])).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "there is no dataset `nope`"));
    let bad = client.get_flight_info(FlightDescriptor::new_cmd("selec")).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert_eq!(client.do_get(Ticket::new("")).await.unwrap_err().code(), Code::InvalidArgument);
    let none = client.get_flight_info(FlightDescriptor::default()).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
    let refused = client.do_action(Action::new("Cancel", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let empty = client.do_put(stream::empty()).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    let first = FlightData::new().with_descriptor(FlightDescriptor::new_path(vec!["t".into()]));
    let refused = client.do_put(stream::iter([first])).await.unwrap_err();
    let words = "Path doesn't exist or is not writable: t; nothing is written here";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, words));
    let listed: Vec<_> =
        client.list_actions(Empty {}).await.unwrap().into_inner().try_collect().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|action| action.r#type.as_str()).collect();
    let all = ["CancelFlightInfo", "CancelQuery", "CreatePreparedStatement", "ClosePreparedStatement"];
    assert_eq!(names, all);
}

#[tokio::test]
async fn errors_keep_their_status_before_and_after_the_first_batch() {
    let batch = column(Int64Array::from(vec![1]));
    let door = Fake::default().failing("auth", upstream_error(ErrorKind::Auth)).on("late", move || {
        let items = [Ok(batch.clone()), Err(upstream_error(ErrorKind::Unavailable))];
        Ok(answer(batch.schema(), stream::iter(items)))
    });
    let (mut client, _scope) = flight(door).await;
    let early = client.do_get(Ticket::new("auth")).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    assert!(early.message().contains("orders") && early.message().contains("https://core:50051"));
    let answer = client.do_get(Ticket::new("late")).await.unwrap().into_inner();
    let (got, late): (Vec<_>, Vec<_>) = answer.collect::<Vec<_>>().await.into_iter().partition(Result::is_ok);
    assert_eq!((got.len(), late[0].as_ref().unwrap_err().code()), (2, Code::Unavailable));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query() {
    let dropped = tokio_util::sync::CancellationToken::new();
    let token = dropped.clone();
    let door = Fake::default().on("silent", move || {
        let batch = column(Int64Array::from(vec![1]));
        let items = stream::iter([Ok::<_, QueryError>(batch.clone())]).chain(stream::pending());
        Ok(watched(answer(batch.schema(), items), &token))
    });
    let (mut client, _scope) = flight(door).await;
    let mut answer = client.do_get(Ticket::new("silent")).await.unwrap().into_inner();
    answer.next().await.unwrap().unwrap();
    drop(answer);
    tokio::time::timeout(std::time::Duration::from_secs(5), dropped.cancelled()).await.unwrap();
}

#[tokio::test]
async fn with_keys_nothing_is_open() {
    let options =
        FlightOptions { tls: None, access: Access::new(vec![ApiKey::reading(Secret::new("k".into()))]) };
    let (mut client, _scope) =
        flight_with(Fake::default().table("t", vec![column(Int64Array::from(vec![1]))]), options).await;
    let with = |authorization: String| {
        let mut request = Request::new(Ticket::new("select c from t"));
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        request
    };
    for call in [Request::new(Ticket::new("select c from t")), with("Bearer no".into())] {
        let refused = client.do_get(call).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "Invalid credentials"));
    }
    assert_eq!(client.list_flights(Criteria::default()).await.unwrap_err().code(), Code::Unauthenticated);
    client.do_get(with("Bearer k".into())).await.unwrap();
    let mut basic = Request::new(stream::empty::<HandshakeRequest>());
    basic.metadata_mut().insert("authorization", "Basic Oms=".parse().unwrap());
    let shaken = client.handshake(basic).await.unwrap();
    let bearer = shaken.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
    client.do_get(with(bearer)).await.unwrap();
    assert!(client.handshake(stream::empty::<HandshakeRequest>()).await.is_err());
}

#[test]
fn metadata_of_schemas_is_kept() {
    let metadata = HashMap::from([("k".to_owned(), "v".to_owned())]);
    let field = Field::new("c", DataType::Int64, true).with_metadata(metadata.clone());
    let schema = Arc::new(Schema::new_with_metadata(vec![field], metadata));
    let mut encoder = Encoder::new(Arc::clone(&schema));
    let message = encoder.take().unwrap().unwrap();
    assert_eq!(Schema::try_from(&message).unwrap(), *schema);
}

#[tokio::test]
async fn tls_is_spoken_where_it_is_asked_for() {
    use std::time::Duration;

    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    trusting.alpn_protocols = vec![b"h2".to_vec()];

    let (listener, address) = bind().await;
    let scope = Scope::new();
    let serving = scope.clone();
    let options = FlightOptions { tls: Some(server.into()), access: Access::default() };
    scope.spawn_draining("flight", async move { serve(listener, Fake::default(), options, &serving).await });
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(trusting)).connect(name, stream);
    let stream = tokio::time::timeout(Duration::from_secs(5), connecting).await.unwrap().unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        crate::serve::listen::ScopeExecutor(scope.clone()),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    scope.spawn("client", async move {
        let _ = connection.await;
    });
    let request = ::http::Request::post("https://localhost/arrow.flight.protocol.FlightService/Handshake")
        .header("content-type", "application/grpc")
        .body(String::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.headers().contains_key("authorization"));
}
