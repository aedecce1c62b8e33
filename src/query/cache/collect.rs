//! Batches on their way into the cache: counted, reserved in the memory pool, and not larger than what they show.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use datafusion::execution::memory_pool::MemoryReservation;

use crate::acceleration::store::shape;

/// What a batch may hold of memory without being copied, in bytes beyond twice its rows.
const SLACK_BYTES: usize = 4 << 10;
/// The structs around the buffers of one column, in bytes.
const COLUMN_BYTES: usize = 256;

/// Counts the batches of one result.
pub(super) struct Collector {
    bytes: usize,
    bytes_max: usize,
    /// In the pool that queries use too.
    held: Arc<MemoryReservation>,
}

impl Collector {
    /// For a result of at most `bytes_max`; `bytes` of them are used already.
    pub fn new(held: MemoryReservation, bytes: usize, bytes_max: usize) -> Self {
        Self { bytes, bytes_max, held: Arc::new(held) }
    }

    /// The batch as it may be kept, or as it came when there is no room for it.
    pub fn take(&mut self, batch: RecordBatch) -> Result<RecordBatch, RecordBatch> {
        // What would not fit even when copied is not copied first.
        let rows = row_bytes(&batch);
        if rows.is_some_and(|rows| self.bytes.saturating_add(rows) > self.bytes_max) {
            return Err(batch);
        }
        let kept = match rows {
            Some(rows) if shape::bytes(&batch) > 2 * rows + SLACK_BYTES => {
                match shape::owned(batch.schema_ref(), std::slice::from_ref(&batch)) {
                    Ok(copy) => copy,
                    Err(_) => return Err(batch),
                }
            }
            _ => batch.clone(),
        };
        let bytes = self.bytes.saturating_add(shape::bytes(&kept) + COLUMN_BYTES * kept.num_columns());
        if bytes > self.bytes_max || self.held.try_resize(bytes).is_err() {
            return Err(batch);
        }
        self.bytes = bytes;
        Ok(kept)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What gives the memory back when the last one lets go.
    pub fn held(&self) -> Arc<MemoryReservation> {
        Arc::clone(&self.held)
    }
}

/// What the rows themselves take, in bytes; views without their text. None where Arrow cannot tell.
fn row_bytes(batch: &RecordBatch) -> Option<usize> {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().ok()).sum()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use super::*;

    fn numbers(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn collector(pool: &Arc<dyn MemoryPool>, bytes_max: usize) -> Collector {
        Collector::new(MemoryConsumer::new("test").register(pool), 0, bytes_max)
    }

    #[test]
    fn a_slice_does_not_keep_what_it_was_cut_from() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let mut collector = collector(&pool, 1 << 20);
        let large = numbers(1_000_000);
        let kept = collector.take(large.slice(7, 3)).unwrap();
        assert_eq!(kept, large.slice(7, 3));
        assert!(shape::bytes(&kept) < 1_000 && collector.bytes() < 1_000, "{}", collector.bytes());
        assert_eq!(pool.reserved(), collector.bytes());

        let texts = (0..10_000).map(|n| format!("a text that is long enough to stand apart: {n}"));
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let views = RecordBatch::try_from_iter([("t", column)]).unwrap();
        let kept = collector.take(views.slice(9, 2)).unwrap();
        assert_eq!(kept, views.slice(9, 2));
        assert!(shape::bytes(&kept) < 2_000, "{}", shape::bytes(&kept));

        let whole = collector.take(numbers(10_000)).unwrap();
        let buffer = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
        let tight = numbers(10_000);
        assert_eq!(
            buffer(&collector.take(tight.clone()).unwrap()),
            buffer(&tight),
            "a whole batch was copied"
        );
        drop((whole, kept));
        drop(collector);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100_000));
        let mut bounded = collector(&pool, 10_000);
        assert!(bounded.take(numbers(1_000)).is_ok());
        assert_eq!(bounded.take(numbers(1_000)).unwrap_err(), numbers(1_000));
        let mut refused = collector(&pool, 1 << 30);
        assert_eq!(refused.take(numbers(100_000)).unwrap_err().num_rows(), 100_000);
    }
}
