//! The one who runs a statement for all who ask it: a run enters, batches leave for a flight and, when they are whole,
//! an entry for the cache.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::Inner;
use super::basis::Basis;
use super::collect::Collector;
use super::entry::Entry;
use super::flight::{Flight, Listed, Progress, Rest, Stage};
use crate::query::engine::Started;
use crate::query::{QueryError, parts};

/// The right to run a statement for all who ask it.
pub(in crate::query) struct Lead {
    pub(super) inner: Arc<Inner>,
    pub(super) flight: Arc<Flight>,
    pub(super) sender: watch::Sender<Progress>,
    pub(super) basis: Basis,
    pub(super) is_upstream: bool,
    pub(super) bytes: usize,
}

impl Lead {
    /// Begins the run; it ends when nobody holds the flight any more.
    pub fn launch(self, work: BoxFuture<'static, Result<Started, QueryError>>) -> Arc<Flight> {
        let Self { inner, flight, sender, basis, is_upstream, bytes } = self;
        let (listed, rest) = (flight.listed.clone(), Arc::clone(&flight.rest));
        let collector = Collector::new(inner.account.new_empty(), bytes, inner.entry_bytes_max);
        let scope = inner.scope.clone();
        let driver = Driver { inner, listed, rest, sender, basis, is_upstream, collector };
        let owned = scope.spawn_owned("cached query", driver.run(work));
        // It is launched once.
        let _ = flight.driver.set(owned);
        flight
    }
}

/// Fetches the rows of a flight.
struct Driver {
    inner: Arc<Inner>,
    listed: Listed,
    rest: Arc<Rest>,
    sender: watch::Sender<Progress>,
    basis: Basis,
    is_upstream: bool,
    collector: Collector,
}

impl Driver {
    async fn run(mut self, work: BoxFuture<'static, Result<Started, QueryError>>) {
        let stage = self.collect(work).await;
        // In this order: who does not find the flight finds the entry.
        self.listed.remove();
        self.sender.send_modify(|progress| progress.stage = stage);
    }

    async fn collect(&mut self, work: BoxFuture<'static, Result<Started, QueryError>>) -> Stage {
        let Started { schema, parts, pins } = match work.await {
            Ok(started) => started,
            Err(error) => return Stage::Failed(error),
        };
        let mut batches = parts::into_batches(parts, Arc::clone(&schema));
        let held = self.collector.held();
        self.sender.send_modify(|progress| (progress.schema, progress.held) = (Some(schema), Some(held)));
        while let Some(batch) = batches.next().await {
            match batch.map(|batch| self.collector.take(batch)) {
                Ok(Ok(batch)) => self.sender.send_modify(|progress| progress.batches.push(batch)),
                Ok(Err(batch)) => {
                    self.inner.large.insert(self.inner.hasher.hash_one(&self.listed.key), ());
                    self.rest.put(futures::stream::iter([Ok(batch)]).chain(batches).boxed());
                    return Stage::TooLarge;
                }
                Err(error) => return Stage::Failed(error),
            }
        }
        let reads = pins.map(|pins| pins.reads()).unwrap_or_default();
        self.keep(self.basis.clone().having_read(reads));
        Stage::Done
    }

    /// Keeps the whole result, if a run that began now would have it too.
    fn keep(&self, basis: Basis) {
        if !basis.is_current() {
            metrics::counter!("results_cache_stale_rejections").increment(1);
            return;
        }
        let progress = self.sender.borrow();
        let Some(schema) = progress.schema.clone() else { return };
        let entry = Entry {
            schema,
            batches: progress.batches.clone(),
            bytes: self.collector.bytes(),
            made: (self.inner.clock)(),
            basis,
            is_upstream: self.is_upstream,
            frames: OnceLock::new(),
            held: self.collector.held(),
        };
        self.inner.store.insert(self.listed.key.clone(), Arc::new(entry));
    }
}
