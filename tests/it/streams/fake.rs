//! The fake's append streams, read as a stock client reads them.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use tonic::{Code, Status};

use super::*;
use crate::support::client::Client;
use crate::support::upstream::{Fault, Form, Method, Upstream};

const MODERN: Form = Form::Of2026 { ring: 1024 };

/// One message: a schema, or rows with their operation. A row of no data has no number.
#[derive(Debug, PartialEq)]
enum Seen {
    Schema,
    Rows(String, Vec<Option<i64>>),
}

struct Reader(FlightDataDecoder);

impl Reader {
    async fn open(upstream: &Upstream, table: &str) -> Result<Self, Status> {
        let mut client = Client::connect(upstream.addr()).await;
        let first = FlightData::new()
            .with_descriptor(FlightDescriptor::new_path(vec![table.to_owned()]))
            .with_app_metadata("hello");
        let messages = client.inner().do_exchange(futures::stream::iter([first])).await?.into_inner();
        Ok(Self(FlightDataDecoder::new(messages.map_err(FlightError::from))))
    }

    async fn next(&mut self) -> Option<Result<Seen, FlightError>> {
        let message = self.0.next().await?;
        Some(message.map(|message| match message.payload {
            DecodedPayload::Schema(_) => Seen::Schema,
            DecodedPayload::RecordBatch(batch) => {
                assert_eq!(batch.column(1).null_count(), batch.num_rows(), "keys are never told");
                let (ops, data) = (batch.column(0).as_string::<i32>(), batch.column(2).as_struct());
                let ids = data.column(0).as_primitive::<Int64Type>();
                let id = |at| (!data.is_null(at)).then(|| ids.value(at));
                Seen::Rows(ops.value(0).to_owned(), (0..batch.num_rows()).map(id).collect())
            }
            DecodedPayload::None => panic!("a message of neither schema nor rows"),
        }))
    }

    async fn seen(&mut self) -> Seen {
        self.next().await.expect("a message").expect("a message that can be read")
    }

    /// The next `count` messages.
    async fn many(&mut self, count: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.seen().await);
        }
        all
    }

    /// The error that ends the stream.
    async fn failure(&mut self) -> Status {
        loop {
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(FlightError::Tonic(status))) => return *status,
                other => panic!("no status but {other:?}"),
            }
        }
    }

    async fn assert_silent(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(300), self.next()).await;
        assert!(next.is_err(), "a silent stream says {next:?}");
    }
}

fn sent(op: &str, ids: &[i64]) -> Seen {
    Seen::Rows(op.to_owned(), ids.iter().copied().map(Some).collect())
}

fn truncated() -> Seen {
    Seen::Rows("t".to_owned(), vec![None])
}

