//! Stores that were loaded enter, and the same stores with other values leave whenever there are some.
//!
//! One keeper reads every store in its own time: those of this machine each second, and a change there counts once it was
//! read twice; those behind a network when they are due, and sooner where they say so. A store that cannot be read changes
//! nothing, and is told once for each reason. Whoever watches hears only of values that the spicepod asks for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metrics::Label;
use rand::Rng;
use tokio::sync::watch;

use crate::config::{SecretStore, StoreKind};
use crate::settled::{Next, Settled};

use super::load::{Entry, resolved_params, timed_read};
use super::store::{Reading, Store, StoreError};
use super::{Secrets, Shelf};

/// How often stores of this machine are read.
const LOCAL_INTERVAL: Duration = Duration::from_secs(1);
/// How often stores behind a network are.
const REMOTE_INTERVAL: Duration = Duration::from_secs(60);
/// At the latest after a reading that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// However short a lease.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Readings are spread by so much, so that all pods of a deployment do not ask at once.
const SPREAD: f64 = 0.1;

/// The stores as they are now. Cheap to clone; each clone hears of every change.
#[derive(Clone)]
pub struct Watch(watch::Receiver<Arc<Secrets>>);

/// Reads the stores again and again, for those who watch.
pub struct Keeper {
    secrets: Arc<Secrets>,
    tell: watch::Sender<Arc<Secrets>>,
}

impl Secrets {
    /// A watch over these stores, and the keeper that has to be run for it.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> (Watch, Keeper) {
        let (tell, heard) = watch::channel(Arc::clone(self));
        (Watch(heard), Keeper { secrets: Arc::clone(self), tell })
    }
}

impl Watch {
    /// The stores with the values of this moment.
    #[must_use]
    pub fn now(&self) -> Arc<Secrets> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for other values than were seen last; nothing when the keeper has ended.
    pub async fn changed(&mut self) -> Option<Arc<Secrets>> {
        self.0.changed().await.ok()?;
        Some(Arc::clone(&self.0.borrow_and_update()))
    }
}

/// A reading that has ended.
struct Read {
    /// Which store, in the order in which they are searched.
    index: usize,
    /// Of a store that was opened anew meanwhile, a reading of the former one is nothing.
    opened: u32,
    read: Result<Reading, StoreError>,
    took: Duration,
}

/// What the keeper knows of one store.
struct Kept {
    config: SecretStore,
    entry: Entry,
    keys: Arc<BTreeSet<String>>,
    settled: Settled<Arc<Reading>>,
    /// What the last reading said of its lease.
    again_within: Option<Duration>,
    opened: u32,
}

type Reads = FuturesUnordered<BoxFuture<'static, Read>>;

impl Keeper {
    /// Follows every store for as long as it is polled. Ends where nothing is asked for, or nobody watches.
    pub async fn follow(self) {
        let Self { mut secrets, tell } = self;
        if secrets.origin.wanted.is_empty() {
            return;
        }
        let mut stores: Vec<Kept> =
            secrets.shelf.0.iter().cloned().filter_map(|entry| Kept::of(entry, &secrets)).collect();
        let mut reads: Reads =
            stores.iter().enumerate().map(|(index, kept)| kept.next(index, kept.due())).collect();
        while let Some(read) = reads.next().await {
            let index = read.index;
            let Some(kept) = stores.get_mut(index).filter(|kept| kept.opened == read.opened) else {
                continue;
            };
            let (due, has_changed) = kept.after(read);
            reads.push(kept.next(index, due));
            if !has_changed {
                continue;
            }
            if stores[index].config.kind.is_local() {
                reopen(&mut stores, &secrets, &reads);
            }
            let entries = stores.iter().map(|kept| kept.entry.clone()).collect();
            let next = Arc::new(Secrets { shelf: Shelf(entries), origin: Arc::clone(&secrets.origin) });
            if next.differs_from(&secrets) {
                tracing::info!("secrets have changed");
                secrets = next;
                if tell.send(Arc::clone(&secrets)).is_err() {
                    return;
                }
            } else {
                secrets = next;
            }
        }
    }
}

