//! Rows that clients send, on their way to the keeper of their dataset.
//!
//! A [`Writer`] is one call. What it pushes waits here, bounded and leased from the memory that all share, so that a
//! client that is too fast waits too. The keeper takes all that waits at once, and answers each call: so many of its
//! rows are stored for good, always the first ones, or why no more will be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::acceleration::store::{Budget, Lease, StoreError, shape};
use crate::name::DatasetName;

/// Rows of one dataset that wait for its keeper take so many bytes at most. What the keeper works on is as much again,
/// and its copy of that too.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// And at most this part of the memory that all share.
const WAITING_PART: usize = 16;

/// Why rows are not taken, or no more of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The public runtime's words, and what to do.
    #[error("Path doesn't exist or is not writable: {path}; {why}")]
    NotWritable { path: String, why: String },
    #[error("dataset `{dataset}` takes no rows yet: {reason}")]
    NotReady { dataset: DatasetName, reason: String },
    /// The rows are not what the table takes.
    #[error("{0}")]
    Rows(String),
    /// A row with this key is there already, another one.
    #[error("{0}; `on_conflict` would say which of them stays")]
    Duplicate(String),
    /// They find no place in memory, or on the disk.
    #[error("{0}")]
    NoRoom(String),
    #[error("{0}")]
    Failed(String),
    #[error("dataset `{dataset}` takes no rows any more: the sidecar is stopping")]
    Stopped { dataset: DatasetName },
}

/// How far one call is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The first rows of the call, so many, are in the table; in `mode: file` they are on disk.
    pub rows: u64,
    /// Why no further row of the call will be.
    pub failure: Option<PutError>,
}

/// One client's way into one dataset. Dropping it takes back what the keeper has not taken.
pub struct Writer {
    puts: Arc<Puts>,
    call: Arc<Call>,
    schema: SchemaRef,
    budget: Budget,
    pushed: u64,
}

/// The rows that wait, of all calls.
pub(crate) struct Puts {
    dataset: DatasetName,
    state: Mutex<State>,
    /// In KiB; nothing before the table is here.
    room: Arc<Semaphore>,
    /// Something waits.
    rung: Notify,
    /// Memory was given back.
    released: Notify,
}

/// What one call has waiting: the keeper stores all of it, or nothing. Dropped unanswered, the call fails.
pub(super) struct Put {
    dataset: DatasetName,
    call: Arc<Call>,
    pub batches: Vec<RecordBatch>,
    held: Vec<Held>,
}

/// Ends what it was made by when it is dropped: nobody waits for a keeper that is gone.
pub(super) struct Ends(Arc<Puts>);

#[derive(Default)]
struct State {
    /// What rows must look like, and the account of their memory; none before the table is here.
    open: Option<(SchemaRef, Budget)>,
    /// What may wait in all, in KiB.
    room_kib: u32,
    has_ended: bool,
    /// In the order in which each call began to wait.
    waiting: Vec<Put>,
    /// How many batches hold memory: those that wait, and those that the keeper works on.
    leases: usize,
}

struct Call {
    stored: watch::Sender<Stored>,
}

/// The memory of one batch, and its room among those that wait.
struct Held {
    puts: Arc<Puts>,
    room: Option<OwnedSemaphorePermit>,
    lease: Option<Lease>,
}

impl Puts {
    pub(crate) fn new(dataset: DatasetName) -> Arc<Self> {
        Arc::new(Self {
            dataset,
            state: Mutex::default(),
            room: Arc::new(Semaphore::new(0)),
            rung: Notify::new(),
            released: Notify::new(),
        })
    }

    /// From now on rows of `schema` are taken.
    pub(crate) fn open(&self, schema: &SchemaRef, budget: &Budget) {
        let mut state = self.lock();
        if state.open.is_none() {
            let part = budget.limit().map_or(usize::MAX, |limit| limit / WAITING_PART);
            state.room_kib = (part.min(WAITING_BYTES_MAX) >> 10).max(1) as u32;
            self.room.add_permits(state.room_kib as usize);
        }
        state.open = Some((Arc::clone(schema), budget.clone()));
    }

    /// A way in for one client; none before the table is here.
    ///
    /// # Errors
    /// [`PutError::Stopped`].
    pub(crate) fn writer(self: &Arc<Self>) -> Result<Option<Writer>, PutError> {
        let state = self.lock();
        if state.has_ended {
            return Err(self.stopped());
        }
        let Some((schema, budget)) = state.open.clone() else { return Ok(None) };
        let call = Arc::new(Call { stored: watch::Sender::default() });
        Ok(Some(Writer { puts: Arc::clone(self), call, schema, budget, pushed: 0 }))
    }

    /// All that waits, once something does; never for a dataset that nobody writes to.
    pub(super) async fn next(puts: Option<&Self>) -> Vec<Put> {
        let Some(puts) = puts else { return std::future::pending().await };
        loop {
            let waiting = puts.take();
            if !waiting.is_empty() {
                return waiting;
            }
            puts.rung.notified().await;
        }
    }

    fn take(&self) -> Vec<Put> {
        let mut waiting = std::mem::take(&mut self.lock().waiting);
        // The next rows may come while these are stored.
        waiting.iter_mut().flat_map(|put| &mut put.held).for_each(|held| held.room = None);
        waiting
    }

    /// Ends when what is returned is dropped.
    pub(super) fn ends_with_this(self: &Arc<Self>) -> Ends {
        Ends(Arc::clone(self))
    }

    /// No row is taken any more, and those that wait are not stored.
    fn end(&self) {
        let waiting = {
            let mut state = self.lock();
            state.has_ended = true;
            std::mem::take(&mut state.waiting)
        };
        self.room.close();
        self.released.notify_waiters();
        drop(waiting);
    }

