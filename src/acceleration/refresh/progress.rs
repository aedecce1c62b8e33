//! How far a refresh is: rows are counted as they are taken, everybody may look, and nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use arrow::array::RecordBatch;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use crate::name::DatasetName;

/// How often the log is told of a long load.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A refresh on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Taken so far.
    pub rows: usize,
    /// As they came, in memory.
    pub bytes: usize,
    /// Since its rows were asked for.
    pub elapsed: Duration,
}

/// The refresh of one dataset that runs now, if one does.
#[derive(Default)]
pub(super) struct Underway(ArcSwapOption<Count>);

/// What one refresh has taken.
struct Count {
    begun: Instant,
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

/// One refresh; dropping it ends what is told of it.
pub(super) struct Counted {
    underway: Arc<Underway>,
    count: Arc<Count>,
}

impl Underway {
    /// A refresh begins, with nothing taken yet.
    pub(super) fn begin(self: &Arc<Self>) -> Counted {
        let (rows, bytes) = (AtomicUsize::default(), AtomicUsize::default());
        let count = Arc::new(Count { begun: Instant::now(), rows, bytes });
        self.0.store(Some(Arc::clone(&count)));
        Counted { underway: Arc::clone(self), count }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.0.load().as_ref().map(|count| count.progress())
    }
}

impl Count {
    fn add(&self, batch: &RecordBatch) {
        self.rows.fetch_add(batch.num_rows(), Ordering::Relaxed);
        self.bytes.fetch_add(get_record_batch_memory_size(batch), Ordering::Relaxed);
    }

    fn progress(&self) -> Progress {
        let (rows, bytes) = (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        Progress { rows, bytes, elapsed: self.begun.elapsed() }
    }
}

impl Counted {
    /// Rows that were taken otherwise.
    pub(super) fn add(&self, batch: &RecordBatch) {
        self.count.add(batch);
    }

    /// The same rows, counted as they are taken; a long load is told in the log too.
    pub(super) fn rows(
        &self,
        dataset: DatasetName,
        rows: SendableRecordBatchStream,
    ) -> SendableRecordBatchStream {
        let (count, schema) = (Arc::clone(&self.count), rows.schema());
        let mut reported = Instant::now();
        let rows = rows.inspect_ok(move |batch| {
            count.add(batch);
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                report(&dataset, count.progress());
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.underway.0.store(None);
    }
}

fn report(dataset: &DatasetName, progress: Progress) {
    let Progress { rows, bytes, elapsed } = progress;
    let (mb_per_s, elapsed_s) = (progress.mb_per_s(), elapsed.as_secs_f64());
    tracing::info!(%dataset, rows, bytes, mb_per_s, elapsed_s, "loading");
}

impl Progress {
    /// Megabytes (10^6) a second on the average.
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        // Nothing is measured in less than a millisecond.
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[tokio::test]
    async fn rows_are_counted_as_they_are_taken() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let batches = futures::stream::iter([Ok(batch.clone()), Ok(batch.clone())]);
        let rows = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), batches));
        let underway = Arc::<Underway>::default();
        assert_eq!(underway.progress(), None);
        let counted = underway.begin();
        let mut rows = counted.rows("t".parse().unwrap(), rows);
        let taken = || underway.progress().map(|told| (told.rows, told.bytes));
        assert_eq!(taken(), Some((0, 0)));
        rows.try_next().await.unwrap();
        assert_eq!(taken(), Some((1_000, 8_000)));
        rows.try_next().await.unwrap();
        drop(rows);
        assert_eq!(taken(), Some((2_000, 16_000)), "what is done with the rows belongs to it");
        drop(counted);
        assert_eq!(taken(), None);
    }

    #[test]
    fn speed_is_the_average() {
        let progress = Progress { rows: 7, bytes: 3_000_000, elapsed: Duration::from_secs(2) };
        assert!((progress.mb_per_s() - 1.5).abs() < 1e-9);
    }
}
