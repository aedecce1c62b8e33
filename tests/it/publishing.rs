//! Accelerated datasets as streams (DoExchange) of the real binary: no row is missed, none comes twice.
//!
//! - [`live`]: subscribers of both forms beside refreshes of all kinds.
//! - [`restarts`]: what is sent again after a disconnect, a kill, a restart.
//! - [`slow`]: subscribers that do not read.
//! - [`words`]: what is refused, and what the end of a stream says.

mod live;
mod restarts;
mod slow;
mod words;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::utils::flight_data_to_arrow_batch;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use sidewing::proto::stream::{Epoch, Frame, Kind, Position, Subscribe};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const REFRESH: &str = "/v1/datasets/t/acceleration/refresh";
const WAIT_MAX: Duration = Duration::from_secs(30);

/// `id`, and a time in seconds that grows with it.
type Row = (i64, i64);

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn table(rows: impl IntoIterator<Item = Row>) -> Vec<RecordBatch> {
    let (ids, times): (Vec<i64>, Vec<i64>) = rows.into_iter().unzip();
    batch([("id", ints(ids)), ("at", ints(times))])
}

/// So many rows, four of each second.
fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| (id, id / 4)).collect()
}

fn appended(upstream: &Upstream, settings: &str) -> Dataset {
    Dataset::of("t", upstream)
        .accelerated(&format!("refresh_mode: append, refresh_append_overlap: 1s, {settings}"))
        .field("time_column: at")
        .field("time_format: unix_seconds")
}

async fn start(datasets: &[Dataset], rest: &str) -> Sidecar {
    let sidecar = Sidecar::builder().spicepod(&spicepod(datasets, rest)).start().await;
    sidecar.wait_ready().await;
    sidecar
}

/// Asks for a refresh and returns when it has ended.
async fn refresh(sidecar: &Sidecar, body: &str) {
    let status = async || {
        let answer = sidecar.http("/v1/datasets?status=true").await;
        serde_json::from_str::<Value>(&answer.body).unwrap()[0].clone()
    };
    let before = status().await["acceleration"]["last_refresh"].clone();
    let answer = sidecar.post(REFRESH, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let is_done = async || {
        let now = status().await;
        now["acceleration"]["last_refresh"] != before && now["status"] == "Ready"
    };
    sidecar.wait_until("the refresh has ended", is_done).await;
}

/// The value of a metric of dataset `t`.
async fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let text = sidecar.metrics().await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}{{dataset=\"t\"}} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse::<f64>().unwrap() as u64
}

async fn client(sidecar: &Sidecar) -> FlightServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", sidecar.flight_addr())).unwrap();
    FlightServiceClient::new(channel.connect().await.unwrap())
}

fn first(path: &[&str], app_metadata: Bytes) -> FlightData {
    let path = path.iter().map(|part| (*part).to_owned()).collect();
    FlightData::new().with_descriptor(FlightDescriptor::new_path(path)).with_app_metadata(app_metadata)
}

async fn exchange(sidecar: &Sidecar, first: FlightData) -> Result<Streaming<FlightData>, Status> {
    let mut client = client(sidecar).await;
    client.do_exchange(stream::iter([first])).await.map(tonic::Response::into_inner)
}

/// Rows as they are read from messages.
#[derive(Default)]
struct Reader(Option<SchemaRef>);

impl Reader {
    /// None for a message without rows.
    fn read(&mut self, message: &FlightData) -> Option<RecordBatch> {
        if message.data_header.is_empty() {
            return None;
        }
        let Some(schema) = &self.0 else {
            self.0 = Some(Arc::new(Schema::try_from(message).expect("the schema comes first")));
            return None;
        };
        Some(flight_data_to_arrow_batch(message, Arc::clone(schema), &Default::default()).unwrap())
    }
}

fn rows_of(columns: &[ArrayRef]) -> Vec<Row> {
    let column = |at: usize| columns[at].as_primitive::<Int64Type>().values().to_vec();
    column(0).into_iter().zip(column(1)).collect()
}

/// A sidewing that follows `t`.
struct Peer {
    answer: Streaming<FlightData>,
    reader: Reader,
    epoch: Option<Epoch>,
    held: Vec<Row>,
    /// A snapshot that is not whole.
    coming: Option<Vec<Row>>,
    /// Of the last message.
    head: u64,
    /// Every kind that came, repeated ones once.
    kinds: Vec<Kind>,
}

impl Peer {
    async fn subscribe(sidecar: &Sidecar) -> Self {
        Self::resume(sidecar, None, Vec::new()).await
    }

    async fn resume(sidecar: &Sidecar, epoch: Option<Epoch>, held: Vec<Row>) -> Self {
        let position = epoch.map(|epoch| Position { epoch, sequence: held.len() as u64 });
        let answer = exchange(sidecar, first(&["t"], Subscribe { held: position }.encode())).await.unwrap();
        Self { answer, reader: Reader::default(), epoch, held, coming: None, head: 0, kinds: Vec::new() }
    }

