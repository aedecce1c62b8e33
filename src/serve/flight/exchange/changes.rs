//! A subscription in the public runtime's form: rows of `op`, `primary_keys` and `data`.
//!
//! A row of op `t` without data says that what follows is the table anew; its rows are `r`, and `c` are those that
//! were added since.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::FlightData;

use crate::query::StreamEvent;
use crate::wire::Encoder;

const TRUNCATE: &str = "t";
const READ: &str = "r";
const CREATE: &str = "c";

/// Events in, messages out.
#[derive(Default)]
pub(super) struct Changes {
    /// None before the first event.
    stream: Option<Stream>,
}

struct Stream {
    schema: SchemaRef,
    key: Option<Arc<[String]>>,
    encoder: Encoder,
    /// What the rows that come are called.
    op: &'static str,
    read: Beside,
    create: Beside,
}

/// The columns beside the data, the same in every row: made once as long as the longest batch, and cut to size.
#[derive(Default)]
struct Beside {
    columns: Option<(ArrayRef, ArrayRef)>,
}

impl Changes {
    /// Takes an event; every message of the one before must have been taken. `schema` is that of the rows, `key`
    /// names the columns of their primary key.
    ///
    /// # Errors
    /// Rows of another schema.
    pub(super) fn take(
        &mut self,
        event: StreamEvent,
        schema: &SchemaRef,
        key: Option<Arc<[String]>>,
    ) -> Result<(), ArrowError> {
        let stream = self.stream.get_or_insert_with(|| Stream::new(schema, key));
        match event {
            StreamEvent::Begin { .. } => stream.truncate(),
            StreamEvent::Rows { batch, .. } => stream.rows(&batch),
            StreamEvent::Whole { .. } => {
                stream.op = CREATE;
                Ok(())
            }
        }
    }

    /// The next message and how many rows of the dataset it brings.
    ///
    /// # Errors
    /// What Arrow cannot encode.
    pub(super) fn next(&mut self) -> Result<Option<(FlightData, u64)>, ArrowError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        Ok(stream.encoder.take_counted()?.map(|(message, rows)| (message, rows as u64)))
    }
}

impl Stream {
    fn new(rows: &SchemaRef, key: Option<Arc<[String]>>) -> Self {
        let schema = schema(rows.fields());
        let encoder = Encoder::new(Arc::clone(&schema));
        Self { schema, key, encoder, op: READ, read: Beside::default(), create: Beside::default() }
    }

    fn truncate(&mut self) -> Result<(), ArrowError> {
        self.op = READ;
        let op: ArrayRef = Arc::new(StringArray::from(vec![TRUNCATE]));
        let null = |at: usize| new_null_array(self.schema.field(at).data_type(), 1);
        self.encoder.feed(RecordBatch::try_new(Arc::clone(&self.schema), vec![op, null(1), null(2)])?)
    }

    fn rows(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let beside = if self.op == CREATE { &mut self.create } else { &mut self.read };
        let (op, keys) = beside.columns(self.op, self.key.as_deref(), batch.num_rows())?;
        let DataType::Struct(fields) = self.schema.field(2).data_type() else {
            return Err(ArrowError::SchemaError("the rows are no struct".to_owned()));
        };
        let columns = batch.columns().to_vec();
        let data = StructArray::try_new_with_length(fields.clone(), columns, None, batch.num_rows())?;
        self.encoder.feed(RecordBatch::try_new(Arc::clone(&self.schema), vec![op, keys, Arc::new(data)])?)
    }
}

impl Beside {
    /// `rows` rows of `op` and `key`.
    fn columns(
        &mut self,
        op: &str,
        key: Option<&[String]>,
        rows: usize,
    ) -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let (ops, keys) = match self.columns.take() {
            Some(columns) if columns.0.len() >= rows => columns,
            _ => (
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(op, rows))) as ArrayRef,
                keys(key, rows)?,
            ),
        };
        let cut = (ops.slice(0, rows), keys.slice(0, rows));
        self.columns = Some((ops, keys));
        Ok(cut)
    }
}

/// The names of the key's columns in each row; NULL where there is no key.
fn keys(key: Option<&[String]>, rows: usize) -> Result<ArrayRef, ArrowError> {
    let Some(key) = key else { return Ok(new_null_array(&DataType::List(item()), rows)) };
    let names = (0..rows * key.len()).map(|at| &key[at % key.len()]);
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
    let offsets = OffsetBuffer::from_repeated_length(key.len(), rows);
    Ok(Arc::new(ListArray::try_new(item(), offsets, names, None)?))
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Utf8, false))
}

/// The schema of changes to rows of these columns.
fn schema(rows: &Fields) -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("op", DataType::Utf8, false),
        Field::new("primary_keys", DataType::List(item()), true),
        Field::new("data", DataType::Struct(rows.clone()), true),
    ]))
}
