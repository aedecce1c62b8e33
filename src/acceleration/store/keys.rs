//! Which rows may have a key: hashes of keys with the places of their rows, in layers that generations share.
//!
//! A layer is a sorted list, 8 bytes a row: 32 bits of the key's hash, and the ordinal of the row in the layer. New
//! chunks bring a layer of their own; layers of like size are merged, so that a table has few of them and an append
//! costs what it brings. Chunks that are gone leave dead places behind, dropped when they are more than the living.
//! A place is a candidate: whoever asks compares the key itself.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use datafusion::error::Result;

use crate::acceleration::chunk_id::ChunkId;

use super::budget::{Budget, Lease};
use super::{Chunk, StoreError, hash};

/// Where the chunks of a generation stand.
pub(super) type Positions = HashMap<ChunkId, usize>;

/// A row of a generation, ordered as it arrived: the position of its chunk, then its own in the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub chunk: usize,
    pub row: u32,
}

/// The index of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyIndex {
    /// The oldest and largest first.
    layers: Vec<Arc<Layer>>,
}

/// The keys of some chunks.
#[derive(Debug)]
pub(super) struct Layer {
    parts: Vec<Part>,
    /// Hash in the upper half, ordinal in the lower, sorted. Keys with a NULL are left out.
    entries: Vec<u64>,
    _lease: Lease,
}

/// The ordinals of one chunk: `first` and the `rows` from there.
#[derive(Debug, Clone, Copy)]
struct Part {
    chunk: ChunkId,
    first: u32,
    rows: u32,
}

/// The 32 bits of a hash that layers keep.
pub(super) fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl KeyIndex {
    /// Every living row whose key has this hash, and those of some other keys.
    pub(super) fn candidates<'a>(
        &'a self,
        hash: u32,
        live: &'a Positions,
    ) -> impl Iterator<Item = Place> + 'a {
        self.layers.iter().flat_map(move |layer| layer.candidates(hash, live))
    }

    /// Bytes of all layers.
    pub(super) fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes()).sum()
    }

    /// This index for the chunks of `live`, with the layers that the new ones among them brought.
    ///
    /// # Errors
    /// [`StoreError::Memory`].
    pub(super) fn extended(
        &self,
        added: Vec<Arc<Layer>>,
        live: &Positions,
        budget: &Budget,
    ) -> Result<Self, StoreError> {
        let mut layers: Vec<Arc<Layer>> = Vec::new();
        for layer in self.layers.iter().cloned().chain(added) {
            match layer.living(live) {
                0 => continue,
                living if 2 * living < layer.rows() => {
                    layers.push(Arc::new(Layer::merged(&[&layer], live, budget)?))
                }
                _ => layers.push(layer),
            }
            while let [.., older, newer] = layers.as_slice() {
                let (old, new) = (older.living(live), newer.living(live));
                if 2 * new < old || old + new > u32::MAX as usize {
                    break;
                }
                let merged = Layer::merged(&[older, newer], live, budget)?;
                layers.truncate(layers.len() - 2);
                layers.push(Arc::new(merged));
            }
        }
        Ok(Self { layers })
    }
}

impl Layer {
    /// The keys of `chunks` in the columns `key`, in as few layers as their ordinals allow.
    ///
    /// # Errors
    /// [`StoreError::Memory`], or a kernel's failure.
    pub(super) fn over(
        chunks: &[&Arc<Chunk>],
        key: &[usize],
        budget: &Budget,
        failed: &dyn Fn(datafusion::error::DataFusionError) -> StoreError,
    ) -> Result<Vec<Arc<Self>>, StoreError> {
        let mut layers = Vec::new();
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |chunk: &&&Arc<Chunk>| {
                rows += chunk.rows();
                rows <= u32::MAX as usize
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            layers.push(Arc::new(Self::of(now, key, budget, failed)?));
            rest = later;
        }
        Ok(layers)
    }

