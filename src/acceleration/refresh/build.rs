//! A stream of batches becomes a generation, on threads for computing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::time::Instant;

use crate::acceleration::store::{Append, Generation, Load, StoreError};
use crate::task::blocking;

use super::error::RefreshError;
use super::progress::Progress;
use super::status::Board;

/// So many batches, where they are here already, are taken in one step.
const GROUP_MAX: usize = 16;
/// How often a long load says how far it is.
const REPORT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// What the rows become.
pub(super) enum Build {
    Load(Load),
    Append(Append),
}

impl Build {
    /// Takes all rows, and tells the board of them on the way; none when nothing is new.
    ///
    /// # Errors
    /// The stream's first failure, or the store's.
    pub(super) async fn take(
        mut self,
        board: &Board,
        rows: SendableRecordBatchStream,
    ) -> Result<Option<Arc<Generation>>, RefreshError> {
        let mut groups = rows.ready_chunks(GROUP_MAX);
        let counter = board.underway.begin();
        let mut reported = Instant::now();
        while let Some(group) = groups.next().await {
            let group: Vec<RecordBatch> = group
                .into_iter()
                .collect::<Result<_, DataFusionError>>()
                .map_err(RefreshError::fetch(&board.name))?;
            let taken = size(&group);
            self = blocking("take rows", move || self.push(&group)).await??;
            counter.add(taken.0, taken.1);
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                report(board, counter.progress());
            }
        }
        Ok(blocking("finish generation", move || self.finish()).await??)
    }

    fn push(mut self, batches: &[RecordBatch]) -> Result<Self, StoreError> {
        match &mut self {
            Self::Load(load) => batches.iter().try_for_each(|batch| load.push(batch))?,
            Self::Append(append) => batches.iter().try_for_each(|batch| append.push(batch))?,
        }
        Ok(self)
    }

    fn finish(self) -> Result<Option<Arc<Generation>>, StoreError> {
        match self {
            Self::Load(load) => load.finish().map(Some),
            Self::Append(append) => append.finish(),
        }
    }
}

/// Rows and bytes.
fn size(batches: &[RecordBatch]) -> (usize, usize) {
    let each = batches.iter().map(|batch| (batch.num_rows(), get_record_batch_memory_size(batch)));
    each.fold((0, 0), |(rows, bytes), (more_rows, more_bytes)| (rows + more_rows, bytes + more_bytes))
}

fn report(board: &Board, progress: Progress) {
    let Progress { rows, bytes, elapsed } = progress;
    let (mb_per_s, elapsed_s) = (progress.mb_per_s(), elapsed.as_secs_f64());
    tracing::info!(dataset = %board.name, rows, bytes, mb_per_s, elapsed_s, "loading");
}
