//! A stream of batches becomes a generation, on threads for computing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, TryStreamExt};

use crate::acceleration::store::{Append, Generation, Load, StoreError};
use crate::name::DatasetName;
use crate::task::blocking;

use super::error::RefreshError;

/// So many batches, where they are here already, are taken in one step.
const GROUP_MAX: usize = 16;

/// Batches in groups, so that a step on a thread for computing is worth its way.
pub(super) fn grouped(
    dataset: &DatasetName,
    rows: SendableRecordBatchStream,
) -> impl Stream<Item = Result<Vec<RecordBatch>, RefreshError>> + Send + Unpin + use<> {
    let failed = RefreshError::fetch(dataset);
    rows.ready_chunks(GROUP_MAX)
        .map(move |group| group.into_iter().collect::<Result<_, _>>().map_err(&failed))
}

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
        let mut groups = grouped(dataset, rows);
        let mut next = groups.try_next().await?;
        while let Some(group) = next {
            // The next ones are read meanwhile.
            let pushed = blocking("take rows", move || self.push(&group));
            let (pushed, read) = futures::join!(pushed, groups.try_next());
            (self, next) = (pushed??, read?);
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
