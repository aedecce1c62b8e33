//! Append streams as stock upstreams send them: rows that are pushed to a table leave as DoExchange messages, with the
//! weaknesses that the two forms have on the wire.
//!
//! - [`Form::Of2024`]: a ring of a hundred updates shared by all subscribers of a table. Each new subscriber has the
//!   whole table sent into it, so that the others see it again. Who falls behind loses rows without a word. Rows are sent
//!   before they are written. A Schema message comes before each batch. No stream ever ends.
//! - [`Form::Of2026`]: one schema, a row `t`, the table as `r`, what was pushed meanwhile, and then rows as they come.
//!   The ring is entered before the table is read, so that rows may come twice. Who falls behind is told by DATA_LOSS. A
//!   table that is replaced is a row `t` and the rows as `r`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};
use tonic::{Request, Status, Streaming};

use super::faults::{Break, Refusal, Stall};
use super::service::Items;
use super::{CallId, Form, State, Upstream, lock};

/// What subscribers are sent at once.
#[derive(Debug, Clone)]
enum Update {
    /// Rows with one operation.
    Rows(RecordBatch),
    /// The table has these rows and no others.
    Replaced(Arc<Vec<RecordBatch>>),
}

/// The rings of the tables, by name.
#[derive(Default)]
pub(super) struct Feeds(Mutex<BTreeMap<String, Sender<Update>>>);

impl Feeds {
    /// The ring of a table; of 2024 a hundred updates (which tokio makes 128), of 2026 as many as were asked for.
    fn of(&self, table: &str, form: Form) -> Sender<Update> {
        let capacity = match form {
            Form::Of2024 => 100,
            Form::Of2026 { ring } => ring,
        };
        lock(&self.0).entry(table.to_owned()).or_insert_with(|| broadcast::channel(capacity).0).clone()
    }

    /// Ends the streams of all subscribers.
    pub(super) fn close(&self) {
        lock(&self.0).clear();
    }

    fn subscribers(&self) -> usize {
        lock(&self.0).values().map(Sender::receiver_count).sum()
    }
}

impl Upstream {
    /// Rows arrive at a table, as by DoPut: written, and sent to its subscribers.
    pub async fn push(&self, table: &str, rows: RecordBatch) {
        match self.state.form() {
            Form::Of2024 => {
                self.broadcast(table, "r", &rows);
                tokio::time::sleep(self.state.settings.write_lag).await;
                self.write(table, rows).await;
            }
            Form::Of2026 { .. } => {
                self.write(table, rows.clone()).await;
                self.broadcast(table, "c", &rows);
            }
        }
    }

    /// Rows arrive and no subscriber hears of it: a refresh of the upstream's, or a loss.
    pub async fn write(&self, table: &str, rows: RecordBatch) {
        let table = self.state.session.table_provider(table).await.expect("a table");
        let table = table.downcast_ref::<MemTable>().expect("a table in memory");
        table.batches[0].write().await.push(rows);
    }

    /// Subscribers are sent these rows, and the table is left as it is.
    pub fn broadcast(&self, table: &str, op: &str, rows: &RecordBatch) {
        // Nobody may listen.
        let _ = self.state.feeds.of(table, self.state.form()).send(Update::Rows(changes(op, rows)));
    }

    /// A table is overwritten, and its subscribers are told, in the form of 2026.
    pub async fn overwrite(&self, table: &str, rows: Vec<RecordBatch>) {
        self.swap(table, rows.clone()).await;
        if let form @ Form::Of2026 { .. } = self.state.form() {
            let _ = self.state.feeds.of(table, form).send(Update::Replaced(Arc::new(rows)));
        }
    }

    /// How many streams are open.
    pub fn subscribers(&self) -> usize {
        self.state.feeds.subscribers()
    }

    /// Every stream ends without an error.
    pub fn end_streams(&self) {
        self.state.feeds.close();
    }
}

impl State {
    fn form(&self) -> Form {
        self.settings.form.expect("an upstream with append streams: Builder::streams")
    }

