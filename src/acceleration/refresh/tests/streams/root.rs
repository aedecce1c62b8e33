//! A stock upstream in memory, in both of its forms, with all that is known to go wrong with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::time::sleep;

use crate::task::Scope;
use crate::upstream::{ErrorKind, ExchangeMessage, Step, UpstreamError};

use super::super::super::error::RefreshError;
use super::super::super::stream::{Messages, Origin};

pub type Row = (i64, usize);

const WORDS: [&str; 3] = ["", "a", "rather longer than a view holds inline"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Replays the whole table to everybody when anybody subscribes; drops what does not fit.
    Y2024,
    /// `t`, the table, what was written meanwhile, what is written then; DATA_LOSS when somebody is too slow.
    Y2026,
}

pub type Sent = Result<ExchangeMessage, UpstreamError>;

/// See the module.
pub struct Root {
    pub form: Form,
    state: Mutex<State>,
    /// Of subscribers' tasks.
    scope: Scope,
}

struct State {
    rows: Vec<Row>,
    /// How often each row was ever there at one moment.
    most: BTreeMap<Row, usize>,
    subscribers: Vec<Subscriber>,
    dice: StdRng,
    is_away: bool,
    /// So many messages vanish.
    lost: usize,
    /// So many queries and counts fail.
    trouble: usize,
    /// Messages take so long, at most.
    latency: Duration,
}

struct Subscriber {
    sender: Sender<Sent>,
    /// What is written before its snapshot was taken; none when that was.
    buffered: Option<Vec<Vec<Row>>>,
}

pub fn schema() -> SchemaRef {
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

pub fn batch(rows: &[Row]) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| WORDS[row.1])));
    RecordBatch::try_new(schema(), vec![numbers, words]).unwrap()
}

pub fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let numbers = batch.column(0).as_primitive::<Int64Type>();
    let words = batch.column(1).as_string::<i32>();
    let word = |at| WORDS.iter().position(|word| *word == words.value(at)).unwrap();
    (0..batch.num_rows()).map(|at| (numbers.value(at), word(at))).collect()
}

pub fn counted(rows: &[Row]) -> BTreeMap<Row, usize> {
    let mut counts = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(*row).or_default() += 1);
    counts
}

pub fn failure(kind: ErrorKind, message: &str) -> UpstreamError {
    UpstreamError {
        kind,
        step: Step::Query,
        endpoint: "root".to_owned(),
        message: message.to_owned(),
        help: None,
    }
}

/// A change batch as it travels.
fn change(op: &str, rows: &[Row]) -> ExchangeMessage {
    let many = if op == "t" { 1 } else { rows.len() };
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(op, many)));
    let mut keys = ListBuilder::new(StringBuilder::new());
    (0..many).for_each(|_| keys.append_null());
    let data: ArrayRef = match op {
        "t" => new_null_array(&DataType::Struct(schema().fields().clone()), 1),
        _ => Arc::new(StructArray::from(batch(rows))),
    };
    let keys: ArrayRef = Arc::new(keys.finish());
    let nullable = [("op", ops, false), ("primary_keys", keys, true), ("data", data, true)];
    let batch = RecordBatch::try_from_iter_with_nullable(nullable).unwrap();
    ExchangeMessage { app_metadata: Bytes::new(), bytes: batch.get_array_memory_size(), batch: Some(batch) }
}

impl Root {
    pub fn new(form: Form, seed: u64, scope: &Scope) -> Arc<Self> {
        let state = State {
            rows: Vec::new(),
            most: BTreeMap::new(),
            subscribers: Vec::new(),
            dice: StdRng::seed_from_u64(seed),
            is_away: false,
            lost: 0,
            trouble: 0,
            latency: Duration::from_millis(3),
        };
        Arc::new(Self { form, state: Mutex::new(state), scope: scope.clone() })
    }

    pub fn rows(&self) -> Vec<Row> {
        self.lock().rows.clone()
    }

