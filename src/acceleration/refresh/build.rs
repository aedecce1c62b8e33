//! A stream of batches becomes a generation, on threads for computing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::acceleration::store::{Append, Generation, Load, StoreError};
use crate::name::DatasetName;
use crate::task::blocking;

use super::error::RefreshError;

/// So many batches, where they are here already, are taken in one step.
pub(super) const GROUP_MAX: usize = 16;

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
        while let Some(group) = groups.next().await {
            let group: Vec<RecordBatch> = group
                .into_iter()
                .collect::<Result<_, DataFusionError>>()
                .map_err(RefreshError::fetch(dataset))?;
            self = blocking("take rows", move || self.push(&group)).await??;
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
