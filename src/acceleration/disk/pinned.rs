//! Chunks of the generation that is served now, held for somebody who reads them one after another.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::files::ChunkFile;
use super::{DiskError, open};

/// A chunk's file. It stays on disk until the last clone is dropped, whatever is committed meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct PinnedChunk(Arc<ChunkFile>);

impl PinnedChunk {
    pub(super) fn new(file: &Arc<ChunkFile>) -> Self {
        Self(Arc::clone(file))
    }

    pub(crate) fn rows(&self) -> u64 {
        self.0.entry.rows
    }

    /// Of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.entry.bytes
    }

    /// What its rows take when they are read.
    pub(crate) fn memory(&self) -> u64 {
        self.0.entry.memory
    }

    /// Equal for clones, and for no two files that are pinned at the same time.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Its rows, verified. Blocks.
    ///
    /// # Errors
    /// [`DiskError::Damaged`], or the disk's failure.
    pub(crate) fn read(&self) -> Result<RecordBatch, DiskError> {
        open::rows_of(&self.0)
    }
}