    /// How often each row was ever there at one moment.
    pub fn most(&self) -> BTreeMap<Row, usize> {
        self.lock().most.clone()
    }

    pub fn push(&self, rows: &[Row]) {
        let mut state = self.lock();
        state.rows.extend(rows);
        state.remember();
        let op = if state.dice.random() { "c" } else { "r" };
        state.tell(self.form, op, rows);
    }

    /// A refresh of the upstream's own: other rows in the place of all, or, where the form has no words for that, more
    /// rows that nobody hears of.
    pub fn refresh(&self, rows: Vec<Row>) {
        let mut state = self.lock();
        match self.form {
            Form::Y2024 => state.rows.extend(rows),
            Form::Y2026 => {
                state.rows.clone_from(&rows);
                state.tell(self.form, "t", &[]);
                rows.chunks(5).for_each(|rows| state.tell(self.form, "r", rows));
            }
        }
        state.remember();
    }

    /// Another client subscribes.
    pub fn rebroadcast(&self) {
        if self.form == Form::Y2024 {
            self.lock().replay();
        }
    }

    pub fn update_and_delete(&self) {
        let mut state = self.lock();
        let some: Vec<Row> = state.rows.iter().take(2).copied().collect();
        if !some.is_empty() {
            state.tell(self.form, "u", &some);
            state.tell(self.form, "d", &some);
        }
    }

    /// Every stream ends, with an error or without.
    pub fn disconnect(&self, error: Option<UpstreamError>) {
        let mut state = self.lock();
        for subscriber in std::mem::take(&mut state.subscribers) {
            if let Some(error) = &error {
                let _ = subscriber.sender.try_send(Err(error.clone()));
            }
        }
    }

    pub fn go_away(&self) {
        self.lock().is_away = true;
        self.disconnect(None);
    }

    pub fn come_back(&self, with_data: bool) {
        let mut state = self.lock();
        state.is_away = false;
        if !with_data {
            state.rows.clear();
        }
    }

    /// The next messages vanish.
    pub fn lose(&self, messages: usize) {
        self.lock().lost += messages;
    }

    /// The next queries fail.
    pub fn fail(&self, queries: usize) {
        self.lock().trouble += queries;
    }

