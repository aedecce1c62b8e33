//! The whole table at one moment.

use std::sync::{Arc, OnceLock};

use super::cut::Size;
use super::keys::{KeyIndex, Positions};
use super::numbering::Numbering;
use super::{Chunk, Layout};

/// Never changes once it exists; its chunks and index layers are shared with the generations around it.
#[derive(Debug)]
pub(crate) struct Generation {
    number: u64,
    layout: Arc<Layout>,
    chunks: Vec<Arc<Chunk>>,
    positions: Positions,
    rows: usize,
    bytes: usize,
    watermark: Option<i64>,
    size: Option<Size>,
    /// One for each of the layout's keys.
    indexes: Vec<KeyIndex>,
    /// One for each column, once a query asked for it.
    numberings: Vec<OnceLock<Option<Arc<Numbering>>>>,
}

/// What [`Generation::new`] is made of.
pub(super) struct Parts {
    pub number: u64,
    pub layout: Arc<Layout>,
    pub chunks: Vec<Arc<Chunk>>,
    pub watermark: Option<i64>,
    pub size: Option<Size>,
    pub indexes: Vec<KeyIndex>,
}

impl Generation {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { number, layout, chunks, watermark, size, indexes } = parts;
        let rows = chunks.iter().map(|chunk| chunk.rows()).sum();
        let bytes = chunks.iter().map(|chunk| chunk.bytes()).sum::<usize>()
            + indexes.iter().map(KeyIndex::bytes).sum::<usize>();
        let positions = positions(&chunks);
        let numberings = layout.schema().fields().iter().map(|_| OnceLock::new()).collect();
        Arc::new(Self {
            number,
            layout,
            chunks,
            positions,
            rows,
            bytes,
            watermark,
            size,
            indexes,
            numberings,
        })
    }

    /// Greater than the number of every generation of the table before it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// In the order in which their rows arrived.
    pub(crate) fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the chunks and of the indexes, those shared with other generations included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The latest moment that was ever seen in the time column, in ns since the epoch; removing rows does not lower
    /// it, a full load sets it anew.
    pub(crate) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Numbers of the texts of the column at `column`, where it has few.
    pub(super) fn numbering(&self, column: usize) -> Option<Arc<Numbering>> {
        let kind = self.layout.schema().field(column).data_type();
        self.numberings[column]
            .get_or_init(|| Numbering::of(&self.chunks, column, kind).map(Arc::new))
            .clone()
    }

    pub(super) fn indexes(&self) -> &[KeyIndex] {
        &self.indexes
    }
}

pub(super) fn positions(chunks: &[Arc<Chunk>]) -> Positions {
    chunks.iter().enumerate().map(|(at, chunk)| (chunk.id(), at)).collect()
}

/// The latest moment of `chunks` and `before`.
pub(super) fn watermark<'a>(
    before: Option<i64>,
    chunks: impl IntoIterator<Item = &'a Arc<Chunk>>,
) -> Option<i64> {
    let last = |chunk: &Arc<Chunk>| chunk.span()?.bounds.map(|(_, last)| last);
    chunks.into_iter().filter_map(last).chain(before).max()
}
