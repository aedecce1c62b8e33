//! Answers that go to one upstream and are handed on: the messages of the upstream reach the client as they came, what
//! cannot be handed on is decoded, and nothing of either is lost.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, LargeStringArray, ListArray,
    RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::client::{Order, assert_same, batch};
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const ROWS: i64 = 30_000;

/// Columns that travel as they are.
fn plain(rows: std::ops::Range<i64>) -> Vec<RecordBatch> {
    let texts = |row: i64| (row % 7 != 0).then(|| format!("text {row}"));
    let lists = rows.clone().map(|row| Some((0..row % 4).map(Some).collect::<Vec<_>>()));
    let columns: [(&str, ArrayRef); 6] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        (
            "half",
            Arc::new(Float64Array::from_iter(
                rows.clone().map(|row| (row % 5 != 0).then_some(row as f64 / 2.0)),
            )),
        ),
        ("is_even", Arc::new(BooleanArray::from_iter(rows.clone().map(|row| Some(row % 2 == 0))))),
        ("text", Arc::new(StringArray::from_iter(rows.clone().map(texts)))),
        ("long", Arc::new(LargeStringArray::from_iter(rows.clone().map(texts)))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
    ];
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows).with_timezone("UTC"));
    batch(columns.into_iter().chain([("at", at)]))
}

/// Columns that do not.
fn mapped() -> Vec<RecordBatch> {
    let texts = |row: i64| format!("a text that stands apart from its view, {row}");
    let words: DictionaryArray<Int32Type> = (0..3_000).map(|row| ["one", "two", "three"][row % 3]).collect();
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..3_000).map(texts)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3_000));
    batch([("id", ids), ("view", views), ("word", Arc::new(words))])
}

struct World {
    upstream: Upstream,
    sidecar: Sidecar,
}

impl World {
    async fn new() -> Self {
        let upstream =
            Upstream::builder().table("plain", plain(0..ROWS)).table("mapped", mapped()).start().await;
        let datasets = ["plain", "mapped"].map(|table| Dataset::of(table, &upstream));
        let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, "")).start().await;
        sidecar.wait_ready().await;
        Self { upstream, sidecar }
    }

    /// The messages of DoGet alone.
    async fn messages(&self, sql: &str) -> Result<Vec<FlightData>, Status> {
        messages(&format!("http://{}", self.sidecar.flight_addr()), sql).await
    }

    async fn check(&self, sql: &str) {
        let mut client = self.sidecar.flight_client().await;
        let (actual, expected) = (client.query(sql).await.unwrap(), self.upstream.query(sql).await);
        assert_same(sql, &actual.batches, &expected, Order::Kept);
    }
}

async fn messages(url: &str, sql: &str) -> Result<Vec<FlightData>, Status> {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let mut client = FlightServiceClient::new(channel);
    client.do_get(Ticket::new(sql.to_owned())).await?.into_inner().try_collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_the_client_as_the_upstream_sent_them() {
    let world = World::new().await;
    let sql = "SELECT * FROM plain";
    // The second time the statement is not planned.
    for _ in 0..2 {
        let (sent, come) =
            (messages(&world.upstream.url(), sql).await.unwrap(), world.messages(sql).await.unwrap());
        assert!(sent.len() > 3, "several messages");
        // The schema is our own: what clients were promised.
        assert_eq!(come[1..], sent[1..]);
        world.check(sql).await;
    }
    world.check("SELECT id, text FROM plain WHERE id < 0").await;
    world.check("SELECT count(*) AS n, max(half) AS m FROM plain WHERE text <> 'text 5'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_travels_in_another_layout_is_decoded() {
    let world = World::new().await;
    for sql in [
        "SELECT * FROM mapped",
        "SELECT view FROM mapped WHERE word = 'two'",
        "SELECT word FROM mapped LIMIT 9",
    ] {
        world.check(sql).await;
        world.check(sql).await;
    }
    let rows = world.sidecar.sql("SELECT count(*) AS n FROM mapped WHERE word = 'two'").await;
    assert_eq!(rows, json!([{"n": 1000}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_client_would_refuse_is_cut() {
    let texts = (0..9_000).map(|row| format!("{row:0>1000}"));
    let wide = batch([("text", Arc::new(StringArray::from_iter_values(texts)) as ArrayRef)]);
    let upstream = Upstream::builder().table("wide", wide).whole_messages().start().await;
    let dataset = Dataset::of("wide", &upstream).param("max_message_size", "64MiB");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).start().await;
    sidecar.wait_ready().await;
    let world = World { upstream, sidecar };
    let sent = world.messages("SELECT * FROM wide").await.unwrap();
    assert!(sent.len() > 4 && sent.iter().all(|message| message.data_body.len() < 2 << 20));
    world.check("SELECT * FROM wide").await;
}

/// A client that has read GetFlightInfo has been promised a layout, and gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promise_holds_whatever_the_upstream_sends() {
    let world = World::new().await;
    let promised = plain(0..1)[0].schema();
    let viewed: Vec<_> = promised
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "long" => field.as_ref().clone().with_data_type(arrow::datatypes::DataType::Utf8View),
            _ => field.as_ref().clone(),
        })
        .collect();
    world.upstream.promise_schema(Some(Arc::new(arrow::datatypes::Schema::new(viewed))));
    let mut client = world.sidecar.flight_client().await;
    for _ in 0..2 {
        let info = client.flight_info("SELECT * FROM plain LIMIT 100").await.unwrap();
        let schema = info.clone().try_decode_schema().unwrap();
        assert_eq!(schema.field_with_name("long").unwrap().data_type(), &arrow::datatypes::DataType::Utf8);
        let answer = client.fetch(info).await.unwrap();
        assert_eq!(answer.schema.as_ref(), &schema);
        assert_eq!(answer.num_rows(), 100);
    }
}

/// After the first statement there is one call an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_shape_costs_one_call() {
    let world = World::new().await;
    let sql = |id: i64| format!("SELECT id, text FROM plain WHERE id = {id} AND text <> 'it''s {id}'");
    world.messages(&sql(1)).await.unwrap();
    world.upstream.clear();
    for id in 2..20 {
        let come = world.messages(&sql(id)).await.unwrap();
        assert_eq!(come[1..], messages(&world.upstream.url(), &sql(id)).await.unwrap()[1..], "{id}");
    }
    let (plans, reads) = (world.upstream.count(Method::GetFlightInfo), world.upstream.count(Method::DoGet));
    // Half of the reads are those that it is compared with.
    assert_eq!((plans, reads), (0, 36));
    let statements = world.upstream.statements();
    let sent = statements.iter().find(|sent| sent.contains("= 19")).expect("it was sent");
    assert!(sent.contains("'it''s 19'"), "{sent}");
}

/// What is wrong with a statement of a known shape is said as of any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_shape_is_planned_when_the_upstream_refuses_it() {
    let world = World::new().await;
    let sql = |part: &str| format!("SELECT date_trunc('{part}', at) AS day FROM plain ORDER BY 1 LIMIT 1");
    world.check(&sql("day")).await;
    world.check(&sql("hour")).await;
    let error = world.messages(&sql("nothing")).await.unwrap_err();
    assert_ne!(error.code(), Code::Internal, "{error:?}");
    assert!(error.message().contains("nothing"), "{error:?}");
    let error = world.messages("SELECT id FROM plain ORDER BY 5").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    // An upstream that cannot plan it: the rows come by scans.
    world.upstream.refuse(1, &Status::invalid_argument("no such function: date_trunc"));
    let mut client = world.sidecar.flight_client().await;
    let info = client.flight_info(&sql("month")).await.unwrap();
    assert_eq!(client.fetch(info).await.unwrap().num_rows(), 1);
}