    async fn rows(&self, table: &str) -> Result<Vec<RecordBatch>, Status> {
        let frame = self.session.table(TableReference::parse_str(table)).await;
        let frame = frame.map_err(|error| Status::internal(error.to_string()))?;
        frame.collect().await.map_err(|error| Status::internal(error.to_string()))
    }
}

/// Answers one DoExchange.
pub(super) async fn subscribe(
    state: &Arc<State>,
    form: Form,
    request: Request<Streaming<FlightData>>,
) -> Result<Items<FlightData>, Status> {
    let (_, extensions, mut messages) = request.into_parts();
    let first = messages.message().await?.ok_or_else(|| {
        Status::invalid_argument("Need to send a FlightData message with a FlightDescriptor to subscribe to")
    })?;
    let descriptor = first.flight_descriptor.ok_or_else(|| {
        Status::invalid_argument("Flight descriptor required to indicate which data to subscribe to")
    })?;
    let table = descriptor.path.join(".");
    if let Some(call) = extensions.get::<CallId>() {
        state.record_exchange(*call, &table, first.app_metadata);
    }
    if let Some(Refusal(status)) = extensions.get::<Refusal>() {
        return Err(status.clone());
    }
    let reference = TableReference::parse_str(&table);
    if !state.session.table_exist(reference.clone()).unwrap_or(false) {
        return Err(Status::invalid_argument(format!("Unknown dataset: \"{table}\"")));
    }
    let table = reference.table().to_owned();
    let ring = state.feeds.of(&table, form);
    let sent = match form {
        Form::Of2024 => of_2024(state, &table, &ring).await?,
        Form::Of2026 { .. } => of_2026(state, &table, &ring).await?,
    };
    let sent = match extensions.get::<Break>() {
        None => sent,
        Some(fault) => cut(sent, fault.batches, stream::iter(vec![Err(fault.status.clone())]).boxed()),
    };
    Ok(match extensions.get::<Stall>() {
        None => sent,
        Some(Stall(batches)) => cut(sent, *batches, stream::pending().boxed()),
    })
}