async fn upstream(form: Form) -> Upstream {
    Upstream::builder().table("t", vec![rows([1, 2])]).streams(form).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_2026_is_a_snapshot_and_what_follows() {
    let upstream = upstream(MODERN).await;
    let mut reader = Reader::open(&upstream, "t").await.unwrap();
    assert_eq!(reader.many(3).await, [Seen::Schema, truncated(), sent("r", &[1, 2])]);
    upstream.push("t", rows([3])).await;
    upstream.write("t", rows([4])).await;
    upstream.push("t", rows([5])).await;
    assert_eq!(reader.many(2).await, [sent("c", &[3]), sent("c", &[5])], "what is only written is not sent");
    upstream.overwrite("t", vec![rows([9])]).await;
    assert_eq!(reader.many(2).await, [truncated(), sent("r", &[9])]);
    upstream.broadcast("t", "d", &rows([9]));
    assert_eq!(reader.seen().await, sent("d", &[9]));
    // Another subscriber is none of this one's business.
    let mut other = Reader::open(&upstream, "public.T").await.unwrap();
    assert_eq!(other.many(3).await, [Seen::Schema, truncated(), sent("r", &[9])]);
    reader.assert_silent().await;
    assert_eq!(upstream.subscribers(), 2);
    upstream.end_streams();
    assert!(reader.next().await.is_none(), "a clean end");

    let calls: Vec<_> = upstream.received();
    assert_eq!(calls[0].sql.as_deref(), Some("t"));
    assert_eq!(calls[0].app_metadata, "hello");
    let error = Reader::open(&upstream, "nobody").await.err().unwrap();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "Unknown dataset: \"nobody\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_rows_come_twice_that_arrive_beside_the_snapshot() {
    let lag = Duration::from_millis(500);
    let builder = Upstream::builder().table("t", vec![rows([1])]).streams(MODERN).snapshot_lag(lag);
    let upstream = builder.start().await;
    let opening = Reader::open(&upstream, "t");
    let pushing = async {
        while upstream.subscribers() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        upstream.push("t", rows([2])).await;
    };
    let (reader, ()) = tokio::join!(opening, pushing);
    let messages = reader.unwrap().many(5).await;
    assert_eq!(messages[2..], [sent("r", &[1]), sent("r", &[2]), sent("c", &[2])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2026_who_falls_behind_is_told() {
    let upstream = upstream(Form::Of2026 { ring: 2 }).await;
    let mut early = Reader::open(&upstream, "t").await.unwrap();
    // More than sockets hold, and nothing of it is read.
    for id in 0..200 {
        upstream.push("t", rows(id * 10_000..(id + 1) * 10_000)).await;
    }
    let status = early.failure().await;
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().ends_with("for dataset t; resubscribe and reconcile state"), "{status:?}");
    let told = ["fell behind and missed", "missed data updates while receiving the initial snapshot"];
    assert!(told.iter().any(|told| status.message().contains(told)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2024_all_subscribers_share_one_ring() {
    let upstream = upstream(Form::Of2024).await;
    let mut first = Reader::open(&upstream, "t").await.unwrap();
    assert_eq!(first.many(2).await, [Seen::Schema, sent("r", &[1, 2])]);
    upstream.push("t", rows([3])).await;
    assert_eq!(first.many(2).await, [Seen::Schema, sent("r", &[3])], "a schema before each batch");
    let _second = Reader::open(&upstream, "t").await.unwrap();
    let again = [Seen::Schema, sent("r", &[1, 2]), Seen::Schema, sent("r", &[3])];
    assert_eq!(first.many(4).await, again, "the whole table again, because of another");
    upstream.overwrite("t", vec![rows([9])]).await;
    first.assert_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2024_a_large_table_loses_rows_without_a_word() {
    let batches = (0..300).map(|id| rows([id])).collect();
    let upstream = Upstream::builder().table("t", batches).streams(Form::Of2024).start().await;
    let mut reader = Reader::open(&upstream, "t").await.unwrap();
    assert_eq!(reader.many(2).await, [Seen::Schema, sent("r", &[300 - 128])]);
    assert_eq!(reader.many(2 * 127).await.last().unwrap(), &sent("r", &[299]));
    reader.assert_silent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_2024_rows_are_sent_before_they_are_written() {
    let lag = Duration::from_millis(500);
    let builder = Upstream::builder().table("t", vec![rows([1])]).streams(Form::Of2024).write_lag(lag);
    let upstream = builder.start().await;
    let mut reader = Reader::open(&upstream, "t").await.unwrap();
    reader.many(2).await;
    let count =
        async || upstream.query("select * from t").await.iter().map(RecordBatch::num_rows).sum::<usize>();
    let early = async {
        assert_eq!(reader.many(2).await, [Seen::Schema, sent("r", &[2])]);
        count().await
    };
    let ((), early) = tokio::join!(upstream.push("t", rows([2])), early);
    assert_eq!((early, count().await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_break_as_they_are_told() {
    let upstream = upstream(MODERN).await;
    let open = async || Reader::open(&upstream, "t").await;
    upstream.inject(Method::DoExchange, 1, Fault::Status(Status::unauthenticated("who?")));
    assert_eq!(open().await.err().unwrap().code(), Code::Unauthenticated);

    let status = Status::data_loss("so it was told");
    upstream.inject(Method::DoExchange, 1, Fault::BreakAfter { batches: 1, status });
    let mut broken = open().await.unwrap();
    assert_eq!(broken.many(2).await, [Seen::Schema, truncated()]);
    assert_eq!(broken.failure().await.code(), Code::DataLoss);

    upstream.inject(Method::DoExchange, 1, Fault::StallAfter { batches: 1 });
    let mut stalled = open().await.unwrap();
    stalled.many(2).await;
    stalled.assert_silent().await;

    // In the middle of a message, whichever it is: some arrive whole, and then the connection is gone.
    upstream.inject(Method::DoExchange, 1, Fault::ResetAfter { bytes: 700 });
    let mut torn = open().await.unwrap();
    assert_eq!(torn.seen().await, Seen::Schema);
    torn.failure().await;

    let mut cut = open().await.unwrap();
    cut.many(3).await;
    upstream.cut();
    cut.failure().await;

    let mut dark = open().await.unwrap();
    dark.many(3).await;
    upstream.blackhole();
    upstream.push("t", rows([3])).await;
    dark.assert_silent().await;
    let mut bright = open().await.unwrap();
    assert_eq!(bright.many(4).await[3], sent("r", &[3]));
}
