//! What clients wrote becomes generations: all that waits is one, so that many small writes cost what one costs.
//!
//! Rows are shown, and on disk, before anybody is told that they are stored. A write whose rows cannot be taken fails
//! alone: the others are taken without it, in the same order.

use datafusion::execution::SendableRecordBatchStream;

use crate::acceleration::disk::DiskError;
use crate::acceleration::store::Layout;
use crate::name::DatasetName;

use super::error::RefreshError;
use super::holder::Holder;
use super::puts::{Put, PutError};
use super::rows::{Intake, Onto, stream_of};

/// What rows of several calls are stored in.
pub(super) trait Store {
    fn name(&self) -> &DatasetName;

    /// One generation more, with all rows of `puts`; after an error with none of them.
    fn store(&mut self, puts: &[Put]) -> impl Future<Output = Result<(), RefreshError>> + Send;
}

/// Stores `puts` and answers each.
pub(super) async fn settle(store: &mut impl Store, puts: Vec<Put>) {
    // Halves that are yet to be stored, the first one on top.
    let mut parts = vec![puts];
    while let Some(mut part) = parts.pop() {
        // What follows a failed part of a call would leave a gap: it was told that it has failed.
        part.retain(|put| !put.has_failed());
        if part.is_empty() {
            continue;
        }
        match store.store(&part).await {
            Ok(()) => part.into_iter().for_each(Put::stored),
            Err(error) if part.len() > 1 && is_of_rows(&error) => {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            }
            Err(error) => {
                if !is_of_rows(&error) {
                    tracing::warn!(dataset = %store.name(), %error, "written rows cannot be stored");
                }
                let told = told(&error);
                part.into_iter().for_each(|put| put.failed(told.clone()));
            }
        }
    }
}

impl Store for Holder {
    fn name(&self) -> &DatasetName {
        Holder::name(self)
    }

    async fn store(&mut self, puts: &[Put]) -> Result<(), RefreshError> {
        let Some(layout) = self.rows.layout() else {
            let message = "the table is not here yet".to_owned();
            return Err(RefreshError::Definition { dataset: Holder::name(self).clone(), message });
        };
        let dropped = self.dropped(&layout)?;
        self.take(Intake { onto: Onto::Held, dropped, ..Intake::load(layout.clone(), rows(&layout, puts)) })
            .await
    }
}

/// All rows of `puts`, call by call.
pub(super) fn rows(layout: &Layout, puts: &[Put]) -> SendableRecordBatchStream {
    stream_of(layout, puts.iter().flat_map(|put| put.batches.clone()).collect())
}

/// Whether other rows may be stored although these are not.
fn is_of_rows(error: &RefreshError) -> bool {
    match error {
        RefreshError::Store(_) | RefreshError::Blocking(_) | RefreshError::Plan { .. } => true,
        RefreshError::Disk { .. }
        | RefreshError::Upstream { .. }
        | RefreshError::Stream { .. }
        | RefreshError::Definition { .. }
        | RefreshError::Changed { .. } => false,
    }
}

/// The error for those who wrote.
fn told(error: &RefreshError) -> PutError {
    match error {
        RefreshError::Store(error) => error.into(),
        RefreshError::Disk { source: DiskError::Io { source, .. }, .. } if is_full(source) => {
            PutError::NoRoom(error.to_string())
        }
        other => PutError::Failed(other.to_string()),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
