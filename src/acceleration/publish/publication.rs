//! The meeting point of one dataset's keeper and its subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::acceleration::store::Budget;
use crate::name::DatasetName;
use crate::proto::stream::Position;

use super::counts::Counts;
use super::finishing::{Finishing, Shelf};
use super::rows::Published;
use super::subscription::Subscription;

/// How much is held for subscribers that are still reading what another epoch has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// `stream_retention`: from the beginning of the other epoch on.
    pub time: Duration,
    /// `stream_retention_bytes`: of rows that the present generation does not have, for all subscribers together.
    pub bytes: u64,
}

/// A dataset as a stream; shared between its keeper, which publishes, and its subscribers.
#[derive(Debug)]
pub struct Publication {
    dataset: DatasetName,
    retention: Retention,
    /// For rows that are unpacked to be sent; none where all are in memory as they are.
    budget: Option<Budget>,
    present: watch::Sender<Option<Arc<Published>>>,
    /// Nanoseconds since the epoch; the greatest number where the rows are always all there are.
    whole_at: AtomicI64,
    /// Nothing more comes: the dataset is kept in another way, or not at all.
    is_closed: AtomicBool,
    shelf: Shelf,
    counts: Counts,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: Duration::from_secs(600), bytes: 256 << 20 }
    }
}

impl Publication {
    /// Of a dataset that has no rows yet: its subscribers wait.
    #[must_use]
    pub fn new(dataset: DatasetName, retention: Retention) -> Arc<Self> {
        Self::within(dataset, retention, None)
    }

    /// The same; what is unpacked for subscribers is taken from `budget`.
    pub(crate) fn within(dataset: DatasetName, retention: Retention, budget: Option<Budget>) -> Arc<Self> {
        let counts = Counts::of(&dataset);
        let (present, whole_at) = (watch::Sender::new(None), AtomicI64::new(i64::MAX));
        Arc::new(Self {
            dataset,
            retention,
            budget,
            present,
            whole_at,
            is_closed: AtomicBool::new(false),
            shelf: Shelf::default(),
            counts,
        })
    }

    /// Follows the dataset from what is held of it on; from nothing where that is not of the epoch of now.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, held: Option<Position>) -> Subscription {
        Subscription::new(Arc::clone(self), held)
    }

    #[must_use]
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// The latest moment, not after `now`, at which the rows were known to be all there are; nanoseconds since the
    /// epoch.
    #[must_use]
    pub fn whole_at(&self, now: i64) -> i64 {
        self.whole_at.load(Ordering::Relaxed).min(now)
    }

    /// The dataset follows a stream, whose rows were known to be all there are at this moment, in nanoseconds since
    /// the epoch. Of a dataset for which this is never called they always are.
    pub fn known_whole(&self, at_unix_nanos: i64) {
        self.whole_at.store(at_unix_nanos, Ordering::Relaxed);
    }

    /// A generation that queries see, and that a restart shows where the dataset is on disk. Of the epoch of the one
    /// before it has that one's rows, in that order, before all others.
    pub(crate) fn publish(&self, generation: Published) {
        self.turn(Some(Arc::new(generation)));
    }

    /// What was held was let go: subscribers wait for the next generation.
    pub(crate) fn withdraw(&self) {
        self.turn(None);
    }

    /// Ends every subscription: the dataset goes on elsewhere, or not at all.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.present.send_modify(|_| ());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// There from the start, so that a first increase is one.
    pub(crate) fn announce(&self) {
        self.counts.announce();
    }

    pub(super) fn retention(&self) -> Retention {
        self.retention
    }

    pub(super) fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn follow(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.present.subscribe()
    }

    /// Counts what is held for a subscriber from now on.
    pub(super) fn hold(&self, more: &Arc<Finishing>) {
        self.shelf.add(more);
        self.enforce();
    }

    /// The rows of now.
    #[cfg(test)]
    pub(crate) fn present_batches(&self) -> Option<Vec<arrow::array::RecordBatch>> {
        let present = self.present.borrow().clone()?;
        Some(present.pieces().iter().map(|piece| piece.read(0, piece.rows).unwrap()).collect())
    }

    fn turn(&self, next: Option<Arc<Published>>) {
        self.present.send_replace(next);
        self.enforce();
    }

    fn enforce(&self) {
        let present = self.present.borrow().clone();
        self.shelf.enforce(present.as_deref(), self.retention.bytes);
    }
}
