//! A message of rows on its way: as bytes that are handed on, or as the batch that is in it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::MutableBuffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::FlightData;
use arrow_flight::utils::flight_data_to_arrow_batch;
use arrow_ipc::root_as_message;
use bytes::{BufMut, Bytes, BytesMut};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use prost::encoding::{encode_key, encode_varint, encoded_len_varint, key_len};

use crate::slots::ByBytes;

use super::envelope::{Envelope, Malformed};
use super::grpc::{Message, PREFIX_BYTES, prefix};
use super::layout;

/// Clients refuse what is larger unless they are told otherwise: gRPC's own default.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// What Arrow's kernels want the start of a buffer to be a multiple of, in bytes.
const ALIGNMENT: usize = 64;
/// Fields of FlightData (Flight.proto).
const HEADER_FIELD: u32 = 2;
const METADATA_FIELD: u32 = 3;
const BODY_FIELD: u32 = 1000;

/// One message of a DoGet stream that brings rows, encoded, with its gRPC prefix: whoever knows the schema can read it
/// without the messages before it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frame {
    message: Message,
    rows: usize,
    /// Header and body.
    bytes: usize,
}

/// Some rows of an answer.
#[derive(Debug, Clone)]
pub enum Part {
    Batch(RecordBatch),
    /// As an upstream sent them, or as they were sent to another client.
    Frame(Frame),
}

/// What a message of an upstream's answer is.
pub enum Kind {
    /// It can be handed on.
    Rows(Frame),
    /// It is to be decoded: a schema, a dictionary, or rows that a client might not take so.
    Other(FlightData),
}

impl Frame {
    /// The message that these bytes are, which bring `rows`.
    #[must_use]
    pub fn encoded(data: &FlightData, rows: usize) -> Self {
        Self { message: encoded(data), rows, bytes: message_bytes(data) }
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Header and body, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same in memory of its own: what was received may hold more than it shows.
    #[must_use]
    pub fn owned(&self) -> Self {
        Self { message: self.message.in_one_piece(), ..*self }
    }

    /// As arrow-flight has it.
    ///
    /// # Errors
    /// Bytes that are no FlightData: it is as it came.
    pub fn flight_data(&self) -> Result<FlightData, Malformed> {
        self.message.flight_data()
    }

    /// With the prefix.
    #[must_use]
    pub fn into_chunks(self) -> Vec<Bytes> {
        self.message.chunks
    }

    /// The rows.
    ///
    /// # Errors
    /// Bytes that are no rows of this schema.
    pub fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let wrong = |error: Malformed| ArrowError::IpcError(error.to_string());
        let travels = SchemaRef::new(layout::schema(schema));
        decoded(&self.flight_data().map_err(wrong)?, &travels)
    }
}

/// Header, body and metadata of a message, in bytes.
#[must_use]
pub fn message_bytes(data: &FlightData) -> usize {
    data.data_header.len() + data.data_body.len() + data.app_metadata.len()
}

/// The rows of a message of this schema, which has no dictionaries.
///
/// # Errors
/// Bytes that are no such rows.
pub fn decoded(data: &FlightData, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    // It came from outside: what the decoder panics over is an error like any other.
    let decode = || flight_data_to_arrow_batch(data, Arc::clone(schema), &HashMap::new());
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(ArrowError::IpcError("the message is malformed".to_owned())))
}

impl Part {
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.num_rows(),
            Self::Frame(frame) => frame.rows,
        }
    }

    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => get_record_batch_memory_size(batch),
            Self::Frame(frame) => frame.bytes(),
        }
    }

    /// The rows, decoded where they are not.
    ///
    /// # Errors
    /// See [`Frame::batch`].
    pub fn batch(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        match self {
            Self::Batch(batch) => Ok(batch.clone()),
            Self::Frame(frame) => frame.batch(schema),
        }
    }
}

