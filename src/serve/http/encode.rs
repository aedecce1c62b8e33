//! Batches to JSON rows, CSV lines, a plain table, or what `envelope` and `arrow_stream` write, chunk by chunk.
//!
//! JSON holds every digit of integers and decimals, explicit nulls, and null for NaN and infinities.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, JsonArray, Writer, WriterBuilder, make_encoder};
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use bytes::Bytes;

use super::accept::Format;
use super::arrow_stream::ArrowStream;
use super::envelope::Envelope;
use super::times;

/// Rows of one chunk: what is held of an answer at a time.
const CHUNK_ROWS: usize = 4096;
/// A plain table needs all of its rows to know its widths; it ends here, and says so.
const TABLE_ROWS_MAX: usize = 10_000;
const TABLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Writes the rows of one answer.
pub enum Encoder {
    Json(Box<Writer<Vec<u8>, JsonArray>>),
    Csv { schema: SchemaRef, started: bool },
    Plain(Table),
    Spice(Box<Envelope>),
    Arrow(Box<ArrowStream>),
}

impl Encoder {
    /// An encoder of answers with this schema.
    ///
    /// # Errors
    /// A schema that the format cannot hold.
    pub fn try_new(format: Format, schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Json => {
                refuse_duplicates(schema.fields())?;
                Self::Json(Box::new(WriterBuilder::new().with_explicit_nulls(true).build(Vec::new())))
            }
            Format::Csv => Self::Csv { schema: Arc::new(flat_schema(schema)), started: false },
            Format::Plain => Self::Plain(Table { schema: SchemaRef::clone(schema), ..Table::default() }),
            Format::Spice => {
                refuse_duplicates(schema.fields())?;
                Self::Spice(Box::new(Envelope::try_new(schema)?))
            }
            Format::Arrow => Self::Arrow(Box::new(ArrowStream::try_new(schema)?)),
        })
    }

    /// Cuts a batch into chunks that are encoded one at a time.
    pub fn chunks(batch: &RecordBatch) -> Vec<RecordBatch> {
        let rows = batch.num_rows();
        (0..rows).step_by(CHUNK_ROWS).map(|at| batch.slice(at, CHUNK_ROWS.min(rows - at))).collect()
    }

    /// Whether more rows would not be shown.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Plain(table) if table.is_cut)
    }

    /// The text of a chunk.
    ///
    /// # Errors
    /// Types and values that the format cannot write.
    pub fn encode(&mut self, chunk: &RecordBatch) -> Result<Bytes, ArrowError> {
        if !matches!(self, Self::Arrow(_)) {
            times::check(chunk)?;
        }
        match self {
            Self::Spice(envelope) => envelope.encode(chunk).map(Bytes::from),
            Self::Arrow(stream) => stream.encode(chunk).map(Bytes::from),
            Self::Json(writer) => {
                writer.write(chunk)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::Csv { schema, started } => {
                let header = !std::mem::replace(started, true);
                csv_text(&flat_batch(chunk, schema)?, header)
            }
            Self::Plain(table) => {
                table.add(chunk);
                Ok(Bytes::new())
            }
        }
    }

    /// What closes the answer.
    ///
    /// # Errors
    /// Types that the format cannot write.
    pub fn finish(&mut self) -> Result<Bytes, ArrowError> {
        match self {
            Self::Json(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::Csv { started: true, .. } => Ok(Bytes::new()),
            Self::Csv { schema, .. } => csv_text(&RecordBatch::new_empty(SchemaRef::clone(schema)), true),
            Self::Plain(table) => table.print(),
            Self::Spice(envelope) => envelope.finish().map(Bytes::from),
            Self::Arrow(stream) => stream.finish().map(Bytes::from),
        }
    }
}

/// Two equal keys of a JSON object would be one value for most readers: the other were lost.
fn refuse_duplicates(fields: &Fields) -> Result<(), ArrowError> {
    let mut seen = HashSet::new();
    for field in fields {
        if !seen.insert(field.name()) {
            return Err(ArrowError::NotYetImplemented(format!(
                "two columns of the answer are named `{}`, and a JSON object can hold only one of them: \
                 name them apart with AS, or ask for text/csv",
                field.name()
            )));
        }
        refuse_nested_duplicates(field)?;
    }
    Ok(())
}

fn refuse_nested_duplicates(field: &FieldRef) -> Result<(), ArrowError> {
    match field.data_type() {
        DataType::Struct(fields) => refuse_duplicates(fields),
        // The entries of a map are its key and value: only the value can hold a struct.
        DataType::Map(inner, _)
        | DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _) => refuse_nested_duplicates(inner),
        _ => Ok(()),
    }
}

fn csv_text(batch: &RecordBatch, header: bool) -> Result<Bytes, ArrowError> {
    let mut text = Vec::new();
    csv::WriterBuilder::new().with_header(header).build(&mut text).write(batch)?;
    Ok(text.into())
}

/// The schema with nested columns as JSON text: a CSV field is one text.
fn flat_schema(schema: &Schema) -> Schema {
    let flat = |field: &FieldRef| match field.data_type().is_nested() {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(flat).collect::<Fields>())
}

fn flat_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let fields = batch.schema();
    let columns = fields.fields().iter().zip(batch.columns()).map(|(field, column)| {
        match field.data_type().is_nested() {
            true => json_text(field, column),
            false => Ok(Arc::clone(column)),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &options)
}

fn json_text(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column, &options)?;
    let mut text = Vec::new();
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        let written = std::str::from_utf8(&text).map_err(|e| ArrowError::JsonError(e.to_string()))?;
        texts.append_value(written);
    }
    Ok(Arc::new(texts.finish()))
}

/// A table for eyes.
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    is_cut: bool,
}

impl Default for Table {
    fn default() -> Self {
        let schema = Arc::new(Schema::empty());
        Self { schema, batches: Vec::new(), rows: 0, bytes: 0, is_cut: false }
    }
}

impl Table {
    fn add(&mut self, chunk: &RecordBatch) {
        let kept = chunk.num_rows().min(TABLE_ROWS_MAX - self.rows);
        let share = chunk.get_array_memory_size() / chunk.num_rows().max(1);
        let kept = kept.min((TABLE_BYTES_MAX - self.bytes) / share.max(1));
        self.is_cut |= kept < chunk.num_rows();
        self.rows += kept;
        self.bytes += kept * share;
        self.batches.push(chunk.slice(0, kept));
    }

    fn print(&self) -> Result<Bytes, ArrowError> {
        let options = FormatOptions::new().with_null("NULL");
        let text = match self.batches.is_empty() {
            true => {
                let empty = [RecordBatch::new_empty(SchemaRef::clone(&self.schema))];
                pretty_format_batches_with_options(&empty, &options)?.to_string()
            }
            false => pretty_format_batches_with_options(&self.batches, &options)?.to_string(),
        };
        let rest = match self.is_cut {
            true => format!(
                "\n(the first {} rows; ask for application/json or text/csv to read all of them)",
                self.rows
            ),
            false => String::new(),
        };
        Ok(format!("{text}{rest}\n").into())
    }
}
