//! The name of an immutable run of rows.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a chunk for as long as this process lives: the rows under an id never change, and no id is given twice. A
/// restart gives new ids; what a folder on disk calls its files is the folder's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChunkId(u64);

/// The one counter of the process: a number that two tables shared would let one's rows pass for the other's.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl ChunkId {
    /// An id that was never given before.
    pub fn fresh() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
