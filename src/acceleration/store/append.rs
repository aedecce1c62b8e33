//! New rows on top of a generation.
//!
//! The upstream is asked for rows from the watermark less the overlap on, and so sends rows that are here already.
//! Those are taken out by counting whole rows: of a row that came twice and is here once, one is new.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_arrays};
use arrow::row::{RowConverter, SortField};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;

use super::budget::Lease;
use super::cut::Cutter;
use super::generation::watermark;
use super::seal::Seal;
use super::time::{Span, nanoseconds};
use super::{Budget, Chunk, Generation, Layout, StoreError, shape};

/// About what a new row costs while it is counted, beside its encoded values, in bytes.
const COUNTED_ROW_BYTES: usize = 64;

/// An append on its way. Dropping it leaves the generation before as it was.
pub(crate) struct Append {
    previous: Arc<Generation>,
    batches: Vec<RecordBatch>,
    counter: RecordBatchMemoryCounter,
    budget: Budget,
    open: Lease,
}

impl Append {
    /// Which rows are already here is decided among the rows of the same time as the new ones, or among all where
    /// the layout has no time column.
    pub(crate) fn begin(previous: Arc<Generation>, budget: Budget) -> Self {
        let open = budget.empty();
        Self { previous, batches: Vec::new(), counter: RecordBatchMemoryCounter::new(), budget, open }
    }

    /// # Errors
    /// [`StoreError::Schema`] for other columns, [`StoreError::Memory`].
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let layout = self.previous.layout();
        let batch = shape::fitted(layout.schema(), batch).map_err(|reason| layout.mismatch(reason))?;
        self.counter.count_batch(&batch);
        self.open.resize(self.counter.memory_usage())?;
        self.batches.push(batch);
        Ok(())
    }

    /// None when nothing is new.
    ///
    /// # Errors
    /// [`StoreError::Memory`], [`StoreError::Time`]; [`StoreError::DuplicateKey`] and [`StoreError::NullKey`] as the
    /// layout's keys say.
    pub(crate) fn finish(self) -> Result<Option<Arc<Generation>>, StoreError> {
        let layout = self.previous.layout();
        let mut cutter = Cutter::new(self.previous.size());
        let mut fresh = Vec::new();
        for batch in self.unseen()? {
            for cut in cutter.push(&batch).map_err(StoreError::compute(layout.name()))? {
                fresh.push(Chunk::build(layout, &cut.pieces, cut.fingerprint, &self.budget)?);
            }
        }
        if let Some(cut) = cutter.rest() {
            fresh.push(Chunk::build(layout, &cut.pieces, cut.fingerprint, &self.budget)?);
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let seal = Seal {
            layout,
            previous: Some(&self.previous),
            size: cutter.size(),
            watermark: watermark(self.previous.watermark(), &fresh),
            budget: &self.budget,
        };
        let next = seal.settled(self.previous.chunks().iter().cloned().chain(fresh).collect())?;
        let ids =
            |generation: &Generation| generation.chunks().iter().map(|chunk| chunk.id()).collect::<Vec<_>>();
        let same = next.watermark() == self.previous.watermark() && ids(&next) == ids(&self.previous);
        Ok((!same).then_some(next))
    }

    /// The batches less the rows that are here already.
    fn unseen(&self) -> Result<Vec<RecordBatch>, StoreError> {
        let window = Window::of(self.previous.layout(), &self.batches)?;
        let held: Vec<&Arc<Chunk>> =
            self.previous.chunks().iter().filter(|chunk| window.meets(chunk)).collect();
        if held.is_empty() || self.batches.is_empty() {
            return Ok(self.batches.clone());
        }
        let failed = StoreError::arrow(self.previous.layout().name());
        let fields = self.previous.layout().schema().fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(&failed)?;
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        let mut encoded = converter.empty_rows(rows, 0);
        for batch in &self.batches {
            converter.append(&mut encoded, batch.columns()).map_err(&failed)?;
        }
        let _counting = self.budget.lease(encoded.size() + rows * COUNTED_ROW_BYTES)?;
        let mut copies: HashMap<&[u8], Vec<usize>> = HashMap::with_capacity(rows);
        for (at, row) in encoded.iter().enumerate().rev() {
            copies.entry(row.data()).or_default().push(at);
        }
        let mut new = vec![true; rows];
        for chunk in held {
            let Some(within) = window.rows(self.previous.layout(), chunk)? else { continue };
            let columns = take_arrays(chunk.batch().columns(), &within, None).map_err(&failed)?;
            let held = converter.convert_columns(&columns).map_err(&failed)?;
            for row in &held {
                if let Some(at) = copies.get_mut(row.data()).and_then(Vec::pop) {
                    new[at] = false;
                }
            }
        }
        let mut new = new.as_slice();
        let mut unseen = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let (own, rest) = new.split_at(batch.num_rows());
            unseen.push(filter_record_batch(batch, &BooleanArray::from(own.to_vec())).map_err(&failed)?);
            new = rest;
        }
        unseen.retain(|batch| batch.num_rows() > 0);
        Ok(unseen)
    }
}

/// The times of the new rows: a row that is equal to one of them has one of these times.
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

    /// The rows of `chunk` inside; none when there are none.
    fn rows(&self, layout: &Layout, chunk: &Chunk) -> Result<Option<UInt32Array>, StoreError> {
        let rows = 0..chunk.rows() as u32;
        let inside: UInt32Array = match (self.span, layout.time()) {
            (Some(span), Some(time)) => {
                let times = nanoseconds(layout, time, chunk.batch().column(time.column))?;
                UInt32Array::from_iter_values(rows.filter(|row| span.has(&times, *row as usize)))
            }
            _ => UInt32Array::from_iter_values(rows),
        };
        Ok((!inside.is_empty()).then_some(inside))
    }
}

impl Span {
    fn has(&self, times: &Int64Array, row: usize) -> bool {
        match times.is_valid(row) {
            true => self.bounds.is_some_and(|(from, to)| (from..=to).contains(&times.value(row))),
            false => self.has_nulls,
        }
    }
}
