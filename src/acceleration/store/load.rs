//! A full load: the whole table streams in, the next generation leaves.
//!
//! A chunk whose rows the generation before has too is shared with it, and its new copy is never made.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::budget::Lease;
use super::cut::{Cut, Cutter};
use super::generation::watermark;
use super::seal::Seal;
use super::{Budget, Chunk, Generation, Layout, StoreError, shape};

/// A full load on its way. Dropping it leaves the generation before as it was.
pub(crate) struct Load {
    layout: Arc<Layout>,
    number: u64,
    /// The generation before, where it has the same layout.
    previous: Option<Arc<Generation>>,
    /// Chunks of `previous` that were not met yet, by fingerprint.
    known: HashMap<u64, Vec<Arc<Chunk>>>,
    cutter: Cutter,
    chunks: Vec<Arc<Chunk>>,
    budget: Budget,
    /// The rows that no chunk has yet.
    open: Lease,
}

impl Load {
    /// `previous` is what the number follows and what chunks are shared with; of another layout only the number
    /// counts.
    pub(crate) fn begin(layout: Arc<Layout>, previous: Option<Arc<Generation>>, budget: Budget) -> Self {
        let number = previous.as_ref().map_or(1, |previous| previous.number() + 1);
        let previous = previous.filter(|previous| *previous.layout() == layout);
        let mut known: HashMap<u64, Vec<Arc<Chunk>>> = HashMap::new();
        for chunk in previous.iter().flat_map(|previous| previous.chunks()) {
            known.entry(chunk.fingerprint()).or_default().push(Arc::clone(chunk));
        }
        let cutter = Cutter::new(previous.as_ref().and_then(|previous| previous.size()));
        let open = budget.empty();
        Self { layout, number, previous, known, cutter, chunks: Vec::new(), budget, open }
    }

    /// The same, to be numbered above `number`: of a table that was let go.
    pub(crate) fn numbered_after(mut self, number: u64) -> Self {
        self.number = self.number.max(number + 1);
        self
    }

    #[cfg(test)]
    pub(crate) fn in_small_chunks(mut self) -> Self {
        self.cutter = Cutter::new(Some(super::cut::Size::least()));
        self
    }

    /// # Errors
    /// [`StoreError::Schema`] for other columns, [`StoreError::Memory`], [`StoreError::Time`].
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch =
            shape::fitted(self.layout.schema(), batch).map_err(|reason| self.layout.mismatch(reason))?;
        self.open.resize(self.cutter.held() + shape::bytes(&batch))?;
        for cut in self.cutter.push(&batch).map_err(StoreError::compute(self.layout.name()))? {
            self.keep(&cut)?;
        }
        self.open.resize(self.cutter.held())
    }

    /// # Errors
    /// As [`Load::push`]; [`StoreError::DuplicateKey`] and [`StoreError::NullKey`] as the layout's keys say.
    pub(crate) fn finish(mut self) -> Result<Arc<Generation>, StoreError> {
        if let Some(cut) = self.cutter.rest() {
            self.keep(&cut)?;
        }
        self.open.resize(0)?;
        let seal = Seal {
            layout: &self.layout,
            number: self.number,
            previous: self.previous.as_deref(),
            size: self.cutter.size(),
            watermark: watermark(None, &self.chunks),
            budget: &self.budget,
        };
        seal.settled(self.chunks)
    }

    fn keep(&mut self, cut: &Cut) -> Result<(), StoreError> {
        let chunk = match self.shared(cut).map_err(StoreError::arrow(self.layout.name()))? {
            Some(chunk) => chunk,
            None => Chunk::build(&self.layout, &cut.pieces, cut.fingerprint, &self.budget)?,
        };
        self.chunks.push(chunk);
        Ok(())
    }

    /// Each chunk is shared once: rows that stand twice in the table stand in two chunks.
    fn shared(&mut self, cut: &Cut) -> Result<Option<Arc<Chunk>>, ArrowError> {
        let Some(alike) = self.known.get_mut(&cut.fingerprint) else { return Ok(None) };
        for at in 0..alike.len() {
            if alike[at].holds(&cut.pieces)? {
                return Ok(Some(alike.swap_remove(at)));
            }
        }
        Ok(None)
    }
}