/// The table goes into the ring of all, and the subscriber reads the ring.
async fn of_2024(state: &State, table: &str, ring: &Sender<Update>) -> Result<Items<FlightData>, Status> {
    let receiver = ring.subscribe();
    for batch in state.rows(table).await? {
        let _ = ring.send(Update::Rows(changes("r", &batch)));
    }
    let updates = stream::unfold(receiver, |mut receiver| async move {
        loop {
            match receiver.recv().await {
                Ok(Update::Rows(rows)) => return Some((encoded(&rows), receiver)),
                // A refresh is not sent, and a loss is not told.
                Ok(Update::Replaced(_)) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(updates.map(stream::iter).flatten().map(Ok).boxed())
}

async fn of_2026(state: &State, table: &str, ring: &Sender<Update>) -> Result<Items<FlightData>, Status> {
    let receiver = ring.subscribe();
    tokio::time::sleep(state.settings.snapshot_lag).await;
    let rows = state.rows(table).await?;
    let schema = schema_of(state, table).await?;
    let live = Live { receiver, table: table.to_owned(), schema: Arc::clone(&schema), is_first: true };
    let updates = stream::unfold(Some(live), |live| async move {
        let mut live = live?;
        match live.next().await? {
            Ok(messages) => Some((messages.into_iter().map(Ok).collect(), Some(live))),
            Err(status) => Some((vec![Err(status)], None)),
        }
    });
    let head: Vec<FlightData> = encoded(&truncate(&schema));
    let snapshot = stream::iter(rows).map(|batch| only_rows(encoded(&changes("r", &batch))));
    let snapshot = stream::iter([head]).chain(snapshot).map(stream::iter).flatten().map(Ok);
    Ok(snapshot.chain(updates.map(stream::iter::<Vec<Result<_, Status>>>).flatten()).boxed())
}

/// A subscriber behind its snapshot.
struct Live {
    receiver: Receiver<Update>,
    table: String,
    schema: SchemaRef,
    is_first: bool,
}

impl Live {
    /// The messages of the next update; none when the stream ends.
    async fn next(&mut self) -> Option<Result<Vec<FlightData>, Status>> {
        let update = self.receiver.recv().await;
        let was_first = std::mem::replace(&mut self.is_first, false);
        let (table, action) = (&self.table, "resubscribe and reconcile state");
        match update {
            Ok(Update::Rows(rows)) => Some(Ok(only_rows(encoded(&rows)))),
            Ok(Update::Replaced(rows)) => {
                let batches = rows.iter().map(|batch| changes("r", batch));
                let all = [truncate(&self.schema)].into_iter().chain(batches);
                Some(Ok(all.flat_map(|batch| only_rows(encoded(&batch))).collect()))
            }
            Err(RecvError::Closed) => None,
            Err(RecvError::Lagged(_)) if was_first => Some(Err(Status::data_loss(format!(
                "DoExchange subscriber missed data updates while receiving the initial snapshot for dataset {table}; \
                 {action}"
            )))),
            Err(RecvError::Lagged(missed)) => Some(Err(Status::data_loss(format!(
                "DoExchange subscriber fell behind and missed {missed} update(s) for dataset {table}; {action}"
            )))),
        }
    }
}

async fn schema_of(state: &State, table: &str) -> Result<SchemaRef, Status> {
    let provider = state.session.table_provider(table).await;
    provider.map(|table| table.schema()).map_err(|error| Status::internal(error.to_string()))
}

/// Rows as changes: the operation, no keys, the row itself.
fn changes(op: &str, rows: &RecordBatch) -> RecordBatch {
    let data = StructArray::new(rows.schema().fields().clone(), rows.columns().to_vec(), None);
    change_batch(op, Arc::new(data))
}

/// The one row that empties a table.
fn truncate(schema: &SchemaRef) -> RecordBatch {
    change_batch("t", new_null_array(&DataType::Struct(schema.fields().clone()), 1))
}

fn change_batch(op: &str, data: ArrayRef) -> RecordBatch {
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(op, data.len())));
    let keys = ListArray::new_null(Arc::new(Field::new("item", DataType::Utf8, false)), data.len());
    let schema = Schema::new(vec![
        Field::new("op", DataType::Utf8, false),
        Field::new("primary_keys", keys.data_type().clone(), true),
        Field::new("data", data.data_type().clone(), true),
    ]);
    RecordBatch::try_new(Arc::new(schema), vec![ops, Arc::new(keys), data]).expect("a change batch")
}

/// A Schema message and the rows.
fn encoded(batch: &RecordBatch) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch.clone())]));
    futures::executor::block_on(encoder.try_collect()).expect("a batch that can be written")
}

/// The same where the schema was sent before.
fn only_rows(messages: Vec<FlightData>) -> Vec<FlightData> {
    messages.into_iter().filter(is_rows).collect()
}

/// A Schema message has no body.
fn is_rows(message: &FlightData) -> bool {
    !message.data_body.is_empty()
}

/// So many batches of `sent`, then `end`.
fn cut(sent: Items<FlightData>, batches: usize, end: Items<FlightData>) -> Items<FlightData> {
    let mut left = batches;
    let kept = sent.take_while(move |message| {
        let is_over = left == 0 && message.as_ref().is_ok_and(is_rows);
        left -= usize::from(!is_over && message.as_ref().is_ok_and(is_rows));
        futures::future::ready(!is_over)
    });
    kept.chain(end).boxed()
}

impl super::Builder {
    /// Rows can be pushed to its tables, and DoExchange subscribes to them.
    pub fn streams(mut self, form: Form) -> Self {
        self.settings.form = Some(form);
        self
    }

    /// Of 2026: the time between a subscriber's entry and the reading of the table, in which pushed rows come twice.
    pub fn snapshot_lag(mut self, lag: Duration) -> Self {
        self.settings.snapshot_lag = lag;
        self
    }

    /// Of 2024: the time between sending a row and writing it.
    pub fn write_lag(mut self, lag: Duration) -> Self {
        self.settings.write_lag = lag;
        self
    }
}
