//! DoPut: rows of a client become rows of a dataset, and the client hears how many of them are stored for good.
//!
//! A task of its own reads the call, so that a client that never looks at its acknowledgements still gets on; they say
//! how many rows of the call are stored in all, and several advances may be one. A call that ends badly says how many
//! rows it has stored, in its text and as `x-rows-stored`: always the first ones. A client that goes away leaves what
//! was acknowledged, and nothing that the dataset's keeper had not begun to store.

mod columns;
mod rows;
mod target;

use std::sync::Arc;

use arrow_flight::{FlightData, PutResult};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status, Streaming};

use crate::query::{PutError, Stored, Writer};
use crate::serve::{Door, status};
use crate::task::{Owned, Scope};

use super::decode::Broken;
use rows::Rows;
use target::{Answer, Target};

/// Calls that write at a time, whatever the dataset; each may hold a message and its dictionaries.
const CALLS_MAX: usize = 256;
/// How many rows of a call that failed are stored.
const ROWS_STORED: &str = "x-rows-stored";

pub(super) type Acknowledgements = BoxStream<'static, Result<PutResult, Status>>;

/// Takes calls; bounds how many there are.
pub(super) struct Puts {
    calls: Arc<Semaphore>,
    scope: Scope,
}

/// How a call ended.
struct End {
    rows: u64,
    failure: Option<Status>,
}

/// What is left to say to the client.
struct Told {
    answer: Answer,
    stored: watch::Receiver<Stored>,
    end: oneshot::Receiver<End>,
    /// In the last acknowledgement.
    rows: Option<u64>,
    is_over: bool,
    _task: Owned,
}

impl Puts {
    pub(super) fn new(scope: Scope) -> Self {
        Self { calls: Arc::new(Semaphore::new(CALLS_MAX)), scope }
    }

    /// Begins to take the rows of a call, whose first message was read already; what leaves are the acknowledgements.
    ///
    /// # Errors
    /// What the first messages are refused for.
    pub(super) async fn answer(
        &self,
        door: &impl Door,
        first: Option<FlightData>,
        messages: Streaming<FlightData>,
    ) -> Result<Acknowledgements, Status> {
        let permit = Arc::clone(&self.calls).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{CALLS_MAX} calls write at a time already: try again later"))
        })?;
        let Some(first) = first else {
            return Err(Status::invalid_argument(
                "the stream is empty: send a descriptor and a schema, then batches",
            ));
        };
        let target = Target::of(first.flight_descriptor.as_ref())?;
        let writer = target.writer(door)?;
        let mut rows = Rows::new(writer.schema(), stream::iter([Ok(first)]).chain(messages));
        rows.begin().await.map_err(Broken::status)?;
        Ok(self.begin(target.answer, rows, writer, permit))
    }

    fn begin(
        &self,
        answer: Answer,
        rows: Rows,
        writer: Writer,
        permit: OwnedSemaphorePermit,
    ) -> Acknowledgements {
        let stored = writer.stored();
        let (says, end) = oneshot::channel();
        let task = self.scope.spawn_owned("flight put", async move {
            // The client may be gone.
            let _ = says.send(run(rows, writer).await);
            drop(permit);
        });
        let told = Told { answer, stored, end, rows: None, is_over: false, _task: task };
        stream::unfold(told, |mut told| async move { Some((told.next().await?, told)) }).boxed()
    }
}

/// Stores the rows as they come, to the end of the call or the first failure.
async fn run(mut rows: Rows, mut writer: Writer) -> End {
    let stored = writer.stored();
    let broken = take(&mut rows, &mut writer).await.err();
    if let Some(Broken::Gone(status)) = broken {
        // What waits is taken back.
        drop(writer);
        return End { rows: stored.borrow().rows, failure: Some(status) };
    }
    // What came before the failure is stored: it was sent, and nothing is wrong with it.
    let finished = writer.finish().await.err().map(|error| refusal(&error));
    let failure = finished.or(broken.map(Broken::status));
    End { rows: stored.borrow().rows, failure }
}

async fn take(rows: &mut Rows, writer: &mut Writer) -> Result<(), Broken> {
    let mut stored = writer.stored();
    loop {
        let next = tokio::select! {
            biased;
            // A client that sends nothing for a while hears of it at once.
            _ = stored.wait_for(|stored| stored.failure.is_some()) => return Ok(()),
            next = rows.next() => next?,
        };
        let Some(batch) = next else { return Ok(()) };
        if writer.push(batch).await.is_err() {
            return Ok(());
        }
    }
}

impl Told {
    async fn next(&mut self) -> Option<Result<PutResult, Status>> {
        while !self.is_over {
            let advances = self.answer == Answer::Advances;
            tokio::select! {
                biased;
                end = &mut self.end => return self.ended(end.ok()),
                Ok(()) = self.stored.changed(), if advances => {
                    let rows = self.stored.borrow_and_update().rows;
                    if self.rows < Some(rows) {
                        self.rows = Some(rows);
                        return Some(Ok(self.answer.message(rows)));
                    }
                }
            }
        }
        None
    }

    fn ended(&mut self, end: Option<End>) -> Option<Result<PutResult, Status>> {
        self.is_over = true;
        // The task was cut off: the sidecar ends.
        let Some(End { rows, failure }) = end else {
            let rows = self.stored.borrow().rows;
            let words = "the sidecar is stopping".to_owned();
            return Some(Err(counted(status::told(Code::Unavailable, words), rows)));
        };
        match failure {
            Some(failure) => Some(Err(counted(failure, rows))),
            None if self.rows == Some(rows) => None,
            None => Some(Ok(self.answer.message(rows))),
        }
    }
}

fn refusal(error: &PutError) -> Status {
    status::told(status::of_put(error), error.to_string())
}

/// The same with how many rows of the call are stored.
fn counted(failure: Status, rows: u64) -> Status {
    let text = format!("{}; rows of this call that are stored: {rows}", failure.message());
    let mut counted = status::told(failure.code(), text);
    if let Ok(value) = MetadataValue::try_from(rows.to_string()) {
        counted.metadata_mut().insert(ROWS_STORED, value);
    }
    counted
}
