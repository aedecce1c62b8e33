//! The results cache: a planned statement enters, the result of an earlier run of it may leave.
//!
//! Results of data that is kept here are exact: an entry says which generations it was computed from, and is answered
//! only while those are the ones that a run would read. No refresh has to find and drop entries, so none can come too
//! late for a result that is still being computed. Results that an upstream took part in are answered for
//! `item_ttl`, and only where the spicepod says so.
//!
//! Runs no statement itself: [`Lead::launch`] is given the run. Knows no header and no client.

mod policy;
mod wishes;

mod basis;
mod key;
mod memo;
mod reading;

mod collect;
mod entry;
mod store;

mod flight;
mod lead;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use tokio::sync::watch;

use super::Request;
use crate::config::{self, CacheKeyType, Eviction};
use crate::task;

use basis::Basis;
use flight::{Listed, Progress};
use memo::Memo;
use policy::{Age, Lifetime, Verdict};
use reading::Reading;
pub(in crate::query) use reading::repeatable;
use store::Store;

pub(super) use entry::Entry;
pub(super) use flight::{Flight, Outcome};
pub(super) use key::Key;
pub(super) use lead::Lead;
pub use wishes::{CacheWishes, ClientKey, Scope};

use CacheKeyType as KeyBy;

const BYTES_MAX_DEFAULT: usize = 128 << 20;
/// Where no size is set the cache takes no more than this part of the memory limit.
const MEMORY_PART: usize = 8;
const FRESH_DEFAULT: Duration = Duration::from_secs(1);
/// No result takes more than this part of the cache.
const ENTRY_PART: usize = 4;
/// So many requests may wait for one run; others run for themselves, in the queue that everybody stands in.
const FOLLOWERS_MAX: usize = 1_000;
/// Statements whose results are too large are remembered, so that nobody waits for them in vain: so many, so long.
const LARGE_MAX: u64 = 1_000;
const LARGE_TTL: Duration = Duration::from_secs(60);

/// The results cache of one process. Cheap to clone.
#[derive(Clone)]
pub struct ResultsCache {
    inner: Arc<Inner>,
}

struct Inner {
    by: KeyBy,
    lifetime: Lifetime,
    /// Whether results that an upstream took part in are kept.
    with_upstreams: bool,
    entry_bytes_max: usize,
    store: Store,
    running: Arc<Mutex<Running>>,
    flights: AtomicU64,
    clock: Clock,
    /// By hash: one that is taken for another is only run alone.
    large: moka::sync::Cache<u64, ()>,
    hasher: RandomState,
    memo: Memo,
    /// Always empty: the registration in the memory pool that entries share.
    account: MemoryReservation,
    scope: task::Scope,
}

/// Tells the time.
type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The runs that others may join.
type Running = HashMap<Key, Run>;

struct Run {
    number: u64,
    begun: Instant,
    /// As new as its result will be at least.
    basis: Basis,
    flight: Weak<Flight>,
}

/// A statement that may be in the cache.
pub(super) struct Case {
    pub key: Key,
    reading: Reading,
    wishes: CacheWishes,
    /// Of its key.
    bytes: usize,
}

/// What the cache has for a statement.
pub(super) enum Look {
    Hit(Arc<Entry>),
    Stale {
        entry: Arc<Entry>,
        revalidate: bool,
    },
    Miss {
        /// May be answered when the statement cannot be run.
        instead: Option<Arc<Entry>>,
    },
}

/// For the metrics: whether a result was there, or had been asked for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Hit,
    Miss,
}

/// How a statement that is not in the cache is run.
pub(super) enum Joined {
    /// It has come in meanwhile.
    Hit(Arc<Entry>),
    Lead(Lead),
    Follow(Arc<Flight>),
    /// Not for others, and not kept.
    Alone,
}

impl ResultsCache {
    /// Whether results that an upstream took part in are kept.
    #[must_use]
    pub fn keeps_upstreams(&self) -> bool {
        self.inner.with_upstreams
    }

    /// None where the spicepod wants none. Entries take their memory from `pool`; shared runs and refreshes live in
    /// `scope`.
    #[must_use]
    pub fn new(
        settings: &config::ResultsCache,
        pool: &Arc<dyn MemoryPool>,
        scope: task::Scope,
    ) -> Option<Self> {
        Self::with_clock(settings, pool, scope, Arc::new(Instant::now))
    }