/// A dataset that changes upstream is planned anew, whatever shapes are known of it.
#[tokio::test(flavor = "multi_thread")]
async fn another_schema_is_seen() {
    let world = World::new().await;
    world.check("SELECT * FROM plain WHERE id < 5").await;
    world.upstream.replace("plain", mapped());
    let come = async || {
        let mut client = world.sidecar.flight_client().await;
        client
            .query("SELECT * FROM plain WHERE id < 6")
            .await
            .is_ok_and(|answer| answer.schema.fields().len() == 3)
    };
    world.sidecar.wait_until("the other columns come", come).await;
}

/// Rows that do not come are never taken for the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_an_error() {
    let world = World::new().await;
    let sql = "SELECT * FROM plain";
    let whole = world.messages(sql).await.unwrap();
    let bytes: usize = whole.iter().map(|message| message.data_body.len() + message.data_header.len()).sum();
    for fault in [
        Fault::BreakAfter { batches: 2, status: Status::internal("it broke") },
        Fault::ResetAfter { bytes: bytes / 2 },
        Fault::ResetAfter { bytes: bytes - 10 },
    ] {
        world.upstream.inject(Method::DoGet, 1, fault.clone());
        let come = world.messages(sql).await;
        assert!(come.is_err(), "{fault:?}: {} messages of {}", come.unwrap().len(), whole.len());
    }
    assert_eq!(world.messages(sql).await.unwrap().len(), whole.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_call_upstream() {
    let world = World::new().await;
    world.upstream.inject(Method::DoGet, 1, Fault::StallAfter { batches: 2 });
    let channel = Channel::from_shared(format!("http://{}", world.sidecar.flight_addr())).unwrap();
    let mut client = FlightServiceClient::new(channel.connect().await.unwrap());
    let mut stream = client.do_get(Ticket::new("SELECT * FROM plain")).await.unwrap().into_inner();
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(world.upstream.open(Method::DoGet), 1);
    drop(stream);
    let gone = async || world.upstream.open(Method::DoGet) == 0;
    tokio::time::timeout(Duration::from_secs(5), world.sidecar.wait_until("the call is gone", gone))
        .await
        .unwrap();
}

/// The columns of a dataset in a schema keep the names that the statement gives them.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_those_of_the_statement() {
    let upstream = Upstream::builder().table("plain", plain(0..100)).start().await;
    let dataset = Dataset::of("core.things", &upstream).table("plain");
    let sidecar = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).start().await;
    sidecar.wait_ready().await;
    let mut client = sidecar.flight_client().await;
    for _ in 0..2 {
        let answer = client
            .query("SELECT core.things.id, max(half) FROM core.things GROUP BY id ORDER BY id")
            .await
            .unwrap();
        assert_eq!(answer.num_rows(), 100);
        let names: Vec<_> = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "max(core.things.half)"]);
    }
}

/// A client that asks for compression has it; others do not, though they could take it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_for_those_who_ask() {
    let world = World::new().await;
    let channel = Channel::from_shared(format!("http://{}", world.sidecar.flight_addr())).unwrap();
    let channel = channel.connect().await.unwrap();
    for (accepted, encoding) in [("gzip,identity", Some("gzip")), ("identity,deflate,gzip", None)] {
        let mut request = tonic::Request::new(Ticket::new("SELECT * FROM plain"));
        request.metadata_mut().insert("grpc-accept-encoding", accepted.parse().unwrap());
        let mut client = FlightServiceClient::new(channel.clone())
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        if encoding.is_none() {
            client = FlightServiceClient::new(channel.clone());
        }
        let response = client.do_get(request).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").map(|value| value.to_str().unwrap()), encoding);
        let messages: Vec<_> = response.into_inner().try_collect().await.unwrap();
        assert!(messages.len() > 3);
    }
}
