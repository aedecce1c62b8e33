//! New rows on top of a generation.
//!
//! The upstream is asked for rows from the watermark less the overlap on, and so sends rows that are here already.
//! Those are taken out by counting whole rows: of a row that came twice and is here once, one is new.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;

use super::budget::Lease;
use super::cut::Cutter;
use super::generation::watermark;
use super::seal::Seal;
use super::{Budget, Chunk, Generation, StoreError, dedup, shape};

/// An append on its way. Dropping it leaves the generation before as it was.
pub(crate) struct Append {
    previous: Arc<Generation>,
    /// Rows that are here already are counted out.
    counts_out: bool,
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
        let counter = RecordBatchMemoryCounter::new();
        Self { previous, counts_out: true, batches: Vec::new(), counter, budget, open }
    }

    /// Of rows that are known to be new: each is one row more, whatever it is equal to.
    pub(crate) fn of_new_rows(previous: Arc<Generation>, budget: Budget) -> Self {
        Self { counts_out: false, ..Self::begin(previous, budget) }
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
    pub(crate) fn finish(mut self) -> Result<Option<Arc<Generation>>, StoreError> {
        let batches = std::mem::take(&mut self.batches);
        let layout = self.previous.layout();
        let mut cutter = Cutter::new(self.previous.size());
        let mut fresh = Vec::new();
        let batches = match self.counts_out {
            true => dedup::unseen(&self.previous, batches, &self.budget)?,
            false => batches,
        };
        for batch in batches {
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
            number: self.previous.number() + 1,
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
}
