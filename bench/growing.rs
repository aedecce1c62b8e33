//! Tables of the bench's upstream that can be made to grow and to change: `rows_<count>`.
//!
//! Row `n` has the key `n` and the time `n` ms after an epoch. The frames of a table are encoded once; rows after a time
//! (`"at" >= …`, an append's question) are encoded when they are asked for.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::{Action, FlightData};
use tonic::Status;

use crate::Result;
use crate::upstream::{BATCH_ROWS, Tables, encoded};

/// Milliseconds of row 0.
const EPOCH_MS: usize = 1_700_000_000_000;
const PREFIX: &str = "rows_";
/// Two keys of eight bytes, two values of eight, two strings of 20 bytes and their offsets.
pub const ROW_BYTES: usize = 4 * 8 + 2 * (20 + 4);

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("at", DataType::Int64),
        field("grp", DataType::Int64),
        field("value", DataType::Float64),
        field("name", DataType::Utf8),
        field("kind", DataType::Utf8),
    ]))
});

/// See the module.
#[derive(Default)]
pub struct Growing(Mutex<HashMap<usize, Grown>>);

/// One table.
struct Grown {
    rows: usize,
    /// Rows whose value is another one than at first, and how often it was changed.
    changed: (Range<usize>, usize),
    /// Of all rows, schema first; empty when they are to be encoded anew.
    frames: Vec<FlightData>,
}

/// The name of the table that has `rows` rows at first.
pub fn name(rows: usize) -> String {
    format!("{PREFIX}{rows}")
}

impl Growing {
    fn with<T>(&self, text: &str, act: impl FnOnce(&mut Grown) -> Result<T>) -> Result<T, Status> {
        let rows =
            number_after(text, PREFIX).ok_or_else(|| Status::not_found(format!("no table in: {text}")))?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = all.entry(rows).or_insert(Grown { rows, changed: (0..0, 0), frames: Vec::new() });
        act(table).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Tables for Growing {
    fn schema(&self, text: &str) -> Result<SchemaRef, Status> {
        self.with(text, |_| Ok(Arc::clone(&SCHEMA)))
    }

    fn frames(&self, text: &str) -> Result<Vec<FlightData>, Status> {
        let after = number_after(text, ">= ").map(|at| at.saturating_sub(EPOCH_MS));
        self.with(text, |table| match after {
            Some(first) => table.encoded(first.min(table.rows)..table.rows),
            None => {
                if table.frames.is_empty() {
                    table.frames = table.encoded(0..table.rows)?;
                }
                Ok(table.frames.clone())
            }
        })
    }

    /// `grow` with the body `rows_1000000 1000`: so many more rows. `change` with `rows_1000000 0 500`: other values in
    /// the rows from the first number up to the second.
    fn act(&self, action: &Action) -> Result<(), Status> {
        let body = String::from_utf8_lossy(&action.body).into_owned();
        let mut numbers = body.split(' ').skip(1).filter_map(|word| word.parse::<usize>().ok());
        self.with(&body, |table| {
            match (action.r#type.as_str(), numbers.next(), numbers.next()) {
                ("grow", Some(more), None) => table.rows += more,
                ("change", Some(first), Some(end)) => table.changed = (first..end, table.changed.1 + 1),
                _ => return Err(format!("no such action: {} {body}", action.r#type).into()),
            }
            table.frames = Vec::new();
            Ok(())
        })
    }
}

impl Grown {
    fn encoded(&self, rows: Range<usize>) -> Result<Vec<FlightData>> {
        let starts = rows.clone().step_by(BATCH_ROWS);
        let batches = starts.map(|first| self.batch(first..rows.end.min(first + BATCH_ROWS)));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        futures::executor::block_on(encoded(Arc::clone(&SCHEMA), batches))
    }

    fn batch(&self, rows: Range<usize>) -> Result<RecordBatch> {
        let ints = |of: fn(usize) -> usize| -> Result<ArrayRef> {
            let all = rows.clone().map(|row| i64::try_from(of(row)));
            Ok(Arc::new(Int64Array::from(all.collect::<std::result::Result<Vec<_>, _>>()?)))
        };
        let (changed, times) = &self.changed;
        let value = |row: usize| {
            let more = if changed.contains(&row) { *times } else { 0 };
            f64::from((row % 1000) as i32) / 8.0 + f64::from(more as i32)
        };
        let columns: Vec<ArrayRef> = vec![
            ints(|row| row)?,
            ints(|row| EPOCH_MS + row)?,
            ints(|row| row % 97)?,
            Arc::new(Float64Array::from_iter_values(rows.clone().map(value))),
            Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("name-{row:015}")))),
            Arc::new(StringArray::from_iter_values(rows.clone().map(|row| format!("kind-{:015}", row % 50)))),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
    }
}

/// The number that follows the first `mark` in `text`.
fn number_after(text: &str, mark: &str) -> Option<usize> {
    let (_, rest) = text.split_once(mark)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
