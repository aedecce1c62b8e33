//! Which of the new rows are here already: whole rows, counted.
//!
//! New batches and the generation that they are to stand on enter, the batches less what is held leave. A row that is
//! equal to a new one has its time, so that only rows of the new rows' times are read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, Rows, SortField};

use super::chosen::Chosen;
use super::time::{Span, nanoseconds};
use super::{Budget, Chunk, Generation, Key, Layout, OnConflict, StoreError};

/// About what a new row costs while it is counted, beside its encoded values, in bytes.
const COUNTED_ROW_BYTES: usize = 64;

/// Of a row that is in `batches` twice and held once, the later one is unseen.
///
/// # Errors
/// [`StoreError::Memory`], [`StoreError::Time`], or a kernel's failure.
pub(super) fn unseen(
    previous: &Generation,
    batches: Vec<RecordBatch>,
    budget: &Budget,
) -> Result<Vec<RecordBatch>, StoreError> {
    let layout = previous.layout();
    let window = Window::of(layout, &batches)?;
    let held: Vec<&Arc<Chunk>> = previous.chunks().iter().filter(|chunk| window.meets(chunk)).collect();
    if held.is_empty() {
        return Ok(batches);
    }
    let seen = seen(layout, &batches, &held, &window, budget)?;
    let mut rest = seen.as_slice();
    let mut unseen = Vec::with_capacity(batches.len());
    for batch in &batches {
        let (own, others) = rest.split_at(batch.num_rows());
        let stays: BooleanArray = own.iter().map(|seen| Some(!seen)).collect();
        unseen.push(filter_record_batch(batch, &stays).map_err(StoreError::arrow(layout.name()))?);
        rest = others;
    }
    unseen.retain(|batch| batch.num_rows() > 0);
    Ok(unseen)
}

/// For each row of `batches` whether it is a copy of a row of `held`.
fn seen(
    layout: &Layout,
    batches: &[RecordBatch],
    held: &[&Arc<Chunk>],
    window: &Window,
    budget: &Budget,
) -> Result<Vec<bool>, StoreError> {
    let failed = StoreError::arrow(layout.name());
    let kind = |field: &Arc<arrow::datatypes::Field>| SortField::new(field.data_type().clone());
    let converter =
        RowConverter::new(layout.schema().fields().iter().map(kind).collect()).map_err(&failed)?;
    let new = encoded(&converter, batches).map_err(&failed)?;
    let _counting = budget.lease(new.size() + new.num_rows() * COUNTED_ROW_BYTES)?;
    let keyed = keyed(layout, batches);
    // By its bytes, where copies of a row stand among the new ones, the first one last.
    let mut copies: HashMap<&[u8], Vec<usize>> = HashMap::with_capacity(new.num_rows());
    for at in (0..new.num_rows()).rev().filter(|at| !keyed[*at]) {
        copies.entry(new.row(at).data()).or_default().push(at);
    }
    let mut seen = vec![false; new.num_rows()];
    for chunk in held {
        let within = window.rows(layout, chunk)?;
        let rows = chunk.all_of(&Chosen::At(within)).map_err(&failed)?;
        for row in &converter.convert_columns(rows.columns()).map_err(&failed)? {
            if let Some(at) = copies.get_mut(row.data()).and_then(Vec::pop) {
                seen[at] = true;
            }
        }
    }
    Ok(seen)
}

fn encoded(converter: &RowConverter, batches: &[RecordBatch]) -> Result<Rows, arrow::error::ArrowError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut encoded = converter.empty_rows(rows, 0);
    batches.iter().try_for_each(|batch| converter.append(&mut encoded, batch.columns()))?;
    Ok(encoded)
}

/// For each row whether `upsert` decides about it, and not counting: among the rows of one key the order in which they
/// were sent counts, also of those that are here already.
fn keyed(layout: &Layout, batches: &[RecordBatch]) -> Vec<bool> {
    let upserts = layout.keys().iter().filter(|key| key.on_conflict() == Some(OnConflict::Upsert));
    let upserts: Vec<&Key> = upserts.collect();
    let rows = |batch: &RecordBatch| {
        let whole = |key: &&Key, row| key.columns.iter().all(|column| batch.column(*column).is_valid(row));
        (0..batch.num_rows()).map(|row| upserts.iter().any(|key| whole(key, row))).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

/// The times of the new rows; none without a time column.
struct Window {
    span: Option<Span>,
}

impl Window {
    fn of(layout: &Layout, batches: &[RecordBatch]) -> Result<Self, StoreError> {
        let Some(time) = layout.time() else { return Ok(Self { span: None }) };
        let mut span = Span { bounds: None, has_nulls: false };
        for batch in batches {
            span = span.joined(&Span::of(&nanoseconds(layout, time, batch.column(time.column))?));
        }
        Ok(Self { span: Some(span) })
    }

    fn meets(&self, chunk: &Chunk) -> bool {
        self.span.zip(chunk.span()).is_none_or(|(span, held)| span.meets(&held))
    }

    /// The rows of `chunk` inside.
    fn rows(&self, layout: &Layout, chunk: &Chunk) -> Result<UInt32Array, StoreError> {
        let rows = 0..chunk.rows() as u32;
        Ok(match (self.span, layout.time()) {
            (Some(span), Some(time)) => {
                let times = nanoseconds(layout, time, chunk.plain(time.column))?;
                let inside = |row: &u32| has(&span, &times, *row as usize);
                UInt32Array::from_iter_values(rows.filter(inside))
            }
            _ => UInt32Array::from_iter_values(rows),
        })
    }
}

fn has(span: &Span, times: &Int64Array, row: usize) -> bool {
    match times.is_valid(row) {
        true => span.bounds.is_some_and(|(from, to)| (from..=to).contains(&times.value(row))),
        false => span.has_nulls,
    }
}
