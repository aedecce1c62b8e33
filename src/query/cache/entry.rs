//! One result in the cache.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::basis::Basis;
use super::policy::Age;

/// A whole result, and what is known of where it came from.
pub(in crate::query) struct Entry {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Of the batches and the key.
    pub(super) bytes: usize,
    /// When the last row was here.
    pub(super) made: Instant,
    pub(super) basis: Basis,
    pub(in crate::query) is_upstream: bool,
    /// Given back when the entry is gone and nobody streams it any more.
    pub(super) _held: Arc<MemoryReservation>,
}

impl Entry {
    pub(super) fn age(&self, now: Instant) -> Age {
        match self.is_upstream {
            true => Age::Of(now.saturating_duration_since(self.made)),
            false => Age::Exact,
        }
    }
}
