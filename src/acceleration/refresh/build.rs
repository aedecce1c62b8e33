//! A stream of batches becomes a generation, on threads for computing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::time::Instant;

use crate::acceleration::store::{Append, Generation, Load, StoreError};
use crate::name::DatasetName;
use crate::task::blocking;

use super::error::RefreshError;

/// So many batches, where they are here already, are taken in one step.
pub(super) const GROUP_MAX: usize = 16;
/// How often a long load says how far it is.
const REPORT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// What the rows become.
pub(super) enum Build {
    Load(Load),
    Append(Append),
}

impl Build {
    /// Takes all rows; none when nothing is new.
    ///
    /// # Errors
    /// The stream's first failure, or the store's.
    pub(super) async fn take(
        mut self,
        dataset: &DatasetName,
        rows: SendableRecordBatchStream,
    ) -> Result<Option<Arc<Generation>>, RefreshError> {
        let mut groups = rows.ready_chunks(GROUP_MAX);
        let begun = Instant::now();
        let mut reported = begun;
        while let Some(group) = groups.next().await {
            let group: Vec<RecordBatch> = group
                .into_iter()
                .collect::<Result<_, DataFusionError>>()
                .map_err(RefreshError::fetch(dataset))?;
            self = blocking("take rows", move || self.push(&group)).await??;
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                self.report(dataset, begun);
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

    fn report(&self, dataset: &DatasetName, begun: Instant) {
        if let Self::Load(load) = self {
            let (rows, bytes) = load.progress();
            let elapsed = begun.elapsed().as_secs_f64();
            let mb_per_s = bytes as f64 / 1e6 / elapsed;
            tracing::info!(%dataset, rows, bytes, mb_per_s, elapsed_s = elapsed, "loading");
        }
    }
}