    fn of(
        chunks: &[&Arc<Chunk>],
        key: &[usize],
        budget: &Budget,
        failed: &dyn Fn(datafusion::error::DataFusionError) -> StoreError,
    ) -> Result<Self, StoreError> {
        let rows: usize = chunks.iter().map(|chunk| chunk.rows()).sum();
        let lease = budget.lease(rows * size_of::<u64>())?;
        let (mut parts, mut entries) = (Vec::with_capacity(chunks.len()), Vec::with_capacity(rows));
        let mut first = 0;
        for chunk in chunks {
            let columns: Vec<ArrayRef> = key.iter().map(|at| Arc::clone(chunk.plain(*at))).collect();
            let hashes = hash::of_rows(&columns, chunk.rows()).map_err(failed)?;
            for (row, hash) in hashes.into_iter().enumerate() {
                if columns.iter().all(|column| column.is_valid(row)) {
                    entries.push(u64::from(short(hash)) << 32 | u64::from(first + row as u32));
                }
            }
            parts.push(Part { chunk: chunk.id(), first, rows: chunk.rows() as u32 });
            first += chunk.rows() as u32;
        }
        entries.sort_unstable();
        Ok(Self { parts, entries, _lease: lease })
    }

    /// The living places of `layers` in one.
    fn merged(layers: &[&Arc<Self>], live: &Positions, budget: &Budget) -> Result<Self, StoreError> {
        let rows: usize = layers.iter().map(|layer| layer.living(live)).sum();
        let lease = budget.lease(rows * size_of::<u64>())?;
        let (mut parts, mut entries) = (Vec::new(), Vec::with_capacity(rows));
        let mut first = 0;
        for layer in layers {
            // By the part's position in the layer: where its ordinals begin now.
            let mut moved = Vec::with_capacity(layer.parts.len());
            for part in &layer.parts {
                let lives = live.contains_key(&part.chunk);
                moved.push(lives.then_some(first));
                if lives {
                    parts.push(Part { first, ..*part });
                    first += part.rows;
                }
            }
            entries.extend(layer.entries.iter().filter_map(|entry| {
                let at = layer.part_of(*entry as u32);
                let ordinal = moved[at]? + (*entry as u32 - layer.parts[at].first);
                Some(entry >> 32 << 32 | u64::from(ordinal))
            }));
        }
        // The stable sort finds the runs that are in order already.
        entries.sort();
        Ok(Self { parts, entries, _lease: lease })
    }

    /// Runs of entries with one hash.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, &[u64])> {
        self.entries.chunk_by(|one, other| one >> 32 == other >> 32).map(|run| (short(run[0]), run))
    }

    /// The place that an entry stands for, if its chunk lives.
    pub(super) fn place(&self, entry: u64, live: &Positions) -> Option<Place> {
        let ordinal = entry as u32;
        let part = self.parts[self.part_of(ordinal)];
        let chunk = *live.get(&part.chunk)?;
        Some(Place { chunk, row: ordinal - part.first })
    }

    pub(super) fn candidates<'a>(
        &'a self,
        hash: u32,
        live: &'a Positions,
    ) -> impl Iterator<Item = Place> + 'a {
        let entries = &self.entries[self.about(hash)];
        let from = entries.partition_point(|entry| short(*entry) < hash);
        let run = entries[from..].iter().take_while(move |entry| short(**entry) == hash);
        run.filter_map(|entry| self.place(*entry, live))
    }

    /// A range that has every entry of this hash. Hashes are spread evenly, so that a small one around the share of
    /// the hash in all hashes nearly always does: a search in it costs the same in a small layer and in a large one.
    fn about(&self, hash: u32) -> std::ops::Range<usize> {
        let length = self.entries.len();
        let guess = ((length as u64 * u64::from(hash)) >> 32) as usize;
        let reach = 4 * length.isqrt() + 8;
        let (from, to) = (guess.saturating_sub(reach), (guess + reach).min(length));
        let before = from == 0 || short(self.entries[from - 1]) < hash;
        let after = to == length || short(self.entries[to]) > hash;
        if before && after { from..to } else { 0..length }
    }

    fn part_of(&self, ordinal: u32) -> usize {
        self.parts.partition_point(|part| part.first <= ordinal) - 1
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows as usize).sum()
    }

    fn living(&self, live: &Positions) -> usize {
        let parts = self.parts.iter().filter(|part| live.contains_key(&part.chunk));
        parts.map(|part| part.rows as usize).sum()
    }

    fn bytes(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }
}
