//! A publication by hand: batches in memory, for doors without accelerated datasets.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::name::DatasetName;
use crate::proto::stream::Epoch;

use super::publication::{Publication, Retention};
use super::rows::{Piece, Published};

/// A table that only grows, or begins anew.
pub struct MemoryLog {
    publication: Arc<Publication>,
    schema: SchemaRef,
    rows: Mutex<(Epoch, Vec<Piece>)>,
}

impl MemoryLog {
    /// A table of no rows, which is whole.
    #[must_use]
    pub fn new(dataset: DatasetName, schema: SchemaRef, retention: Retention) -> Self {
        let publication = Publication::new(dataset, retention);
        let rows = Mutex::new((Epoch::random(), Vec::new()));
        let log = Self { publication, schema, rows };
        log.change(|_| {});
        log
    }

    #[must_use]
    pub fn publication(&self) -> &Arc<Publication> {
        &self.publication
    }

    /// Adds rows behind those that are there.
    ///
    /// # Errors
    /// Rows of another schema.
    pub fn append(&self, batch: RecordBatch) -> Result<(), ArrowError> {
        let piece = self.piece(batch)?;
        self.change(|(_, pieces)| pieces.push(piece));
        Ok(())
    }

    /// Puts other rows in the place of all that are there.
    ///
    /// # Errors
    /// Rows of another schema.
    pub fn replace(&self, batches: Vec<RecordBatch>) -> Result<(), ArrowError> {
        let pieces = batches.into_iter().map(|batch| self.piece(batch)).collect::<Result<_, _>>()?;
        self.change(|rows| *rows = (Epoch::random(), pieces));
        Ok(())
    }

    fn piece(&self, batch: RecordBatch) -> Result<Piece, ArrowError> {
        match batch.schema_ref() == &self.schema {
            true => Ok(Piece::batch(batch)),
            false => Err(ArrowError::SchemaError("a batch of another schema than the table's".to_owned())),
        }
    }

    /// Held until it is published: generations appear in the order in which they were made.
    fn change(&self, change: impl FnOnce(&mut (Epoch, Vec<Piece>))) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut rows);
        let (epoch, pieces) = (rows.0, rows.1.clone());
        self.publication.publish(Published::of(epoch, &self.schema, pieces));
    }
}
