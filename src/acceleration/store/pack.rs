//! Batches of any size become batches of a file's size, for tables that are never in memory as a whole.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use datafusion::physical_plan::PhysicalExpr;

use super::budget::Lease;
use super::rebuild::staying;
use super::time::{Span, nanoseconds};
use super::{Budget, Layout, StoreError, shape};

/// A pack is full with so many rows: a row group, so that columns compress.
const PACK_ROWS: usize = 256 << 10;
/// Or with so many bytes: a few packs at a time are all that a load holds.
const PACK_BYTES: usize = 16 << 20;

/// Rows on their way into files.
pub(crate) struct Packer {
    layout: Arc<Layout>,
    /// True for the rows that are not kept.
    dropped: Vec<Arc<dyn PhysicalExpr>>,
    pieces: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    watermark: Option<i64>,
    budget: Budget,
    open: Lease,
}

/// Rows for one file, and their memory.
pub(crate) struct Pack {
    pub batch: RecordBatch,
    _lease: Lease,
}

impl Packer {
    /// Rows for which one of `dropped` (over the layout's schema) is true are left out.
    pub(crate) fn new(layout: Arc<Layout>, dropped: Vec<Arc<dyn PhysicalExpr>>, budget: Budget) -> Self {
        let open = budget.empty();
        Self { layout, dropped, pieces: Vec::new(), rows: 0, bytes: 0, watermark: None, budget, open }
    }

    /// The latest moment among all rows that came, those left out included; ns since the epoch.
    pub(crate) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// The packs that are full by now.
    ///
    /// # Errors
    /// [`StoreError::Schema`] for other columns, [`StoreError::Memory`], [`StoreError::Time`].
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<Option<Pack>, StoreError> {
        let batch =
            shape::fitted(self.layout.schema(), batch).map_err(|reason| self.layout.mismatch(reason))?;
        if let Some(time) = self.layout.time() {
            let span = Span::of(&nanoseconds(&self.layout, time, batch.column(time.column))?);
            self.watermark = self.watermark.max(span.bounds.map(|(_, last)| last));
        }
        let batch = kept(&self.layout, batch, &self.dropped)?;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (self.rows + batch.num_rows(), self.bytes + shape::bytes(&batch));
        self.open.resize(self.bytes)?;
        self.pieces.push(batch);
        match self.rows >= PACK_ROWS || self.bytes >= PACK_BYTES {
            true => self.rest(),
            false => Ok(None),
        }
    }

    /// What is left, as a pack of its own.
    ///
    /// # Errors
    /// [`StoreError::Memory`].
    pub(crate) fn rest(&mut self) -> Result<Option<Pack>, StoreError> {
        let pieces = std::mem::take(&mut self.pieces);
        (self.rows, self.bytes) = (0, 0);
        if pieces.is_empty() {
            return Ok(None);
        }
        let batch =
            shape::owned(self.layout.schema(), &pieces).map_err(StoreError::arrow(self.layout.name()))?;
        drop(pieces);
        self.open.resize(0)?;
        let lease = self.budget.lease(shape::bytes(&batch))?;
        Ok(Some(Pack { batch, _lease: lease }))
    }
}

/// `batch` less the rows for which one of `dropped` is true; the very batch when that is none of them.
///
/// # Errors
/// [`StoreError::Compute`] when a predicate fails on a row.
pub(crate) fn kept(
    layout: &Layout,
    batch: RecordBatch,
    dropped: &[Arc<dyn PhysicalExpr>],
) -> Result<RecordBatch, StoreError> {
    dropped.iter().try_fold(batch, |batch, predicate| {
        match staying(&batch, predicate).map_err(StoreError::compute(layout.name()))? {
            None => Ok(batch),
            Some(stays) => filter_record_batch(&batch, &stays).map_err(StoreError::arrow(layout.name())),
        }
    })
}
