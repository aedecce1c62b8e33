//! Batches to Flight messages, one at a time, each below [`MESSAGE_BYTES_MAX`] where one row fits.
//!
//! Clients refuse messages above 4 MiB by default; the encoded size is measured, not estimated. What
//! [`layout`] maps is mapped after slicing, so that a row is copied once.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
};
use arrow_flight::FlightData;

use super::frame::has_dictionary;
use super::{Frame, layout};
use crate::slots::Slots;

/// No message is larger, unless one row is.
pub const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The frame around header and body: protobuf tags and lengths.
const FRAME_BYTES: usize = 64;
/// Rows of the first message; later ones follow the size that rows turned out to have.
const ROWS_START: usize = 8192;

/// Encodes the batches of one answer.
pub struct Encoder {
    /// Of the batches that come.
    schema: SchemaRef,
    /// Of the messages that go.
    promised: SchemaRef,
    tracker: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    /// What is left of the current batch.
    rest: Option<RecordBatch>,
    /// Encoded, not yet taken, each with how many rows it brings.
    ready: VecDeque<(FlightData, usize)>,
    rows: usize,
}

impl Encoder {
    /// An encoder of batches of this schema; its first message is the schema as it travels.
    pub fn new(schema: SchemaRef) -> Self {
        let options = IpcWriteOptions::default();
        let (promised, tracker, message) = opened(&schema, &options);
        let ready = VecDeque::from([(message, 0)]);
        let context = IpcWriteContext::default();
        Self { schema, promised, tracker, options, context, rest: None, ready, rows: ROWS_START }
    }

    /// Takes the next batch; every message of the former one must have been taken.
    ///
    /// # Errors
    /// A batch that breaks the promised schema.
    pub fn feed(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        debug_assert!(self.rest.is_none());
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = match batch.schema_ref() == &self.schema {
            true => batch,
            false => {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = batch.columns().to_vec();
                RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)?
            }
        };
        self.rest = Some(batch);
        Ok(())
    }

    /// The next message, or `None` when the batch is used up.
    ///
    /// # Errors
    /// What Arrow cannot encode.
    pub fn take(&mut self) -> Result<Option<FlightData>, ArrowError> {
        Ok(self.take_counted()?.map(|(message, _)| message))
    }

    /// The same with the number of rows that the message brings: none for a schema or a dictionary.
    ///
    /// # Errors
    /// What Arrow cannot encode.
    pub fn take_counted(&mut self) -> Result<Option<(FlightData, usize)>, ArrowError> {
        if self.ready.is_empty()
            && let Some(batch) = self.rest.take()
        {
            let taken = self.encode_head(&batch)?;
            let left = batch.num_rows() - taken;
            self.rest = (left > 0).then(|| batch.slice(taken, left));
        }
        Ok(self.ready.pop_front())
    }

    /// Encodes as many rows from the head of `batch` as fit, and says how many they were.
    fn encode_head(&mut self, batch: &RecordBatch) -> Result<usize, ArrowError> {
        loop {
            let rows = self.rows.min(batch.num_rows()).max(1);
            let head = batch.slice(0, rows);
            let text = layout::view_text_bytes(&head);
            if text > MESSAGE_BYTES_MAX && rows > 1 {
                self.rows = fewer(rows, text);
                continue;
            }
            let head = layout::batch(&head, &self.promised)?;
            let (dictionaries, message) = IpcDataGenerator::default().encode(
                &head,
                &mut self.tracker,
                &self.options,
                &mut self.context,
            )?;
            let largest = dictionaries.iter().map(size).chain([size(&message)]).max().unwrap_or(0);
            if largest > MESSAGE_BYTES_MAX && rows > 1 {
                self.rows = fewer(rows, largest);
                // The dictionaries of this try are not sent: forget that they were made.
                self.tracker = begin(&self.promised, &self.options).0;
                continue;
            }
            if largest < MESSAGE_BYTES_MAX / 4 && rows == self.rows {
                self.rows = rows.saturating_mul(2);
            }
            self.ready.extend(dictionaries.into_iter().map(|dictionary| (FlightData::from(dictionary), 0)));
            self.ready.push_back((message.into(), rows));
            return Ok(rows);
        }
    }
}

/// The messages of rows of some batches, all at once, without their schema; none where they could not be read each for
/// itself, or cannot be encoded.
pub(crate) fn frames(schema: &SchemaRef, batches: &[RecordBatch]) -> Option<Vec<Frame>> {
    if !super::can_pass(&layout::schema(schema)) {
        return None;
    }
    let mut encoder = Encoder::new(SchemaRef::clone(schema));
    encoder.take().ok()?;
    let mut frames = Vec::with_capacity(batches.len());
    for batch in batches {
        encoder.feed(batch.clone()).ok()?;
        while let Some((message, rows)) = encoder.take_counted().ok()? {
            frames.push(Frame::encoded(&message, rows).owned());
        }
    }
    Some(frames)
}

/// How many of `rows`, at least two, may fit when all of them are `bytes`. Rows differ in size: a little
/// less than the share, so that one more try is enough.
fn fewer(rows: usize, bytes: usize) -> usize {
    (rows * (MESSAGE_BYTES_MAX / 16) / (bytes / 16) * 9 / 10).clamp(1, rows - 1)
}

/// A schema message that was made, of a schema without dictionaries.
struct Opening {
    schema: SchemaRef,
    promised: SchemaRef,
    message: FlightData,
}

static OPENINGS: Slots<Opening> = Slots::new();

/// The schema as it travels, a tracker of its dictionaries, and its message. Answers of one shape share their schema: the
/// message is made once.
fn opened(schema: &SchemaRef, options: &IpcWriteOptions) -> (SchemaRef, DictionaryTracker, FlightData) {
    let hash = Arc::as_ptr(schema).addr() as u64;
    if let Some(known) = OPENINGS.at(hash).as_ref().filter(|known| Arc::ptr_eq(&known.schema, schema)) {
        return (Arc::clone(&known.promised), DictionaryTracker::new(false), known.message.clone());
    }
    let promised = Arc::new(layout::schema(schema));
    let (tracker, message) = begin(&promised, options);
    let message = FlightData::from(message);
    if !has_dictionary(schema) {
        let (schema, promised, message) = (Arc::clone(schema), Arc::clone(&promised), message.clone());
        OPENINGS.put(hash, Opening { schema, promised, message });
    }
    (promised, tracker, message)
}

/// A tracker that knows the schema's dictionaries, and the schema message.
fn begin(schema: &SchemaRef, options: &IpcWriteOptions) -> (DictionaryTracker, EncodedData) {
    let mut tracker = DictionaryTracker::new(false);
    let message =
        IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, options);
    (tracker, message)
}

fn size(data: &EncodedData) -> usize {
    data.ipc_message.len() + data.arrow_data.len() + FRAME_BYTES
}