    fn with_clock(
        settings: &config::ResultsCache,
        pool: &Arc<dyn MemoryPool>,
        scope: task::Scope,
        clock: Clock,
    ) -> Option<Self> {
        let bytes_max = match settings.max_size {
            Some(size) => usize::try_from(size.bytes()).unwrap_or(usize::MAX),
            None => bytes_max_by_default(pool),
        };
        if settings.enabled == Some(false) || bytes_max == 0 {
            return None;
        }
        let lifetime = Lifetime {
            fresh: settings.item_ttl.map_or(FRESH_DEFAULT, |ttl| ttl.get()),
            stale: settings.stale_ttl.map_or(Duration::ZERO, |ttl| ttl.get()),
        };
        let large = moka::sync::Cache::builder().max_capacity(LARGE_MAX).time_to_live(LARGE_TTL).build();
        let inner = Inner {
            by: settings.key.unwrap_or(KeyBy::Plan),
            lifetime,
            with_upstreams: settings.enabled == Some(true),
            // An entry's weight is counted in 32 bits.
            entry_bytes_max: (bytes_max / ENTRY_PART).min(u32::MAX as usize),
            store: Store::new(bytes_max, settings.eviction.unwrap_or(Eviction::Lru), lifetime),
            running: Arc::default(),
            flights: AtomicU64::new(0),
            clock,
            large,
            hasher: RandomState::new(),
            memo: Memo::new(),
            account: MemoryConsumer::new("results cache").register(pool),
            scope,
        };
        Some(Self { inner: Arc::new(inner) })
    }

    /// A result for a request that was planned before, while `version` was the catalog's and since; only one that
    /// needs nothing else done. Counted when there is one.
    pub(super) fn recall(&self, request: &Request, version: u64) -> Option<(Case, Arc<Entry>)> {
        if !request.cache.may_read() {
            return None;
        }
        let case = self.inner.memo.recall(request, version)?;
        match self.inner.find(&case) {
            Look::Hit(entry) => {
                metrics::counter!("results_cache_requests").increment(1);
                self.count(Found::Hit);
                Some((case, entry))
            }
            _ => None,
        }
    }

    /// What the cache must know of a statement; none where its result is not cached. `is_dataset` knows the names of
    /// datasets. The catalog had `version` before it was planned.
    pub(super) fn case(
        &self,
        request: &Request,
        version: u64,
        plan: &LogicalPlan,
        is_dataset: &dyn Fn(&TableScan) -> bool,
    ) -> Option<Case> {
        if request.cache.no_store {
            return None;
        }
        let reading = Reading::of(plan, is_dataset)?;
        if reading.is_upstream && !self.inner.with_upstreams {
            return None;
        }
        let key = Key::of(self.inner.by, request, plan)?;
        let case = Case { key, reading, wishes: request.cache.clone(), bytes: Key::bytes(request) };
        self.inner.memo.learn(request, version, &case);
        Some(case)
    }

    /// Looks for a result. A miss is counted when it turns out to be one: an equal statement may run.
    pub(super) fn look(&self, case: &Case) -> Look {
        metrics::counter!("results_cache_requests").increment(1);
        let look = self.inner.find(case);
        match &look {
            Look::Hit(_) => self.count(Found::Hit),
            Look::Stale { revalidate, .. } => {
                self.count(Found::Hit);
                if *revalidate {
                    metrics::counter!("results_cache_stale_swr_count").increment(1);
                }
            }
            Look::Miss { .. } => {}
        }
        look
    }

    /// Counts what became of a look.
    pub(super) fn count(&self, found: Found) {
        match found {
            Found::Hit => metrics::counter!("results_cache_hits").increment(1),
            Found::Miss => metrics::counter!("results_cache_misses").increment(1),
        }
    }

