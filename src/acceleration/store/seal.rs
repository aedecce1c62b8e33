//! A list of chunks becomes a generation: keys hold, indexes cover every chunk.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;

use super::conflict::{self, Lost};
use super::cut::{Size, fingerprint};
use super::generation::{Parts, positions};
use super::keys::{KeyIndex, Layer, Positions};
use super::{Budget, Chunk, Generation, Layout, StoreError};

/// The generation that is being built. Chunks that `previous` has are known to keep the keys among themselves.
pub(super) struct Seal<'a> {
    pub layout: &'a Arc<Layout>,
    pub number: u64,
    /// Of the same layout.
    pub previous: Option<&'a Generation>,
    pub size: Option<Size>,
    pub watermark: Option<i64>,
    pub budget: &'a Budget,
}

impl Seal<'_> {
    /// With `chunks` as they are: the keys are known to hold.
    pub(super) fn trusted(self, chunks: Vec<Arc<Chunk>>) -> Result<Arc<Generation>, StoreError> {
        let live = positions(&chunks);
        let fresh = self.fresh(&chunks, &self.indexed());
        let indexes = self.extended(&self.indexes(), self.layers(&fresh)?, &live)?;
        Ok(self.generation(chunks, indexes))
    }

    /// With `chunks` less the rows that another row of the same key overrules.
    pub(super) fn settled(self, chunks: Vec<Arc<Chunk>>) -> Result<Arc<Generation>, StoreError> {
        let live = positions(&chunks);
        let fresh = self.fresh(&chunks, &self.indexed());
        let layers = self.layers(&fresh)?;
        let lost = conflict::losers(&conflict::Field {
            layout: self.layout,
            chunks: &chunks,
            fresh: &fresh,
            live: &live,
            layers: &layers,
            indexes: &self.indexes(),
            budget: self.budget,
        })?;
        if lost.is_empty() {
            let indexes = self.extended(&self.indexes(), layers, &live)?;
            return Ok(self.generation(chunks, indexes));
        }
        let mut known = self.indexed();
        known.extend(positions(&chunks));
        let chunks = self.without(chunks, &lost)?;
        let live = positions(&chunks);
        let indexes = self.extended(&self.indexes(), layers, &live)?;
        let rebuilt = self.fresh(&chunks, &known);
        let indexes = self.extended(&indexes, self.layers(&rebuilt)?, &live)?;
        Ok(self.generation(chunks, indexes))
    }

    fn generation(self, chunks: Vec<Arc<Chunk>>, indexes: Vec<KeyIndex>) -> Arc<Generation> {
        Generation::new(Parts {
            number: self.number,
            layout: Arc::clone(self.layout),
            chunks,
            watermark: self.watermark,
            size: self.size,
            indexes,
        })
    }

    fn indexed(&self) -> Positions {
        self.previous.map(|previous| previous.positions().clone()).unwrap_or_default()
    }

    fn indexes(&self) -> Vec<KeyIndex> {
        let empty = || vec![KeyIndex::default(); self.layout.keys().len()];
        self.previous.map_or_else(empty, |previous| previous.indexes().to_vec())
    }

    /// The chunks that are not among `known`.
    fn fresh<'c>(&self, chunks: &'c [Arc<Chunk>], known: &Positions) -> Vec<&'c Arc<Chunk>> {
        chunks.iter().filter(|chunk| !known.contains_key(&chunk.id())).collect()
    }

    /// For each key the layers over `fresh`.
    fn layers(&self, fresh: &[&Arc<Chunk>]) -> Result<Vec<Vec<Arc<Layer>>>, StoreError> {
        let failed = StoreError::compute(self.layout.name());
        let keys = self.layout.keys().iter();
        keys.map(|key| Layer::over(fresh, &key.columns, self.budget, &failed)).collect()
    }

    fn extended(
        &self,
        indexes: &[KeyIndex],
        layers: Vec<Vec<Arc<Layer>>>,
        live: &Positions,
    ) -> Result<Vec<KeyIndex>, StoreError> {
        let each = indexes.iter().zip(layers);
        each.map(|(index, added)| index.extended(added, live, self.budget)).collect()
    }

    fn without(&self, chunks: Vec<Arc<Chunk>>, lost: &Lost) -> Result<Vec<Arc<Chunk>>, StoreError> {
        let mut kept = Vec::with_capacity(chunks.len());
        for (at, chunk) in chunks.into_iter().enumerate() {
            let Some(lost) = lost.get(&at) else {
                kept.push(chunk);
                continue;
            };
            let mut stays = vec![true; chunk.rows()];
            lost.iter().for_each(|row| stays[*row as usize] = false);
            kept.extend(reduced(self.layout, &chunk, &stays.into(), self.budget)?);
        }
        Ok(kept)
    }
}

/// The rows of `chunk` that stay; none when no row does.
pub(super) fn reduced(
    layout: &Layout,
    chunk: &Chunk,
    stays: &BooleanArray,
    budget: &Budget,
) -> Result<Option<Arc<Chunk>>, StoreError> {
    let batch = chunk.batch().map_err(StoreError::arrow(layout.name()))?;
    let rest = filter_record_batch(&batch, stays).map_err(StoreError::arrow(layout.name()))?;
    if rest.num_rows() == 0 {
        return Ok(None);
    }
    let fingerprint = fingerprint(&rest).map_err(StoreError::compute(layout.name()))?;
    Chunk::build(layout, &[rest], fingerprint, budget).map(Some)
}