    fn stopped(&self) -> PutError {
        PutError::Stopped { dataset: self.dataset.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one batch, once there is.
    async fn room(self: &Arc<Self>, budget: &Budget, bytes: usize) -> Result<Held, PutError> {
        // What is larger than all the room has it alone.
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, self.lock().room_kib.max(1));
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| self.stopped())?;
        let lease = self.lease(budget, bytes).await?;
        Ok(Held { puts: Arc::clone(self), room: Some(room), lease: Some(lease) })
    }

    /// Memory that is short is waited for as long as rows of this dataset hold some: it comes back.
    async fn lease(&self, budget: &Budget, bytes: usize) -> Result<Lease, PutError> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            {
                let mut state = self.lock();
                if state.has_ended {
                    return Err(self.stopped());
                }
                match budget.lease(bytes) {
                    Ok(lease) => {
                        state.leases += 1;
                        return Ok(lease);
                    }
                    Err(error) if state.leases == 0 => return Err(PutError::NoRoom(error.to_string())),
                    Err(_) => {}
                }
            }
            released.await;
        }
    }

    fn queue(&self, call: &Arc<Call>, batch: RecordBatch, held: Held) -> Result<(), PutError> {
        let mut state = self.lock();
        // Under the lock: the keeper fails a call before it takes more of it.
        if let Some(failure) = &call.stored.borrow().failure {
            return Err(failure.clone());
        }
        if state.has_ended {
            return Err(self.stopped());
        }
        let at = match state.waiting.iter().position(|put| Arc::ptr_eq(&put.call, call)) {
            Some(at) => at,
            None => {
                let (dataset, call) = (self.dataset.clone(), Arc::clone(call));
                state.waiting.push(Put { dataset, call, batches: Vec::new(), held: Vec::new() });
                state.waiting.len() - 1
            }
        };
        let put = &mut state.waiting[at];
        put.batches.push(batch);
        put.held.push(held);
        drop(state);
        self.rung.notify_one();
        Ok(())
    }
}

impl Writer {
    /// What rows must look like.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn dataset(&self) -> &DatasetName {
        &self.puts.dataset
    }

    /// Hands over rows of [`Writer::schema`], once there is room for them. They are stored in this order.
    ///
    /// # Errors
    /// Why this call stores nothing more.
    pub async fn push(&mut self, batch: RecordBatch) -> Result<(), PutError> {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let held = self.puts.room(&self.budget, shape::bytes(&batch)).await?;
        self.puts.queue(&self.call, batch, held)?;
        self.pushed += rows;
        Ok(())
    }

    /// How far the call is, now and with every change.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<Stored> {
        self.call.stored.subscribe()
    }

    /// Waits until all that was pushed is stored, and says how many rows that is.
    ///
    /// # Errors
    /// Why it is fewer, for good.
    pub async fn finish(self) -> Result<u64, PutError> {
        let (mut stored, pushed) = (self.call.stored.subscribe(), self.pushed);
        let done = stored.wait_for(|stored| stored.rows >= pushed || stored.failure.is_some()).await;
        // The writer holds the sender.
        let done = done.map_err(|_| self.puts.stopped())?.clone();
        match done.failure {
            Some(failure) if done.rows < pushed => Err(failure),
            _ => Ok(done.rows),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let taken_back: Vec<Put> = {
            let mut state = self.puts.lock();
            state.waiting.extract_if(.., |put| Arc::ptr_eq(&put.call, &self.call)).collect()
        };
        // Gives its memory back, which takes the lock again.
        drop(taken_back);
    }
}

impl Put {
    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// Whether an earlier part of the call has failed: a later one must not be stored.
    pub(super) fn has_failed(&self) -> bool {
        self.call.stored.borrow().failure.is_some()
    }

    /// All of it is in the table, for good.
    pub(super) fn stored(mut self) {
        let rows = self.rows();
        let bytes: usize = self.batches.iter().map(shape::bytes).sum();
        self.batches.clear();
        let dataset = self.dataset.to_string();
        metrics::counter!("flight_do_put_rows", "dataset" => dataset.clone()).increment(rows);
        metrics::counter!("flight_do_put_bytes", "dataset" => dataset).increment(bytes as u64);
        self.call.stored.send_modify(|stored| stored.rows += rows);
    }

    /// Nothing of it is in the table, nor will anything later of its call be.
    pub(super) fn failed(mut self, error: PutError) {
        self.batches.clear();
        self.call.fail(error);
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if !self.batches.is_empty() {
            self.call.fail(PutError::Stopped { dataset: self.dataset.clone() });
        }
    }
}

impl Call {
    /// The first reason stays.
    fn fail(&self, error: PutError) {
        self.stored.send_if_modified(|stored| {
            let is_first = stored.failure.is_none();
            if is_first {
                stored.failure = Some(error);
            }
            is_first
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before those who wait for it look.
        self.lease = None;
        self.puts.lock().leases -= 1;
        self.puts.released.notify_waiters();
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What became of the rows of one dataset, told to those who sent them.
impl From<&StoreError> for PutError {
    fn from(error: &StoreError) -> Self {
        let words = error.to_string();
        match error {
            StoreError::DuplicateKey { .. } => Self::Duplicate(words),
            StoreError::NullKey { .. } | StoreError::Schema { .. } | StoreError::Time { .. } => {
                Self::Rows(words)
            }
            StoreError::Memory { .. } => Self::NoRoom(words),
            StoreError::Stale { .. } | StoreError::NotReady { .. } | StoreError::Compute { .. } => {
                Self::Failed(words)
            }
        }
    }
}