impl Kind {
    /// # Errors
    /// A message that is no FlightData.
    pub fn of(message: Message) -> Result<Self, Malformed> {
        let envelope = Envelope::of(&message)?;
        let is_plain = envelope.metadata.is_empty() && !envelope.has_descriptor;
        let rows = match is_plain && message.bytes <= MESSAGE_BYTES_MAX {
            true => plain_rows(&envelope.header),
            false => None,
        };
        Ok(match rows {
            Some(rows) => Self::Rows(Frame { bytes: envelope.bytes(), message, rows }),
            None => Self::Other(envelope.into_flight_data()),
        })
    }

    /// Header, body and metadata, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Rows(frame) => frame.bytes(),
            Self::Other(data) => message_bytes(data),
        }
    }
}

/// Headers that were read: those of one answer, or of answers of one shape, are often the same bytes.
static READ: ByBytes<Option<usize>> = ByBytes::new(1 << 10);

/// The rows of a message of rows that are not compressed: not every client can read those that are.
fn plain_rows(header: &[u8]) -> Option<usize> {
    READ.recall(header, |rows| Some(*rows), || Some(rows_in(header))).flatten()
}

fn rows_in(header: &[u8]) -> Option<usize> {
    let batch = root_as_message(header).ok()?.header_as_record_batch()?;
    match batch.compression() {
        None => usize::try_from(batch.length()).ok(),
        Some(_) => None,
    }
}

/// Whether messages of rows of this schema may be handed on: they travel as they are, and each can be read without those
/// before it.
pub(crate) fn can_pass(schema: &Schema) -> bool {
    !has_dictionary(schema) && layout::schema(schema) == *schema
}

/// At any depth.
pub(super) fn has_dictionary(schema: &Schema) -> bool {
    schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)))
}

/// The chunks as one, where Arrow's buffers may lie: they are copied at most once.
pub(super) fn aligned(mut chunks: Vec<Bytes>) -> Bytes {
    let is_aligned = |chunk: &Bytes| chunk.as_ptr().align_offset(ALIGNMENT) == 0;
    match &chunks[..] {
        [] => return Bytes::new(),
        [one] if one.is_empty() || is_aligned(one) => return chunks.swap_remove(0),
        _ => {}
    }
    let mut whole = MutableBuffer::with_capacity(chunks.iter().map(Bytes::len).sum());
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    Bytes::from_owner(Aligned(whole))
}

struct Aligned(MutableBuffer);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// A message with its prefix: what is small in one chunk, the body as it is.
fn encoded(data: &FlightData) -> Message {
    let fields = [(HEADER_FIELD, &data.data_header), (METADATA_FIELD, &data.app_metadata)];
    let fields = fields.into_iter().filter(|(_, bytes)| !bytes.is_empty());
    let body = &data.data_body;
    let mut bytes: usize = fields.clone().map(|(field, bytes)| field_bytes(field, bytes) + bytes.len()).sum();
    // A body that is empty is left out like any other field that is.
    if !body.is_empty() {
        bytes += field_bytes(BODY_FIELD, body) + body.len();
    }
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + bytes - body.len());
    head.put_slice(&prefix(bytes));
    for (field, bytes) in fields {
        put_field(&mut head, field, bytes);
        head.put_slice(bytes);
    }
    let mut chunks = Vec::with_capacity(2);
    if body.is_empty() {
        chunks.push(head.freeze());
    } else {
        put_field(&mut head, BODY_FIELD, body);
        chunks.extend([head.freeze(), body.clone()]);
    }
    Message { chunks, bytes }
}

fn put_field(head: &mut BytesMut, field: u32, bytes: &Bytes) {
    encode_key(field, prost::encoding::WireType::LengthDelimited, head);
    encode_varint(bytes.len() as u64, head);
}

fn field_bytes(field: u32, bytes: &Bytes) -> usize {
    key_len(field) + encoded_len_varint(bytes.len() as u64)
}