    /// Takes one message and checks it against all before it.
    async fn take(&mut self) -> Result<Frame, Status> {
        let message = timeout(WAIT_MAX, self.answer.message()).await.expect("a message, be it a heartbeat");
        let message = message?.expect("a stream of a dataset has no end");
        let frame = Frame::decode(&message.app_metadata).expect("every message has its frame");
        let batch = self.reader.read(&message);
        if self.kinds.last() != Some(&frame.kind) {
            self.kinds.push(frame.kind);
        }
        match frame.kind {
            Kind::Snapshot => {
                self.epoch = Some(frame.epoch);
                self.coming = Some(Vec::new());
            }
            Kind::Resume => assert_eq!(Some(frame.epoch), self.epoch),
            Kind::Rows => {
                let rows = self.coming.as_mut().unwrap_or(&mut self.held);
                assert_eq!(frame.first, rows.len() as u64 + 1, "a row is missing, or comes twice");
                rows.extend(rows_of(batch.expect("rows").columns()));
            }
            Kind::Whole => {
                if let Some(whole) = self.coming.take() {
                    self.held = whole;
                }
            }
            Kind::Heartbeat | Kind::Unknown => {}
        }
        assert_eq!(Some(frame.epoch), self.epoch);
        assert_eq!(frame.last, self.coming.as_ref().unwrap_or(&self.held).len() as u64);
        assert!(frame.last <= frame.head && frame.watermark_unix_nanos <= frame.sent_unix_nanos);
        self.head = frame.head;
        Ok(frame)
    }

    /// Reads until it has what the table has, and compares.
    async fn catch_up(&mut self, sidecar: &Sidecar) {
        let wanted = held_by(sidecar).await;
        let sorted = |rows: &[Row]| {
            let mut rows = rows.to_vec();
            rows.sort_unstable();
            rows
        };
        let is_there = |peer: &Self| peer.coming.is_none() && sorted(&peer.held) == wanted;
        // Its heartbeats would keep it waiting for ever.
        let mut silent = 0;
        while !is_there(self) {
            silent = if self.take().await.unwrap().kind == Kind::Heartbeat { silent + 1 } else { 0 };
            assert!(silent < 5, "{} rows of {} came, {:?}", self.held.len(), wanted.len(), self.kinds);
        }
    }
}

/// What queries see, sorted.
async fn held_by(sidecar: &Sidecar) -> Vec<Row> {
    let answer = sidecar.flight_client().await.query("select id, at from t order by id, at").await.unwrap();
    answer.batches.iter().flat_map(|batch| rows_of(batch.columns())).collect()
}

/// A stock client that follows `t`.
struct Stock {
    answer: Streaming<FlightData>,
    reader: Reader,
    held: Vec<Row>,
    /// Every op that came, repeated ones once.
    ops: Vec<String>,
    keys: Option<Vec<String>>,
}

impl Stock {
    async fn subscribe(sidecar: &Sidecar) -> Self {
        let answer = exchange(sidecar, first(&["t"], Bytes::new())).await.unwrap();
        Self { answer, reader: Reader::default(), held: Vec::new(), ops: Vec::new(), keys: None }
    }

    async fn take(&mut self) -> Result<(), Status> {
        let message = timeout(WAIT_MAX, self.answer.message()).await.expect("a message");
        let message = message?.expect("a stream of a dataset has no end");
        assert!(message.app_metadata.is_empty(), "it did not ask for frames");
        let Some(batch) = self.reader.read(&message) else { return Ok(()) };
        let (ops, data) = (batch.column(0).as_string::<i32>(), batch.column(2).as_struct());
        for op in ops.iter().flatten() {
            if self.ops.last().is_none_or(|last| last != op) {
                self.ops.push(op.to_owned());
            }
        }
        match ops.value(0) {
            "t" => {
                assert!((batch.num_rows(), data.is_null(0), batch.column(1).is_null(0)) == (1, true, true));
                self.held.clear();
            }
            "r" | "c" => {
                let keys = batch.column(1).as_list::<i32>();
                if keys.is_valid(0) {
                    let first = keys.value(0);
                    assert!((0..keys.len()).all(|row| *keys.value(row) == *first), "the same in every row");
                    let names = first.as_string::<i32>().iter().flatten().map(str::to_owned);
                    self.keys = Some(names.collect());
                }
                self.held.extend(rows_of(data.columns()));
            }
            other => panic!("an op that is none: {other}"),
        }
        Ok(())
    }

    async fn catch_up(&mut self, sidecar: &Sidecar) {
        let wanted = held_by(sidecar).await;
        loop {
            let mut held = self.held.clone();
            held.sort_unstable();
            if held == wanted {
                return;
            }
            self.take().await.unwrap();
        }
    }
}