    pub fn slow(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    pub fn heal(&self) {
        let mut state = self.lock();
        (state.is_away, state.lost, state.trouble) = (false, 0, 0);
        state.latency = Duration::from_millis(3);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn pause(&self) -> Duration {
        let mut state = self.lock();
        let most = state.latency;
        most.mul_f64(state.dice.random())
    }

    /// Fails where it is to fail.
    async fn asked(&self) -> Result<(), RefreshError> {
        sleep(self.pause()).await;
        let mut state = self.lock();
        let fails = state.is_away || state.trouble > 0;
        state.trouble = state.trouble.saturating_sub(1);
        match fails {
            true => Err(upstream(failure(ErrorKind::Unavailable, "away"))),
            false => Ok(()),
        }
    }

    fn subscribed(self: &Arc<Self>) -> Receiver<Sent> {
        // Of 2024 the ring is short, as is what HTTP/2 holds.
        let (sender, receiver) = channel(40);
        let mut state = self.lock();
        let buffered = (self.form == Form::Y2026).then(Vec::new);
        state.subscribers.push(Subscriber { sender: sender.clone(), buffered });
        match self.form {
            Form::Y2024 => state.replay(),
            Form::Y2026 => {
                let root = Arc::clone(self);
                self.scope.spawn("snapshot", async move { root.snapshot(sender).await });
            }
        }
        receiver
    }

    /// Of 2026: rows that were written before the snapshot was taken come in it and after it.
    async fn snapshot(&self, sender: Sender<Sent>) {
        sleep(self.pause()).await;
        let rows = self.rows();
        let messages = std::iter::once(change("t", &[])).chain(rows.chunks(4).map(|rows| change("r", rows)));
        for message in messages {
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
        loop {
            let next = {
                let mut state = self.lock();
                let Some(subscriber) = state.find(&sender) else { return };
                let buffered = subscriber.buffered.get_or_insert_default();
                match buffered.is_empty() {
                    true => {
                        subscriber.buffered = None;
                        return;
                    }
                    false => buffered.remove(0),
                }
            };
            if sender.send(Ok(change("c", &next))).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn remember(&mut self) {
        for (row, times) in counted(&self.rows) {
            let most = self.most.entry(row).or_default();
            *most = (*most).max(times);
        }
    }

    fn find(&mut self, sender: &Sender<Sent>) -> Option<&mut Subscriber> {
        self.subscribers.iter_mut().find(|subscriber| subscriber.sender.same_channel(sender))
    }

    fn replay(&mut self) {
        let rows = self.rows.clone();
        rows.chunks(4).for_each(|rows| self.tell(Form::Y2024, "r", rows));
    }

    fn tell(&mut self, form: Form, op: &str, rows: &[Row]) {
        // That the table begins anew is never dropped in silence: such a server says DATA_LOSS.
        if self.lost > 0 && op != "t" {
            self.lost -= 1;
            return;
        }
        self.subscribers.retain_mut(|subscriber| {
            if let Some(buffered) = subscriber.buffered.as_mut().filter(|_| op != "t") {
                buffered.push(rows.to_vec());
                return true;
            }
            match (form, subscriber.sender.try_send(Ok(change(op, rows)))) {
                (_, Err(TrySendError::Closed(_))) => false,
                (Form::Y2026, Err(TrySendError::Full(_))) => false,
                (Form::Y2024, Err(TrySendError::Full(_))) | (_, Ok(())) => true,
            }
        });
    }
}

pub fn upstream(source: UpstreamError) -> RefreshError {
    RefreshError::Upstream { dataset: "rows".parse().unwrap(), source }
}

/// All of `rows` in small batches; some come late, and the end may be an error.
pub fn streamed(rows: Vec<Row>, pause: Duration, breaks: bool) -> SendableRecordBatchStream {
    let mut batches: Vec<Result<RecordBatch, DataFusionError>> =
        rows.chunks(5).map(|rows| Ok(batch(rows))).collect();
    if breaks {
        batches.truncate(batches.len() / 2);
        batches.push(Err(DataFusionError::Execution("broke".to_owned())));
    }
    let batches = futures::stream::iter(batches).then(move |batch| async move {
        sleep(pause).await;
        batch
    });
    Box::pin(RecordBatchStreamAdapter::new(schema(), batches))
}

/// The root as its subscribers reach it.
pub struct Link(pub Arc<Root>);

#[async_trait]
impl Origin for Link {
    async fn schema(&self) -> Result<SchemaRef, RefreshError> {
        self.0.asked().await.map(|()| schema())
    }

    async fn subscribe(&self, _hello: Bytes) -> Result<Messages, RefreshError> {
        self.0.asked().await?;
        let messages = tokio_stream::wrappers::ReceiverStream::new(self.0.subscribed());
        let root = Arc::clone(&self.0);
        let late = messages.then(move |message| {
            let pause = root.pause();
            async move {
                sleep(pause).await;
                message
            }
        });
        Ok(late.boxed())
    }

    async fn count(&self) -> Result<u64, RefreshError> {
        let root = &self.0;
        root.asked().await?;
        let rows = root.rows().len() as u64;
        sleep(root.pause()).await;
        Ok(rows)
    }

    async fn rows(&self) -> Result<SendableRecordBatchStream, RefreshError> {
        let root = &self.0;
        root.asked().await?;
        let (rows, pause) = (root.rows(), root.pause() / 4);
        let breaks = root.lock().dice.random_ratio(1, 8);
        Ok(streamed(rows, pause, breaks))
    }
}