    /// Joins the run of an equal statement, or begins one. A run that has taken `patience` is left to those who wait
    /// for it already: otherwise one that never ends could be kept alive by those who come.
    pub(super) fn join(&self, case: &Case, patience: Option<Duration>) -> Joined {
        let inner = &self.inner;
        if inner.large.contains_key(&inner.hasher.hash_one(&case.key)) {
            return Joined::Alone;
        }
        let basis = Basis::now(&case.reading);
        let may_follow = policy::may_follow(!case.reading.is_upstream, inner.lifetime, &case.wishes);
        let now = (inner.clock)();
        let is_young =
            |run: &Run| patience.is_none_or(|most| now.saturating_duration_since(run.begun) < most);
        let found = {
            let mut running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            let run = running.get(&case.key).filter(|run| may_follow && run.basis == basis && is_young(run));
            match run.and_then(|run| run.flight.upgrade()) {
                Some(flight) => flight,
                // A run that has ended since the look has left its result.
                None => match inner.find(case) {
                    Look::Hit(entry) => return Joined::Hit(entry),
                    _ => return Joined::Lead(inner.lead(case, basis, &mut running)),
                },
            }
        };
        match Arc::strong_count(&found) > FOLLOWERS_MAX {
            true => Joined::Alone,
            false => Joined::Follow(found),
        }
    }

    /// The right to fetch a stale result anew; none where somebody does, or did.
    pub(super) fn renew(&self, case: &Case) -> Option<Lead> {
        let basis = Basis::now(&case.reading);
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_running = |run: &Run| run.basis == basis && run.flight.strong_count() > 0;
        if running.get(&case.key).is_some_and(is_running) {
            return None;
        }
        match self.inner.find(case) {
            Look::Hit(_) => None,
            _ => Some(self.inner.lead(case, basis, &mut running)),
        }
    }

    /// How long an answer stays fresh, and then how long it is answered stale: for `Cache-Control`, where the spicepod
    /// sets a `stale_while_revalidate_ttl`. `entry` is none for an answer that is only being made.
    pub(super) fn freshness(&self, case: &Case, entry: Option<&Entry>) -> Option<(Duration, Duration)> {
        let Lifetime { fresh, stale } = self.inner.lifetime;
        if !case.reading.is_upstream || stale.is_zero() {
            return None;
        }
        let age = match entry.map(|entry| entry.age((self.inner.clock)())) {
            Some(Age::Of(age)) => age,
            _ => Duration::ZERO,
        };
        Some((fresh.saturating_sub(age), stale))
    }

    /// Where background refreshes run.
    pub(super) fn scope(&self) -> &task::Scope {
        &self.inner.scope
    }
}

fn bytes_max_by_default(pool: &Arc<dyn MemoryPool>) -> usize {
    match pool.memory_limit() {
        MemoryLimit::Finite(limit) => BYTES_MAX_DEFAULT.min(limit / MEMORY_PART),
        MemoryLimit::Infinite | MemoryLimit::Unknown => BYTES_MAX_DEFAULT,
    }
}

impl Case {
    /// Whether it may be answered from the cache at all.
    pub fn may_read(&self) -> bool {
        self.wishes.may_read()
    }

    pub fn scope(&self) -> Scope {
        Scope::of(self.key.principal())
    }

    pub fn has_client_key(&self) -> bool {
        self.key.has_client_key()
    }
}

impl Inner {
    fn find(&self, case: &Case) -> Look {
        let Some(entry) = self.store.get(&case.key) else { return Look::Miss { instead: None } };
        if !entry.basis.holds_for(&case.reading) {
            self.store.invalidate(&case.key, &entry);
            return Look::Miss { instead: None };
        }
        let age = entry.age((self.clock)());
        match policy::judge(age, self.lifetime, &case.wishes) {
            Verdict::Hit => Look::Hit(entry),
            Verdict::Stale { revalidate } => Look::Stale { entry, revalidate },
            Verdict::Miss => {
                let serves = policy::serves_instead(age, self.lifetime, &case.wishes);
                Look::Miss { instead: serves.then_some(entry) }
            }
        }
    }

    /// A new run, which is listed in place of an older one of the same key.
    fn lead(self: &Arc<Self>, case: &Case, basis: Basis, running: &mut Running) -> Lead {
        let (sender, progress) = watch::channel(Progress::default());
        let number = self.flights.fetch_add(1, Ordering::Relaxed);
        let listed = Listed { running: Arc::clone(&self.running), key: case.key.clone(), number };
        let (rest, driver) = (Arc::default(), OnceLock::new());
        let flight = Arc::new(Flight { progress, rest, driver, listed });
        let run =
            Run { number, begun: (self.clock)(), basis: basis.clone(), flight: Arc::downgrade(&flight) };
        running.insert(case.key.clone(), run);
        let (is_upstream, bytes) = (case.reading.is_upstream, case.bytes);
        Lead { inner: Arc::clone(self), flight, sender, basis, is_upstream, bytes }
    }
}

#[cfg(test)]
mod tests;
