//! An upstream of messages that are encoded before they are asked for: `big_<bytes of a message>_<MB>`, and `small`, of
//! which any single row can be asked for.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use bytes::Bytes;
use futures::TryStreamExt;
use tonic::Status;

use crate::Result;
use crate::upstream::Tables;

const BIG: &str = "big_";
pub const SMALL: &str = "small";
/// What stands before the key, however the statement is spelt on its way.
const BY_KEY: &str = "= ";
/// Three 64-bit numbers, a string of 20 bytes and its offset.
const ROW_BYTES: usize = 3 * 8 + 20 + 4;
/// Different messages are worth so much, more than a cache holds; then they come again.
const DIFFERENT_BYTES: usize = 128 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("grp", DataType::Int64),
        field("value", DataType::Float64),
        field("name", DataType::Utf8),
    ]))
});

/// See the module.
#[derive(Default)]
pub struct Shelf(Mutex<HashMap<String, Vec<FlightData>>>);

/// The table of `megabytes` in messages of `message_bytes`.
pub fn big(message_bytes: usize, megabytes: usize) -> String {
    format!("{BIG}{message_bytes}_{megabytes}")
}

/// What asks for one row: another text for each.
pub fn row_sql(id: usize) -> String {
    format!("SELECT * FROM {SMALL} WHERE id {BY_KEY}{id}")
}

impl Tables for Shelf {
    fn schema(&self, text: &str) -> Result<SchemaRef, Status> {
        let known = text.contains(BIG) || text.contains(SMALL);
        known.then(|| Arc::clone(&SCHEMA)).ok_or_else(|| Status::not_found(format!("no table in: {text}")))
    }

    fn frames(&self, text: &str) -> Result<Vec<FlightData>, Status> {
        let frames = match text.split_once(BIG) {
            Some((_, sizes)) => self.big(sizes),
            None if text.contains(SMALL) => self.row(text),
            None => return Err(Status::not_found(format!("no table in: {text}"))),
        };
        frames.map_err(|error| Status::internal(error.to_string()))
    }
}

impl Shelf {
    /// What `make` encodes once.
    fn kept(&self, name: &str, make: impl FnOnce() -> Result<Vec<FlightData>>) -> Result<Vec<FlightData>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = all.get(name) {
            return Ok(frames.clone());
        }
        Ok(all.entry(name.to_owned()).or_insert(make()?).clone())
    }

    /// `sizes` begin as in the name after [`BIG`].
    fn big(&self, sizes: &str) -> Result<Vec<FlightData>> {
        let end = sizes.find(|letter: char| !letter.is_ascii_digit() && letter != '_').unwrap_or(sizes.len());
        let (message, megabytes) = sizes[..end].split_once('_').ok_or("no sizes")?;
        let (message, megabytes): (usize, usize) = (message.parse()?, megabytes.parse()?);
        let rows = message / ROW_BYTES;
        let frames = self.kept(&format!("{BIG}{message}"), || {
            let starts = (0..DIFFERENT_BYTES / ROW_BYTES).step_by(rows);
            encoded(starts.map(|first| batch(first, rows)).collect::<Result<_>>()?)
        })?;
        let (schema, bodies) = frames.split_first().ok_or("no schema")?;
        let count = (megabytes * 1_000_000).div_ceil(rows * ROW_BYTES);
        Ok(std::iter::once(schema).chain(bodies.iter().cycle().take(count)).cloned().collect())
    }

    /// One row. Only its key differs: it is written over that of an encoded one.
    fn row(&self, text: &str) -> Result<Vec<FlightData>> {
        let mut frames = self.kept(SMALL, || encoded(vec![batch(0, 1)?]))?;
        let id: i64 = match text.split_once(BY_KEY) {
            Some((_, id)) => {
                id.split(|letter: char| !letter.is_ascii_digit()).next().ok_or("no key")?.parse()?
            }
            None => 0,
        };
        let row = frames.last_mut().ok_or("no row")?;
        let mut body = row.data_body.to_vec();
        body.get_mut(..8).ok_or("a body without a key")?.copy_from_slice(&id.to_le_bytes());
        row.data_body = Bytes::from(body);
        Ok(frames)
    }
}

/// The schema, and a message for each batch however large it is.
fn encoded(batches: Vec<RecordBatch>) -> Result<Vec<FlightData>> {
    let builder = FlightDataEncoderBuilder::new().with_max_flight_data_size(usize::MAX);
    let input = futures::stream::iter(batches.into_iter().map(Ok));
    let stream = builder.with_schema(Arc::clone(&SCHEMA)).build(input);
    Ok(futures::executor::block_on(stream.try_collect())?)
}

fn batch(first: usize, rows: usize) -> Result<RecordBatch> {
    let ids = i64::try_from(first)?..i64::try_from(first + rows)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id % 97))),
        Arc::new(Float64Array::from_iter_values(ids.clone().map(|id| (id % 1000) as f64 / 8.0))),
        Arc::new(StringArray::from_iter_values(ids.map(|id| format!("name-{id:015}")))),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
}
