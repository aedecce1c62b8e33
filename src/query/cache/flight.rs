//! A run that several requests share.
//!
//! Its rows are fetched by a task of its own, ahead of every client, until they are all here or too many: no request
//! waits for another's client, and none is hurt when another goes away. The task lives as long as one request holds
//! the flight. Who began it streams the rows as they come; the others take them when all are here.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use tokio::sync::watch;

use super::Running;
use super::key::Key;
use crate::query::{Batches, QueryError};
use crate::task::Owned;

/// How far a run has come.
#[derive(Default)]
pub(super) struct Progress {
    /// Known with the first batch.
    pub schema: Option<SchemaRef>,
    pub batches: Vec<RecordBatch>,
    pub stage: Stage,
    /// The memory of the batches, for as long as anybody may read them here.
    pub held: Option<Arc<MemoryReservation>>,
}

#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Running,
    Done,
    /// More than may be kept: what follows is in [`Flight::rest`], for one.
    TooLarge,
    Failed(QueryError),
}

/// What became of a run, for those who wait for all of it.
pub(in crate::query) enum Outcome {
    Done(SchemaRef, Vec<RecordBatch>),
    Failed(QueryError),
    /// Nothing that could be shared: each for itself.
    Unshared,
}

/// See the module. Dropping the last one ends the run.
pub(in crate::query) struct Flight {
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) rest: Arc<Rest>,
    pub(super) driver: OnceLock<Owned>,
    /// Taken off the list with the flight.
    pub(super) listed: Listed,
}

/// What a run that grew too large has left to give.
#[derive(Default)]
pub(super) struct Rest(Mutex<Option<Batches>>);

impl Rest {
    pub fn put(&self, batches: Batches) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(batches);
    }

    fn take(&self) -> Option<Batches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A place in the list of running flights.
#[derive(Clone)]
pub(super) struct Listed {
    pub running: Arc<Mutex<Running>>,
    pub key: Key,
    pub number: u64,
}

impl Listed {
    /// Who comes from now on does not find it.
    pub fn remove(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&self.key).is_some_and(|listed| listed.number == self.number) {
            running.remove(&self.key);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.listed.remove();
    }
}

impl Flight {
    /// Waits for the first batch, or the end; for the one who began it.
    ///
    /// # Errors
    /// What the run met before.
    pub async fn stream(self: Arc<Self>) -> Result<(SchemaRef, Batches), QueryError> {
        let mut progress = self.progress.clone();
        let schema = {
            let has_begun =
                |progress: &Progress| progress.schema.is_some() || !matches!(progress.stage, Stage::Running);
            let begun = progress.wait_for(has_begun).await.map_err(|_| lost())?;
            match (&begun.schema, &begun.stage) {
                (Some(schema), _) => Arc::clone(schema),
                (None, Stage::Failed(error)) => return Err(error.clone()),
                (None, _) => return Err(lost()),
            }
        };
        let reader = Reader { source: Source::Shared(self, progress), at: 0 };
        let batches = futures::stream::unfold(reader, |mut reader| async move {
            reader.next().await.map(|batch| (batch, reader))
        });
        Ok((schema, batches.boxed()))
    }

    /// Waits for the end.
    pub async fn outcome(&self) -> Outcome {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| !matches!(progress.stage, Stage::Running)).await;
        let Ok(ended) = ended else { return Outcome::Unshared };
        match (&ended.stage, &ended.schema) {
            (Stage::Done, Some(schema)) => Outcome::Done(Arc::clone(schema), ended.batches.clone()),
            (Stage::Failed(error), _) => Outcome::Failed(error.clone()),
            _ => Outcome::Unshared,
        }
    }
}

/// The rows as they come.
struct Reader {
    source: Source,
    at: usize,
}

enum Source {
    Shared(Arc<Flight>, watch::Receiver<Progress>),
    /// What was collected is let go.
    Own(Batches),
}

/// What there is at a place.
enum Next {
    Batch(RecordBatch),
    End,
    Failed(QueryError),
    Own,
    Wait,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        loop {
            let (flight, progress) = match &mut self.source {
                Source::Own(batches) => return batches.next().await,
                Source::Shared(flight, progress) => (flight, progress),
            };
            let next = progress.borrow_and_update().at(self.at);
            match next {
                Next::Batch(batch) => {
                    self.at += 1;
                    return Some(Ok(batch));
                }
                Next::End => return None,
                Next::Failed(error) => return Some(Err(error)),
                Next::Own => match flight.rest.take() {
                    Some(rest) => self.source = Source::Own(rest),
                    None => return Some(Err(lost())),
                },
                Next::Wait => {
                    if progress.changed().await.is_err() {
                        return Some(Err(lost()));
                    }
                }
            }
        }
    }
}

impl Progress {
    fn at(&self, at: usize) -> Next {
        match (self.batches.get(at), &self.stage) {
            (Some(batch), _) => Next::Batch(batch.clone()),
            (None, Stage::Running) => Next::Wait,
            (None, Stage::Done) => Next::End,
            (None, Stage::TooLarge) => Next::Own,
            (None, Stage::Failed(error)) => Next::Failed(error.clone()),
        }
    }
}

/// Its task ended without a word: the process is ending, or it panicked.
fn lost() -> QueryError {
    QueryError::Internal { message: "the run of the query ended early".to_owned() }
}