/// Opens stores anew whose params have other values by now, and reads them at once.
fn reopen(stores: &mut [Kept], secrets: &Secrets, reads: &Reads) {
    let here = stores.iter().filter(|kept| kept.entry.kind.is_local()).map(|kept| kept.entry.clone());
    let shelf = Shelf(here.collect());
    for (index, kept) in stores.iter_mut().enumerate().filter(|(_, kept)| !kept.entry.kind.is_local()) {
        let params = match resolved_params(&kept.config, &shelf) {
            Ok(params) if params != *kept.entry.params => params,
            Ok(_) => continue,
            Err(problems) => {
                let why: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
                kept.tell(&why.join("; "));
                continue;
            }
        };
        match secrets.origin.open(&kept.config, &params) {
            Ok(store) => {
                (kept.entry.store, kept.entry.params) = (store, Arc::new(params));
                kept.opened += 1;
                reads.push(kept.next(index, Duration::ZERO));
            }
            Err(error) => kept.tell(&error.message),
        }
    }
}

impl Kept {
    fn of(entry: Entry, secrets: &Secrets) -> Option<Self> {
        let config = secrets.origin.stores.iter().find(|store| *store.name == *entry.name)?.clone();
        let reading = Arc::clone(&entry.reading);
        let settled = match config.kind.is_local() {
            true => Settled::new(reading),
            false => Settled::at_once(reading),
        };
        metrics::counter!("secrets_store_errors", label(&entry.name)).absolute(0);
        let keys = Arc::new(secrets.origin.keys(&config.name));
        let again_within = entry.reading.again_within;
        let kept = Self { config, entry, keys, settled, again_within, opened: 0 };
        kept.measure(kept.entry.took);
        Some(kept)
    }

    /// The next reading, `due` from now.
    fn next(&self, index: usize, due: Duration) -> BoxFuture<'static, Read> {
        let (store, keys, opened) = (Arc::clone(&self.entry.store), Arc::clone(&self.keys), self.opened);
        Box::pin(async move {
            tokio::time::sleep(due).await;
            let store: &dyn Store = store.as_ref();
            let (read, took) = timed_read(store, &keys).await;
            Read { index, opened, read, took }
        })
    }

    /// When to read again, and whether there are other values than before.
    fn after(&mut self, read: Read) -> (Duration, bool) {
        self.measure(read.took);
        let was_failing = self.settled.is_failing();
        let reading = match read.read {
            Ok(reading) => {
                if was_failing {
                    tracing::info!(store = &*self.entry.name, "secret store can be read again");
                }
                self.again_within = reading.again_within;
                Ok(Arc::new(reading))
            }
            Err(error) => {
                metrics::counter!("secrets_store_errors", label(&self.entry.name)).increment(1);
                Err(error.message)
            }
        };
        let has_changed = match self.settled.read(reading) {
            Next::Nothing => false,
            Next::Act(reading) => {
                self.entry.reading = Arc::clone(reading);
                true
            }
            Next::Tell(why) => {
                self.tell(&why);
                false
            }
        };
        (self.due(), has_changed)
    }

    fn tell(&self, why: &str) {
        tracing::error!(
            store = &*self.entry.name,
            why,
            "secret store cannot be read again, the former values hold"
        );
    }

    fn due(&self) -> Duration {
        let kind = self.config.kind;
        let usual = self.config.refresh_interval.map(|interval| interval.get());
        let due = interval(kind, usual, self.again_within, self.settled.is_failing());
        // The clocks of this machine's files need no spreading, and other stores are asked by many.
        match kind.is_local() {
            true => due,
            false => due.mul_f64(rand::rng().random_range(1.0 - SPREAD..=1.0)),
        }
    }

    fn measure(&self, took: Duration) {
        metrics::gauge!("secrets_store_load_duration_ms", label(&self.entry.name))
            .set(took.as_secs_f64() * 1e3);
    }
}

/// Until a store is read again.
fn interval(
    kind: StoreKind,
    usual: Option<Duration>,
    again_within: Option<Duration>,
    is_failing: bool,
) -> Duration {
    let default = if kind.is_local() { LOCAL_INTERVAL } else { REMOTE_INTERVAL };
    let usual = usual.unwrap_or(default);
    let due = again_within.map_or(usual, |lease| lease.min(usual));
    let due = if is_failing { due.min(RETRY_INTERVAL) } else { due };
    due.max(INTERVAL_MIN)
}

fn label(store: &str) -> Vec<Label> {
    vec![Label::new("store", store.to_owned())]
}

#[cfg(test)]
mod tests;
